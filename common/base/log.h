// Structured logging to stderr: one line a record, UTC, with job, attempt, rank and phase where the thread
// has them.
#ifndef SEQPAR_COMMON_BASE_LOG_H_
#define SEQPAR_COMMON_BASE_LOG_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace seqpar {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

struct LogConfig {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kText;
  std::string component;  // "coordinator", "worker", "executor", "seqpar"
};

// Call once in main before threads start; without it: info, text.
void SetupLogging(const LogConfig& config);
// "debug" | "info" | "warning" | "error"; "text" | "json". False where the name is none of them.
bool ParseLogLevel(const std::string& name, LogLevel* level);
bool ParseLogFormat(const std::string& name, LogFormat* format);

// Fields that every record of this thread carries while it lives; nested contexts override by name.
class LogContext {
 public:
  explicit LogContext(std::initializer_list<std::pair<const char*, std::string>> fields);
  ~LogContext();
  LogContext(const LogContext&) = delete;
  LogContext& operator=(const LogContext&) = delete;

 private:
  size_t previous_;
};

struct LogField {
  template <typename T>
  LogField(const char* k, const T& v) : key(k), value(absl::StrCat(v)) {}
  const char* key;
  std::string value;
};

// One record as a line with its newline, in UTC; takes the calling thread's context. Text:
//   2026-11-24T14:30:00.123Z I worker rank started job=j-1 rank=3 note="two words"
// JSON: one object with time, level, component, message and the fields, all strings; a field named like one
// of those four gets a trailing underscore. Either way bytes that are not UTF-8 become U+FFFD and control
// characters escapes, so that a record is always one line.
std::string FormatLogRecord(const LogConfig& config, int64_t wall_us, LogLevel level,
                            const std::string& message, std::initializer_list<LogField> fields);

// Parts a text record without its newline, of any component, into its level and what follows the component.
// False where `line` is none.
bool ParseTextRecord(const std::string& line, LogLevel* level, std::string* rest);

// Thread-safe; a record is one write(2).
void Log(LogLevel level, const std::string& message, std::initializer_list<LogField> fields = {});
inline void LogDebug(const std::string& m, std::initializer_list<LogField> f = {}) {
  Log(LogLevel::kDebug, m, f);
}
inline void LogInfo(const std::string& m, std::initializer_list<LogField> f = {}) {
  Log(LogLevel::kInfo, m, f);
}
inline void LogWarning(const std::string& m, std::initializer_list<LogField> f = {}) {
  Log(LogLevel::kWarning, m, f);
}
inline void LogError(const std::string& m, std::initializer_list<LogField> f = {}) {
  Log(LogLevel::kError, m, f);
}

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_LOG_H_
