// Page tokens: opaque to clients, and good only for the list that they came from (google.aip.dev/158).
#ifndef SEQPAR_COORDINATOR_API_PAGE_TOKEN_H_
#define SEQPAR_COORDINATOR_API_PAGE_TOKEN_H_

#include <string>

#include "absl/status/statusor.h"

namespace seqpar {

// `position`: where the next page begins. `query`: everything that the answer depends on but for page size
// and token.
std::string MakePageToken(const std::string& position, const std::string& query);

// The position in a token of MakePageToken with the same query. INVALID_ARGUMENT (field page_token) for
// anything else.
absl::StatusOr<std::string> ReadPageToken(const std::string& token, const std::string& query);

// What ReadPageToken says; for a position that is none of its list's.
absl::Status BadPageToken();

// 0 is the default of 50; more than 500 is 500. INVALID_ARGUMENT where it is negative.
absl::StatusOr<int> PageSizeOf(int asked);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_API_PAGE_TOKEN_H_
