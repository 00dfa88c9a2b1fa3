// For our own bugs only: never for input, never for what a peer or a machine may do.
#ifndef SEQPAR_COMMON_BASE_CHECK_H_
#define SEQPAR_COMMON_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>

#define SEQPAR_CHECK(condition)                                                          \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)

#endif  // SEQPAR_COMMON_BASE_CHECK_H_
