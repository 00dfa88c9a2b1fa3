#include "common/base/random_id.h"

#include <errno.h>
#include <sys/random.h>

#include "common/base/check.h"

namespace seqpar {

std::string RandomHex(int digits) {
  SEQPAR_CHECK(digits >= 0);
  std::string bytes(static_cast<size_t>(digits + 1) / 2, '\0');
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n = getrandom(bytes.data() + done, bytes.size() - done, 0);
    if (n < 0 && errno == EINTR) continue;
    SEQPAR_CHECK(n > 0);  // without flags and with a valid buffer only EINTR is possible
    done += static_cast<size_t>(n);
  }
  std::string text;
  for (size_t i = 0; i < static_cast<size_t>(digits); ++i) {
    const unsigned char byte = static_cast<unsigned char>(bytes[i / 2]);
    text.push_back("0123456789abcdef"[i % 2 == 0 ? byte >> 4 : byte & 0xf]);
  }
  return text;
}

}  // namespace seqpar
