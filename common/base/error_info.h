// Facts about an error for programs, beside its reason: which limit, and what it is.
#ifndef SEQPAR_COMMON_BASE_ERROR_INFO_H_
#define SEQPAR_COMMON_BASE_ERROR_INFO_H_

#include <map>
#include <string>

#include "absl/status/status.h"

namespace seqpar {

// The same error with these facts; those that it has stay, but for such as have one of these names. On the
// wire: google.rpc.ErrorInfo.metadata, which an error without a reason does not have. OK stays OK.
absl::Status WithMetadata(const absl::Status& status, const std::map<std::string, std::string>& metadata);
// What was told; empty: nothing.
std::map<std::string, std::string> MetadataOf(const absl::Status& status);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_ERROR_INFO_H_
