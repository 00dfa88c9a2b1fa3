// How many files this process may have open.
#ifndef SEQPAR_COMMON_BASE_FILE_LIMIT_H_
#define SEQPAR_COMMON_BASE_FILE_LIMIT_H_

namespace seqpar {

// As many as it may allow itself: shells and containers begin with 1,024, and each connection of a
// coordinator, each executor of a daemon (three) and each peer of an executor is one. Children inherit it.
void RaiseFileLimit();

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_FILE_LIMIT_H_
