#include "coordinator/auth/audit_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr int kRefusalsPerSecond = 10;
constexpr int64_t kSecondUs = 1'000'000;

const LogConfig& FileConfig() {
  static const auto* config = new LogConfig{LogLevel::kInfo, LogFormat::kJson, "audit"};
  return *config;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AuditLog>> AuditLog::Open(const std::string& path, const Clock* clock) {
  UniqueFd file;
  if (!path.empty()) {
    file = UniqueFd(open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640));
    if (!file.valid()) {
      return MakeError(
          absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
          absl::StrCat("--audit-log ", path, " cannot be written: ", std::generic_category().message(errno)));
    }
  }
  return std::unique_ptr<AuditLog>(new AuditLog(std::move(file), clock));
}

template <typename... Fields>
void AuditLog::Write(const std::string& message, const Fields&... fields) {
  if (!file_.valid()) return LogInfo(absl::StrCat("audit: ", message), {fields...});
  const std::string line =
      FormatLogRecord(FileConfig(), clock_->WallMicros(), LogLevel::kInfo, message, {fields...});
  if (write(file_.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    LogError("the audit log cannot be written",
             {{"error", std::generic_category().message(errno)}, {"line", line}});
  }
}

void AuditLog::Changed(const Caller& caller, const std::string& method, const std::string& object,
                       const std::string& request, const absl::Status& outcome) {
  Write("change", LogField("who", caller.name), LogField("role", RoleName(caller.role)),
        LogField("tenant", caller.tenant), LogField("from", caller.peer), LogField("method", method),
        LogField("object", object), LogField("request", request),
        LogField("outcome", absl::StatusCodeToString(outcome.code())),
        LogField("error", std::string(outcome.message())));
}

void AuditLog::Refused(const std::string& method, const absl::Status& why) {
  int64_t left_out = 0;
  {
    MutexLock lock(mutex_);
    const int64_t second = clock_->BootMicros() / kSecondUs;
    if (second != second_) {
      second_ = second;
      written_ = 0;
    }
    if (written_ >= kRefusalsPerSecond) {
      ++left_out_;
      return;
    }
    ++written_;
    left_out = std::exchange(left_out_, 0);
  }
  Write("refused", LogField("method", method), LogField("outcome", absl::StatusCodeToString(why.code())),
        LogField("error", std::string(why.message())), LogField("left_out_before", left_out));
}

}  // namespace seqpar
