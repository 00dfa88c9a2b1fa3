#include "worker/daemon/executor_processes.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/pidfd.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "worker/daemon/probe_process.h"

namespace seqpar {
namespace {

absl::Status SystemError(const char* what, int error) {
  return MakeError(absl::StatusCode::kInternal, reason::kInternal,
                   absl::StrCat(what, ": ", std::strerror(error)));
}

void SetNonBlocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

// posix_spawn's two settings objects, destroyed on every path.
struct SpawnSettings {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  SpawnSettings() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
};

// Of one descriptor in one round: whatever one executor says or prints, the daemon's loop goes round and its
// lease is kept. More than a pipe or a socket holds, so that all of what an executor has left is read at
// once.
constexpr int kReadsAtOnce = 32;

void RemoveOnce(const std::string& part, std::string* text) {
  const size_t at = text->find(part);
  if (at != std::string::npos) text->erase(at, part.size());
}

// The phase that a record ends with, taken out of it; nullptr where it ends with none.
const char* TakePhase(std::string* text) {
  for (int i = 0; i <= static_cast<int>(JobPhase::kReport); ++i) {
    const char* const phase = PhaseName(static_cast<JobPhase>(i));
    const std::string field = absl::StrCat(" phase=", phase);
    if (!absl::EndsWith(*text, field)) continue;
    text->resize(text->size() - field.size());
    return phase;
  }
  return nullptr;
}

}  // namespace

std::vector<char*> Pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

std::string DescribeExit(int status) {
  if (WIFEXITED(status)) {
    const int code = WEXITSTATUS(status);
    const char* meaning = code == kExitOrphaned    ? " (lost its daemon)"
                          : code == kExitLeaseOver ? " (its lease was over)"
                                                   : "";
    return absl::StrCat("exited with code ", code, meaning);
  }
  return absl::StrCat("was killed by signal ", WTERMSIG(status), " (", strsignal(WTERMSIG(status)), ")");
}

// A transport's settings that mean one process tree only: inherited, they would join strangers.
constexpr const char* kNeverInherited[] = {"NCCL_COMM_BLOCKING", "NCCL_COMM_ID", "NCCL_HOSTID"};

std::vector<std::string> EnvironmentWith(const std::vector<std::string>& settings) {
  const auto name_of = [](const std::string& setting) { return setting.substr(0, setting.find('=')); };
  std::vector<std::string> all = settings;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    bool replaced = false;
    for (const char* name : kNeverInherited) replaced |= name_of(*variable) == name;
    for (const std::string& setting : settings) replaced |= name_of(setting) == name_of(*variable);
    if (!replaced) all.emplace_back(*variable);
  }
  return all;
}

ExecutorProcesses::ExecutorProcesses(std::vector<std::string> arguments,
                                     std::function<std::vector<std::string>(const RankKey&)> environment)
    : arguments_(std::move(arguments)), environment_(std::move(environment)) {}

ExecutorProcesses::~ExecutorProcesses() {
  for (auto& [key, child] : children_) {
    kill(child->pid, SIGKILL);
    waitpid(child->pid, nullptr, 0);
  }
}

absl::Status ExecutorProcesses::Start(const RankKey& key, const v1::Run& run) {
  auto child = std::make_shared<Child>();
  child->key = key;
  v1::ToExecutor message;
  *message.mutable_run() = run;
  SEQPAR_ASSIGN_OR_RETURN(child->to_send, EncodeFrame(message));
  SEQPAR_RETURN_IF_ERROR(Spawn(child.get()));
  children_[key] = child;
  Flush(child.get());
  return absl::OkStatus();
}

