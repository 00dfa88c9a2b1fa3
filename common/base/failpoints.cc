#include "common/base/failpoints.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/check.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr int kDelayMsMax = 600'000;
constexpr size_t kLineBytesMax = 512;

// What an armed file says.
struct Order {
  std::string action;
  FailAction bit = kFailNone;
  int delay_ms = 0;
  int64_t skip = 0;
  std::string who;
};

absl::StatusOr<Order> ParseOrder(absl::string_view line) {
  Order order;
  const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" \t\r\n"), absl::SkipEmpty());
  if (words.empty()) return absl::InvalidArgumentError("it names no action");
  order.action = words[0];
  order.bit = ParseFailAction(words[0]);
  if (order.bit == kFailNone) return absl::InvalidArgumentError(absl::StrCat("no action ", words[0]));
  size_t next = 1;
  if (order.bit == kFailDelay) {
    if (words.size() < 2 || !absl::SimpleAtoi(words[1], &order.delay_ms) || order.delay_ms < 0 ||
        order.delay_ms > kDelayMsMax) {
      return absl::InvalidArgumentError(absl::StrCat("delay needs milliseconds from 0 to ", kDelayMsMax));
    }
    ++next;
  }
  for (; next < words.size(); ++next) {
    const std::string& word = words[next];
    if (absl::StartsWith(word, "who=") && word.size() > 4) {
      order.who = word.substr(4);
    } else if (!absl::StartsWith(word, "skip=") || !absl::SimpleAtoi(word.substr(5), &order.skip) ||
               order.skip < 0) {
      return absl::InvalidArgumentError(absl::StrCat("'", word, "' is neither skip=N nor who=IDENTITY"));
    }
  }
  return order;
}

// An armed file is the same as long as all of this is.
using FileIdentity = std::pair<ino_t, int64_t>;
FileIdentity IdentityOf(const struct stat& info) {
  return {info.st_ino, int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec};
}

int64_t NowNs(clockid_t clock) {
  timespec now = {};
  clock_gettime(clock, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// What this process knows once failpoints are on.
class Failpoints {
 public:
  void Enable(const std::string& folder, FailpointIdentity identity) {
    MutexLock lock(mutex_);
    folder_ = folder;
    identity_ = std::move(identity);
    passes_.clear();
  }

  std::optional<Order> Take(const FailpointInfo& info, const FailpointSubject& subject);

 private:
  // Whether this pass is one of the first `skip` since the file came.
  bool LetsGo(const FailpointInfo& info, const struct stat& file, int64_t skip)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteHit(const FailpointInfo& info, absl::string_view line, const Order& order,
                const FailpointSubject& subject, const absl::Status& refused)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Mutex mutex_;
  std::string folder_ ABSL_GUARDED_BY(mutex_);
  FailpointIdentity identity_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::pair<FileIdentity, int64_t>> passes_ ABSL_GUARDED_BY(mutex_);
};

// Never destroyed: threads may pass points while the process exits.
Failpoints& State() {
  static auto* const state = new Failpoints;
  return *state;
}

std::optional<Order> Failpoints::Take(const FailpointInfo& info, const FailpointSubject& subject) {
  MutexLock lock(mutex_);
  const std::string path = absl::StrCat(folder_, "/armed/", info.name);
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return std::nullopt;
  char line[kLineBytesMax];
  struct stat file = {};
  const ssize_t bytes = read(fd.get(), line, sizeof(line));
  if (bytes <= 0 || fstat(fd.get(), &file) != 0) return std::nullopt;  // empty: it is being written
  const absl::string_view text(line, static_cast<size_t>(bytes));
  const absl::StatusOr<Order> parsed = ParseOrder(text);
  const Order order = parsed.ok() ? *parsed : Order();
  absl::Status refused = parsed.status();
  if (parsed.ok() && (info.actions & order.bit) == 0) {
    refused = absl::InvalidArgumentError(absl::StrCat("it does not honour ", order.action));
  }
  if (!order.who.empty() && !identity_.IsMeantBy(order.who)) return std::nullopt;
  if (refused.ok() && LetsGo(info, file, order.skip)) return std::nullopt;
  if (unlink(path.c_str()) != 0) return std::nullopt;  // another was quicker
  WriteHit(info, text, order, subject, refused);
  if (!refused.ok()) return std::nullopt;
  return order;
}

bool Failpoints::LetsGo(const FailpointInfo& info, const struct stat& file, int64_t skip) {
  auto& [identity, passes] = passes_[info.name];
  if (identity != IdentityOf(file)) {
    identity = IdentityOf(file);
    passes = 0;
  }
  return ++passes <= skip;
}

void Failpoints::WriteHit(const FailpointInfo& info, absl::string_view line, const Order& order,
                          const FailpointSubject& subject, const absl::Status& refused) {
  const std::string job = subject.job.empty() ? identity_.job : std::string(subject.job);
  const int attempt = subject.attempt > 0 ? subject.attempt : identity_.attempt;
  const int rank = subject.rank >= 0 ? subject.rank : identity_.rank;
  nlohmann::ordered_json hit = {{"boot_ns", NowNs(CLOCK_BOOTTIME)},
                                {"real_ns", NowNs(CLOCK_REALTIME)},
                                {"name", info.name},
                                {"action", order.action},
                                {"line", std::string(line)},
                                {"pid", getpid()},
                                {"process", FailProcessName(identity_.process)},
                                {"node", identity_.node},
                                {"job", job},
                                {"attempt", attempt},
                                {"rank", rank}};
  if (!refused.ok()) hit["refused"] = std::string(refused.message());
  const std::string text = hit.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  const std::string path = folder_ + "/hits.jsonl";
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644));
  if (!fd.valid() || write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    LogError("a hit of a failpoint cannot be written", {{"file", path}, {"error", std::strerror(errno)}});
  }
  if (refused.ok()) {
    LogWarning("failpoint", {{"failpoint", info.name}, {"action", order.action}, {"about", job}});
  } else {
    LogError("failpoint refused", {{"failpoint", info.name}, {"why", refused.message()}});
  }
}

