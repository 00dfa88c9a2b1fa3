#include "common/base/netstring.h"

#include <cstdint>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace seqpar {

void AppendNetstring(const std::string& text, std::string* out) {
  absl::StrAppend(out, text.size(), ":", text);
}

bool TakeNetstring(const std::string& in, size_t* at, std::string* out) {
  const size_t colon = in.find(':', *at);
  uint64_t size = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(in.substr(*at, colon - *at), &size)) return false;
  if (size > in.size() - colon - 1) return false;
  *out = in.substr(colon + 1, size);
  *at = colon + 1 + size;
  return true;
}

}  // namespace seqpar
