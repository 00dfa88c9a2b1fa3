#include "common/comm/spans.h"

#include <algorithm>
#include <cstring>

#include "common/base/check.h"

namespace seqpar {

int64_t TotalBytes(const std::vector<Span>& spans) {
  int64_t total = 0;
  for (const Span& span : spans) total += span.bytes;
  return total;
}

void CopySpans(const std::vector<Span>& from, const std::vector<Span>& to) {
  SEQPAR_CHECK(TotalBytes(from) == TotalBytes(to));
  size_t source = 0;
  int64_t used = 0;  // of from[source]
  for (const Span& span : to) {
    int64_t filled = 0;
    while (filled < span.bytes) {
      const int64_t n = std::min(span.bytes - filled, from[source].bytes - used);
      char* const target = static_cast<char*>(span.data) + filled;
      const char* const origin = static_cast<const char*>(from[source].data) + used;
      if (n > 0 && target != origin) std::memcpy(target, origin, n);
      filled += n;
      used += n;
      if (used == from[source].bytes) {
        ++source;
        used = 0;
      }
    }
  }
}

}  // namespace seqpar
