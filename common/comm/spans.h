// Memory cut in spans, as the two ends of a message see it.
#ifndef SEQPAR_COMMON_COMM_SPANS_H_
#define SEQPAR_COMMON_COMM_SPANS_H_

#include <cstdint>
#include <vector>

#include "common/comm/communicator.h"

namespace seqpar {

int64_t TotalBytes(const std::vector<Span>& spans);

// Copies on the host, however the two sides are cut. REQUIRES: equal totals. Parts that are already in place
// are left alone; other overlap is not allowed.
void CopySpans(const std::vector<Span>& from, const std::vector<Span>& to);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_COMM_SPANS_H_