absl::Status ExecutorProcesses::Spawn(Child* child) {
  int channel[2], output[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) != 0)
    return SystemError("socketpair", errno);
  child->channel.Reset(channel[0]);
  const UniqueFd its_channel(channel[1]);
  if (pipe2(output, O_CLOEXEC) != 0) return SystemError("pipe", errno);
  child->output.Reset(output[0]);
  const UniqueFd its_output(output[1]);
  SetNonBlocking(child->channel.get());
  SetNonBlocking(child->output.get());

  SpawnSettings settings;
  posix_spawn_file_actions_addopen(&settings.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&settings.actions, its_output.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&settings.actions, its_output.get(), STDERR_FILENO);
  posix_spawn_file_actions_adddup2(&settings.actions, its_channel.get(), kExecutorChannelFd);
  posix_spawn_file_actions_addclosefrom_np(&settings.actions, kExecutorChannelFd + 1);
  // Whatever the daemon ignores, or was itself started with, an executor must not inherit. A group of
  // its own keeps a terminal's Ctrl-C with the daemon, which then stops its executors in order.
  sigset_t none, defaults;
  sigemptyset(&none);
  sigemptyset(&defaults);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) sigaddset(&defaults, signal);
  posix_spawnattr_setsigmask(&settings.attributes, &none);
  posix_spawnattr_setsigdefault(&settings.attributes, &defaults);
  posix_spawnattr_setpgroup(&settings.attributes, 0);
  posix_spawnattr_setflags(&settings.attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);

  const std::vector<std::string> environment = EnvironmentWith(environment_(child->key));
  const int error = posix_spawn(&child->pid, "/proc/self/exe", &settings.actions, &settings.attributes,
                                Pointers(arguments_).data(), Pointers(environment).data());
  if (error != 0) return SystemError("cannot start an executor", error);
  child->pidfd = OpenProcess(child->pid);
  if (!child->pidfd.valid()) {
    const int pidfd_error = errno;
    kill(child->pid, SIGKILL);
    waitpid(child->pid, nullptr, 0);
    return SystemError("cannot watch an executor", pidfd_error);
  }
  return absl::OkStatus();
}

void ExecutorProcesses::Send(const RankKey& key, const v1::ToExecutor& message) {
  const auto child = children_.find(key);
  if (child == children_.end()) return;
  const absl::StatusOr<std::string> frame = EncodeFrame(message);
  if (!frame.ok()) return LogError("cannot send to an executor", {{"error", frame.status().message()}});
  child->second->to_send += *frame;
  Flush(child->second.get());
}

void ExecutorProcesses::Kill(const RankKey& key) {
  const auto child = children_.find(key);
  if (child != children_.end()) kill(child->second->pid, SIGKILL);  // not reaped: the pid is still its own
}

void ExecutorProcesses::AddPolls(std::vector<pollfd>* fds) const {
  for (const auto& [key, child] : children_) {
    const short channel_events = static_cast<short>(POLLIN | (child->to_send.empty() ? 0 : POLLOUT));
    fds->push_back({child->pidfd.get(), POLLIN, 0});
    fds->push_back({child->channel.get(), channel_events, 0});
    fds->push_back({child->output.get(), POLLIN, 0});
  }
}

void ExecutorProcesses::HandlePolls(const std::vector<pollfd>& fds, size_t first) {
  std::vector<std::shared_ptr<Child>> children;  // observers may start others meanwhile
  for (const auto& [key, child] : children_) children.push_back(child);
  for (const std::shared_ptr<Child>& child : children) {
    bool ended = false;
    for (size_t i = first; i < fds.size(); ++i) {
      if (fds[i].revents == 0 || fds[i].fd < 0) continue;
      if (fds[i].fd == child->pidfd.get()) ended = true;
      if (fds[i].fd == child->output.get()) ReadOutput(child.get());
      if (fds[i].fd != child->channel.get()) continue;
      if ((fds[i].revents & POLLOUT) != 0) Flush(child.get());
      if ((fds[i].revents & ~POLLOUT) == 0) continue;
      ReadOutput(child.get());  // printed before it says, perhaps, that it is at another phase
      ReadChannel(child.get());
    }
    if (ended) Reap(child.get());
  }
}

