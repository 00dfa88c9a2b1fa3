#include "worker/daemon/probe_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/pidfd.h"
#include "common/base/status.h"
#include "worker/daemon/executor_processes.h"

namespace seqpar {
namespace {

absl::Status SystemError(const std::string& what, int error) {
  return MakeError(absl::StatusCode::kInternal, reason::kInternal,
                   absl::StrCat(what, ": ", std::strerror(error)));
}

// On a busy machine a killed process takes its time, too.
constexpr int64_t kDeathUs = 1'000'000;

struct Doomed {
  pid_t pid;
  int64_t killed_us;
};

// Killed and not reaped yet. Of the one thread that starts probes.
std::vector<Doomed>& AllDoomed() {
  static auto* const doomed = new std::vector<Doomed>();
  return *doomed;
}

// Of probes that have not ended. Of the same thread.
std::set<pid_t>& Live() {
  static auto* const live = new std::set<pid_t>();
  return *live;
}

// Appends what is there; closes `fd` at its end.
void ReadAll(UniqueFd* fd, std::string* text) {
  char buffer[4096];
  while (fd->valid()) {
    const ssize_t n = read(fd->get(), buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return fd->Reset();
    text->append(buffer, static_cast<size_t>(n));
  }
}

absl::Status MakePipe(UniqueFd* ours, UniqueFd* its) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return SystemError("pipe", errno);
  ours->Reset(ends[0]);
  its->Reset(ends[1]);
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProbeProcess>> ProbeProcess::Start(std::string what,
                                                                  const std::vector<std::string>& arguments,
                                                                  const std::vector<std::string>& environment,
                                                                  int64_t timeout_us) {
  std::unique_ptr<ProbeProcess> probe(
      new ProbeProcess(std::move(what), Clock::System().BootMicros() + timeout_us));
  UniqueFd its_out, its_error;
  SEQPAR_RETURN_IF_ERROR(MakePipe(&probe->out_, &its_out));
  SEQPAR_RETURN_IF_ERROR(MakePipe(&probe->error_, &its_error));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, its_out.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, its_error.get(), STDERR_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  const int error = posix_spawn(&probe->pid_, "/proc/self/exe", &actions, nullptr, Pointers(arguments).data(),
                                Pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    probe->pid_ = -1;
    return SystemError(absl::StrCat(probe->what_, ": cannot start a process"), error);
  }
  Live().insert(probe->pid_);
  probe->pidfd_ = OpenProcess(probe->pid_);
  if (!probe->pidfd_.valid()) return SystemError(absl::StrCat(probe->what_, ": cannot watch it"), errno);
  return probe;
}

ProbeProcess::~ProbeProcess() {
  if (pid_ <= 0) return;
  Live().erase(pid_);
  KillAndReapLater(pid_);
}

void ProbeProcess::KillAndReapLater(pid_t pid) {
  kill(pid, SIGKILL);
  AllDoomed().push_back({pid, Clock::System().BootMicros()});
  Undead();
}

bool ProbeProcess::Owns(pid_t pid) { return Live().count(pid) != 0; }

int ProbeProcess::Undead() {
  std::vector<Doomed>& doomed = AllDoomed();
  doomed.erase(std::remove_if(doomed.begin(), doomed.end(),
                              [](const Doomed& d) { return waitpid(d.pid, nullptr, WNOHANG) != 0; }),
               doomed.end());
  const int64_t now_us = Clock::System().BootMicros();
  return static_cast<int>(std::count_if(
      doomed.begin(), doomed.end(), [now_us](const Doomed& d) { return now_us - d.killed_us > kDeathUs; }));
}

void ProbeProcess::AddPolls(std::vector<pollfd>* fds) const {
  for (const UniqueFd* fd : {&pidfd_, &out_, &error_}) {
    if (fd->valid()) fds->push_back({fd->get(), POLLIN, 0});
  }
}

std::optional<absl::StatusOr<std::string>> ProbeProcess::Poll() {
  // It is over when the process is gone, not when its outputs are: on a sick device the way out can hang too.
  pollfd gone = {pidfd_.get(), POLLIN, 0};
  const bool over = poll(&gone, 1, 0) > 0;
  ReadAll(&out_, &out_text_);
  ReadAll(&error_, &error_text_);
  if (over) return End();
  if (Clock::System().BootMicros() < deadline_us_) return std::nullopt;
  return absl::StatusOr<std::string>(absl::DeadlineExceededError(absl::StrCat(what_, ": no answer in time")));
}

absl::StatusOr<std::string> ProbeProcess::End() {
  int status = 0;
  waitpid(pid_, &status, 0);
  Live().erase(pid_);
  pid_ = -1;
  if (status == 0) return std::move(out_text_);
  const std::string said(absl::StripAsciiWhitespace(error_text_));
  return absl::UnavailableError(said.empty() ? absl::StrCat(what_, ": the process ", DescribeExit(status))
                                             : said.substr(said.rfind('\n') + 1));
}

absl::StatusOr<std::string> ProbeProcess::Wait(int stop_fd) {
  while (true) {
    if (auto answer = Poll()) return *std::move(answer);
    std::vector<pollfd> fds = {{stop_fd, POLLIN, 0}};
    AddPolls(&fds);
    const int64_t left_us = std::max<int64_t>(0, deadline_us_ - Clock::System().BootMicros());
    if (poll(fds.data(), fds.size(), static_cast<int>(left_us / 1000 + 1)) < 0) continue;  // EINTR
    if (fds[0].revents != 0) return absl::CancelledError("stopped");
  }
}

}  // namespace seqpar
