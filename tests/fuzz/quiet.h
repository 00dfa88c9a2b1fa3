// The log of what is fuzzed would be all that one sees.
#ifndef SEQPAR_TESTS_FUZZ_QUIET_H_
#define SEQPAR_TESTS_FUZZ_QUIET_H_

#include "common/base/log.h"

namespace seqpar {

// Logs nothing from now on.
inline void BeQuiet() {
  static const bool once = [] {
    LogConfig config;
    config.level = static_cast<LogLevel>(static_cast<int>(LogLevel::kError) + 1);
    SetupLogging(config);
    return true;
  }();
  static_cast<void>(once);
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_FUZZ_QUIET_H_
