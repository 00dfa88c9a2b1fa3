#include "common/rpc/grpc_log.h"

#include <grpc/support/log.h>

#include <atomic>

namespace seqpar {
namespace {

std::atomic<LogLevel> errors_level{LogLevel::kWarning};  // gRPC's hook takes a plain function

}  // namespace

void LogWhatGrpcSays(LogLevel errors) {
  errors_level = errors;
  gpr_set_log_function([](gpr_log_func_args* said) {
    const LogLevel level = said->severity == GPR_LOG_SEVERITY_ERROR ? errors_level.load() : LogLevel::kDebug;
    Log(level, said->message, {{"source", "gRPC"}});
  });
}

}  // namespace seqpar