[[noreturn]] void StandStill() {
  while (true) pause();
}

}  // namespace

std::string FailpointIdentity::ToString() const {
  std::string text = FailProcessName(process);
  if (!node.empty()) absl::StrAppend(&text, ":", node);
  if (rank >= 0) absl::StrAppend(&text, ":", rank);
  return text;
}

bool FailpointIdentity::IsMeantBy(absl::string_view who) const {
  const std::string whole = ToString();
  return whole == who || absl::StartsWith(whole, absl::StrCat(who, ":"));
}

absl::Status EnableFailpoints(const std::string& folder, FailpointIdentity identity) {
  std::error_code error;
  const std::filesystem::path whole = std::filesystem::absolute(folder, error);
  if (!error) std::filesystem::create_directories(whole / "armed", error);
  if (error) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kInvalidArgument,
                     absl::StrCat("--test-failpoints: cannot create ", folder, "/armed: ", error.message()));
  }
  LogWarning("failpoints are on: this process is under test",
             {{"folder", whole.string()}, {"who", identity.ToString()}});
  State().Enable(whole.string(), std::move(identity));
  failpoints_internal::on = true;
  return absl::OkStatus();
}

void DisableFailpoints() { failpoints_internal::on = false; }

namespace failpoints_internal {

std::atomic<bool> on{false};

void Crash() {
  kill(getpid(), SIGKILL);
  StandStill();
}

FailAction Pass(const char* name, const FailpointSubject& subject) {
  const FailpointInfo* info = FindFailpoint(name);
  SEQPAR_CHECK(info != nullptr);
  const std::optional<Order> order = State().Take(*info, subject);
  if (!order) return kFailNone;
  switch (order->bit) {
    case kFailCrash:
      Crash();
    case kFailHang:
      StandStill();
    case kFailDelay:
      std::this_thread::sleep_for(std::chrono::milliseconds(order->delay_ms));
      return kFailNone;
    default:
      return order->bit;
  }
}

absl::Status ErrorOf(const char* name) {
  const FailpointInfo* info = FindFailpoint(name);
  SEQPAR_CHECK(info != nullptr && info->reason != nullptr);
  const bool storage = std::strcmp(info->reason, reason::kStorage) == 0;
  return MakeError(storage ? absl::StatusCode::kInternal : absl::StatusCode::kUnavailable, info->reason,
                   absl::StrCat(storage ? "Input/output error" : "unavailable", " (failpoint ", name, ")"));
}

}  // namespace failpoints_internal
}  // namespace seqpar
