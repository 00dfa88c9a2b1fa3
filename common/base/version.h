// What --version prints and what both sides of a connection tell each other.
#ifndef SEQPAR_COMMON_BASE_VERSION_H_
#define SEQPAR_COMMON_BASE_VERSION_H_

namespace seqpar {
inline constexpr char kVersion[] = "0.1.0";
// Workers of older releases than this are refused: the release before kVersion, whose wire contract is kept
// in tests/skew/release; before there was one, kVersion itself.
inline constexpr char kOldestServed[] = "0.1.0";
}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_VERSION_H_
