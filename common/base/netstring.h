// Netstrings ("5:hello"): fields of any bytes, one behind the other.
#ifndef SEQPAR_COMMON_BASE_NETSTRING_H_
#define SEQPAR_COMMON_BASE_NETSTRING_H_

#include <cstddef>
#include <string>

namespace seqpar {

void AppendNetstring(const std::string& text, std::string* out);

// Takes the one that begins at `*at`, which then is behind it. False, and nothing changes, where there is
// none that is whole.
bool TakeNetstring(const std::string& in, size_t* at, std::string* out);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_NETSTRING_H_
