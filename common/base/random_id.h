// Random identifiers.
#ifndef SEQPAR_COMMON_BASE_RANDOM_ID_H_
#define SEQPAR_COMMON_BASE_RANDOM_ID_H_

#include <string>

namespace seqpar {

// `digits` random lower-case hexadecimal digits from the kernel's generator: fit for ids that nobody may
// guess. Thread-safe. REQUIRES: digits >= 0.
std::string RandomHex(int digits);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_RANDOM_ID_H_
