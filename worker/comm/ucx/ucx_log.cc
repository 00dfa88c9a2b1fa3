#include "worker/comm/ucx/ucx_log.h"

#include <ucs/debug/log_def.h>

#include <cstdarg>
#include <cstdio>
#include <mutex>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"

namespace seqpar {
namespace {

// What UCX calls an error reaches the caller as a status as well; what it warns of is mostly of no
// consequence, such as requests that an aborted attempt left behind.
LogLevel LevelOf(ucs_log_level_t level) {
  if (level <= UCS_LOG_LEVEL_ERROR) return LogLevel::kWarning;
  return level == UCS_LOG_LEVEL_WARN ? LogLevel::kInfo : LogLevel::kDebug;
}

ucs_log_func_rc_t Handle(const char* file, unsigned line, const char* /*function*/, ucs_log_level_t level,
                         const ucs_log_component_config_t* /*component*/, const char* format,
                         va_list arguments) {
  char text[1024];
  std::vsnprintf(text, sizeof(text), format, arguments);
  const std::string path(file);
  Log(LevelOf(level), absl::StrCat("ucx: ", text),
      {{"source", absl::StrCat(path.substr(path.rfind('/') + 1), ":", line)}});
  return UCS_LOG_FUNC_RC_STOP;
}

}  // namespace

void RouteUcxLog() {
  static std::once_flag once;
  std::call_once(once, [] { ucs_log_push_handler(&Handle); });
}

}  // namespace seqpar