void ExecutorProcesses::ReapOrphans() const {
  while (true) {
    siginfo_t ended = {};
    if (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) != 0 || ended.si_pid == 0) return;
    for (const auto& [key, child] : children_) {
      if (child->pid == ended.si_pid) return;  // its descriptor says so, and what hides behind it is next
    }
    if (ProbeProcess::Owns(ended.si_pid)) return;  // the same
    waitpid(ended.si_pid, nullptr, WNOHANG);
  }
}

void ExecutorProcesses::Flush(Child* child) {
  while (!child->to_send.empty() && child->channel.valid()) {
    const ssize_t n = send(child->channel.get(), child->to_send.data(), child->to_send.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      if (errno != EAGAIN) child->to_send.clear();  // it is gone: its exit says so
      return;
    }
    child->to_send.erase(0, static_cast<size_t>(n));
  }
}

void ExecutorProcesses::ReadChannel(Child* child) {
  char buffer[65536];
  for (int i = 0; i < kReadsAtOnce && child->channel.valid(); ++i) {
    const ssize_t n = recv(child->channel.get(), buffer, sizeof(buffer), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      child->channel.Reset();
      return;
    }
    child->decoder.Feed(buffer, static_cast<size_t>(n));
    while (true) {
      const auto payload = child->decoder.Next();
      v1::FromExecutor message;
      if (!payload.ok() || (payload->has_value() && !message.ParseFromString(**payload))) {
        LogError("an executor sent what is no message", {{"job", child->key.job},
                                                         {"attempt", child->key.attempt},
                                                         {"rank", child->key.rank},
                                                         {"phase", child->phase}});
        kill(child->pid, SIGKILL);
        child->channel.Reset();
        return;
      }
      if (!payload->has_value()) break;
      if (message.has_progress()) child->phase = PhaseName(PhaseFromProto(message.progress().phase()));
      observer_.on_message(child->key, message);
    }
  }
}

void ExecutorProcesses::ReadOutput(Child* child) {
  char buffer[16384];
  for (int i = 0; i < kReadsAtOnce && child->output.valid(); ++i) {
    const ssize_t n = read(child->output.get(), buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      child->output.Reset();
      return;
    }
    observer_.on_output(child->key, buffer, static_cast<size_t>(n));
    LogLines(child, buffer, static_cast<size_t>(n));
  }
}

void ExecutorProcesses::LogLines(Child* child, const char* data, size_t bytes) {
  constexpr size_t kLineMax = 4096;
  for (size_t i = 0; i < bytes; ++i) {
    if (data[i] != '\n') child->line.push_back(data[i]);
    if (data[i] != '\n' && child->line.size() < kLineMax) continue;
    LogLine(child);
  }
}

void ExecutorProcesses::LogLine(Child* child) {
  const std::string line = std::exchange(child->line, "");
  LogLevel level = LogLevel::kInfo;
  std::string text;
  if (ParseTextRecord(line, &level, &text)) {
    // What a record of its own says of itself is said below.
    const RankKey& key = child->key;
    RemoveOnce(absl::StrCat(" job=", key.job, " attempt=", key.attempt, " rank=", key.rank), &text);
    if (const char* const phase = TakePhase(&text)) child->phase = phase;
  } else {
    text = line;
  }
  if (text.empty()) return;
  Log(level, text,
      {{"job", child->key.job},
       {"attempt", child->key.attempt},
       {"rank", child->key.rank},
       {"phase", child->phase},
       {"from", "executor"}});
}

void ExecutorProcesses::Reap(Child* child) {
  int status = 0;
  while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR) {
  }
  ReadChannel(child);
  ReadOutput(child);
  LogLine(child);  // the last may have no end
  const RankKey key = child->key;
  const pid_t pid = child->pid;
  children_.erase(key);
  const bool lease_over = WIFEXITED(status) && WEXITSTATUS(status) == kExitLeaseOver;
  observer_.on_exit(key, {DescribeExit(status), lease_over, pid});
}

}  // namespace seqpar
