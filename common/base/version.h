// What --version prints and what both sides of a connection tell each other.
#ifndef SEQPAR_COMMON_BASE_VERSION_H_
#define SEQPAR_COMMON_BASE_VERSION_H_

namespace seqpar {
inline constexpr char kVersion[] = "0.1.0";
}

#endif  // SEQPAR_COMMON_BASE_VERSION_H_
