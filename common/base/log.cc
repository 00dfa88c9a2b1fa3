#include "common/base/log.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "common/base/clock.h"
#include "common/base/utf8.h"

namespace seqpar {
namespace {

LogConfig& Config() {
  static LogConfig* const config = new LogConfig;  // never destroyed: threads may log while the process exits
  return *config;
}

std::vector<std::pair<const char*, std::string>>& Context() {
  static thread_local std::vector<std::pair<const char*, std::string>> context;
  return context;
}

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "";
}

std::string FormatTime(int64_t wall_us) {
  const time_t seconds = wall_us / 1'000'000;
  tm utc;
  gmtime_r(&seconds, &utc);
  char text[64];
  const size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(text + n, sizeof(text) - n, ".%03dZ", static_cast<int>(wall_us / 1'000 % 1'000));
  return text;
}

// Appends `text` with quotes, backslashes and control characters escaped as JSON does, and bytes that are not
// UTF-8 replaced by U+FFFD. `quotes`: whether '"' and '\' are escaped too.
void AppendEscaped(const std::string& text, bool quotes, std::string* out) {
  for (size_t i = 0; i < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const size_t length = Utf8SequenceLength(text, i);
    if (length == 0) {
      out->append("\xef\xbf\xbd");
    } else if (c == '\n') {
      out->append("\\n");
    } else if (c == '\t') {
      out->append("\\t");
    } else if (c < 0x20 || c == 0x7f) {
      char code[8];
      std::snprintf(code, sizeof(code), "\\u%04x", c);
      out->append(code);
    } else {
      if (quotes && (c == '"' || c == '\\')) out->push_back('\\');
      out->append(text, i, length);
    }
    i += std::max<size_t>(length, 1);
  }
}

void AppendQuoted(const std::string& text, std::string* out) {
  out->push_back('"');
  AppendEscaped(text, /*quotes=*/true, out);
  out->push_back('"');
}

bool NeedsQuotes(const std::string& value) {
  if (value.empty()) return true;
  return std::any_of(value.begin(), value.end(), [](char c) {
    const unsigned char u = static_cast<unsigned char>(c);
    return u <= 0x20 || u >= 0x7f || c == '"' || c == '\\' || c == '=';
  });
}

using FieldList = std::vector<std::pair<std::string, const std::string*>>;

// The thread's context, then the record's own fields; a later one of the same name takes the earlier one's
// place.
FieldList MergedFields(std::initializer_list<LogField> own) {
  FieldList merged;
  const auto put = [&](const char* key, const std::string& value) {
    for (auto& field : merged) {
      if (field.first == key) {
        field.second = &value;
        return;
      }
    }
    merged.emplace_back(key, &value);
  };
  for (const auto& field : Context()) put(field.first, field.second);
  for (const LogField& field : own) put(field.key, field.value);
  return merged;
}

constexpr char kLevelLetters[] = "DIWE";  // by LogLevel

std::string FormatText(const LogConfig& config, int64_t wall_us, LogLevel level, const std::string& message,
                       const FieldList& fields) {
  std::string line = FormatTime(wall_us);
  line.push_back(' ');
  line.push_back(kLevelLetters[static_cast<int>(level)]);
  line.push_back(' ');
  if (!config.component.empty()) {
    line += config.component;
    line.push_back(' ');
  }
  AppendEscaped(message, /*quotes=*/false, &line);
  for (const auto& field : fields) {
    line.push_back(' ');
    line += field.first;
    line.push_back('=');
    if (NeedsQuotes(*field.second)) {
      AppendQuoted(*field.second, &line);
    } else {
      line += *field.second;
    }
  }
  line.push_back('\n');
  return line;
}

std::string FormatJson(const LogConfig& config, int64_t wall_us, LogLevel level, const std::string& message,
                       const FieldList& fields) {
  std::string line =
      absl::StrCat("{\"time\":\"", FormatTime(wall_us), "\",\"level\":\"", LevelName(level), "\"");
  const auto append = [&](const std::string& key, const std::string& value) {
    line.push_back(',');
    AppendQuoted(key, &line);
    line.push_back(':');
    AppendQuoted(value, &line);
  };
  if (!config.component.empty()) append("component", config.component);
  append("message", message);
  for (const auto& field : fields) {
    const std::string& key = field.first;
    const bool reserved = key == "time" || key == "level" || key == "component" || key == "message";
    append(reserved ? key + "_" : key, *field.second);
  }
  line += "}\n";
  return line;
}

}  // namespace

void SetupLogging(const LogConfig& config) { Config() = config; }

bool ParseLogLevel(const std::string& name, LogLevel* level) {
  for (LogLevel candidate : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError}) {
    if (name == LevelName(candidate)) {
      *level = candidate;
      return true;
    }
  }
  return false;
}

bool ParseLogFormat(const std::string& name, LogFormat* format) {
  if (name != "text" && name != "json") return false;
  *format = name == "text" ? LogFormat::kText : LogFormat::kJson;
  return true;
}

LogContext::LogContext(std::initializer_list<std::pair<const char*, std::string>> fields)
    : previous_(Context().size()) {
  Context().insert(Context().end(), fields.begin(), fields.end());
}

LogContext::~LogContext() { Context().resize(previous_); }

std::string FormatLogRecord(const LogConfig& config, int64_t wall_us, LogLevel level,
                            const std::string& message, std::initializer_list<LogField> fields) {
  const FieldList merged = MergedFields(fields);
  return config.format == LogFormat::kJson ? FormatJson(config, wall_us, level, message, merged)
                                           : FormatText(config, wall_us, level, message, merged);
}

bool ParseTextRecord(const std::string& line, LogLevel* level, std::string* rest) {
  constexpr char kShape[] = "dddd-dd-ddTdd:dd:dd.dddZ ? ";  // d: a digit, ?: the level
  constexpr size_t kLength = sizeof(kShape) - 1, kLevelAt = kLength - 2;
  if (line.size() < kLength) return false;
  for (size_t i = 0; i < kLength; ++i) {
    if (kShape[i] == 'd' ? line[i] < '0' || line[i] > '9' : kShape[i] != '?' && line[i] != kShape[i])
      return false;
  }
  const char* letter = std::strchr(kLevelLetters, line[kLevelAt]);
  const size_t space = line.find(' ', kLength);
  if (letter == nullptr || *letter == '\0' || space == std::string::npos) return false;
  *level = static_cast<LogLevel>(letter - kLevelLetters);
  *rest = line.substr(space + 1);
  return true;
}

void Log(LogLevel level, const std::string& message, std::initializer_list<LogField> fields) {
  const LogConfig& config = Config();
  if (level < config.level) return;
  const std::string line = FormatLogRecord(config, Clock::System().WallMicros(), level, message, fields);
  // Only a full pipe or a signal splits the write; what is left then follows, and a broken stderr is given
  // up.
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = write(STDERR_FILENO, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    done += static_cast<size_t>(n);
  }
}

}  // namespace seqpar
