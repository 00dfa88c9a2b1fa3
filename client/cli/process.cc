#include "client/cli/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/fd.h"
#include "common/base/line_file.h"

namespace seqpar {
namespace {

constexpr double kPollSeconds = 0.02;
constexpr double kKillSeconds = 10;

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Polls until the process is gone; false after `seconds`.
bool WaitUntilGone(const ProcessId& process, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (IsRunning(process)) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::duration<double>(kPollSeconds));
  }
  // A child of this process would stay a zombie until it is waited for.
  waitpid(process.pid, nullptr, WNOHANG);
  return true;
}

// In the child after fork: only async-signal-safe calls. Reports errno through `errors` and does not return.
[[noreturn]] void ExecChild(const std::vector<char*>& argv, int null_fd, int log_fd, int errors,
                            Lifetime lifetime, pid_t parent) {
  setsid();
  if (lifetime == Lifetime::kOfParent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);  // it ended before the line above
  }
  // The parent's handlers are gone with exec, an ignored signal would stay ignored.
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
  dup2(null_fd, STDIN_FILENO);
  dup2(log_fd, STDOUT_FILENO);
  dup2(log_fd, STDERR_FILENO);
  execv(argv[0], argv.data());
  const int error = errno;
  const ssize_t written = write(errors, &error, sizeof(error));
  static_cast<void>(written);
  _exit(127);
}

}  // namespace

std::optional<ProcessId> FindProcess(pid_t pid) {
  // "pid (name) state ppid ..."; the name may hold spaces and brackets. The start time is field 22, the 20th
  // after it.
  const std::string stat = FirstLine(absl::StrCat("/proc/", pid, "/stat"));
  const size_t name_end = stat.rfind(')');
  if (pid <= 0 || name_end == std::string::npos || name_end + 2 >= stat.size()) return std::nullopt;
  const std::vector<std::string> fields = absl::StrSplit(stat.substr(name_end + 2), ' ');
  if (fields.size() < 20 || fields[0] == "Z" || fields[0] == "X") return std::nullopt;
  return ProcessId{pid, absl::StrCat(fields[19], "@", FirstLine("/proc/sys/kernel/random/boot_id"))};
}

bool IsRunning(const ProcessId& process) { return FindProcess(process.pid) == process; }

absl::StatusOr<ProcessId> SpawnDaemon(const std::vector<std::string>& args, const std::string& log,
                                      Lifetime lifetime) {
  const UniqueFd log_fd(open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!log_fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", log));
  const UniqueFd null_fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  int ends[2];
  if (!null_fd.valid() || pipe2(ends, O_CLOEXEC) != 0)
    return absl::ErrnoToStatus(errno, "cannot start a process");
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  std::vector<char*> argv;
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);

  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, "cannot fork");
  if (pid == 0) ExecChild(argv, null_fd.get(), log_fd.get(), write_end.get(), lifetime, parent);
  write_end.Reset();
  // The pipe closes when exec succeeds.
  int error = 0;
  ssize_t got = 0;
  do {
    got = read(read_end.get(), &error, sizeof(error));
  } while (got < 0 && errno == EINTR);
  if (got == sizeof(error)) {
    waitpid(pid, nullptr, 0);
    return absl::ErrnoToStatus(error, absl::StrCat("cannot run ", args[0]));
  }
  const std::optional<ProcessId> process = FindProcess(pid);
  if (!process.has_value()) return absl::UnavailableError(absl::StrCat(args[0], " ended at once; see ", log));
  return *process;
}

absl::Status StopProcess(const ProcessId& process, double grace_seconds) {
  if (!IsRunning(process)) return absl::OkStatus();
  kill(process.pid, SIGTERM);
  // A stopped process takes the signal only when it goes on.
  kill(process.pid, SIGCONT);
  if (WaitUntilGone(process, grace_seconds)) return absl::OkStatus();
  kill(-process.pid, SIGKILL);
  kill(process.pid, SIGKILL);
  if (WaitUntilGone(process, kKillSeconds)) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("process ", process.pid, " cannot be killed"));
}

absl::Status WritePidFile(const std::string& path, const ProcessId& process) {
  return WriteLine(path, absl::StrCat(process.pid, " ", process.start));
}

std::optional<ProcessId> ReadPidFile(const std::string& path) {
  std::istringstream line(FirstLine(path));
  ProcessId process;
  if (!(line >> process.pid >> process.start)) return std::nullopt;
  return process;
}

absl::StatusOr<std::string> FindBinary(const std::string& name) {
  std::vector<std::string> folders;
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) folders.push_back(self.parent_path().string());
  const char* path = std::getenv("PATH");
  for (const std::string& folder :
       std::vector<std::string>(absl::StrSplit(path == nullptr ? "" : path, ':'))) {
    if (!folder.empty()) folders.push_back(folder);
  }
  for (const std::string& folder : folders) {
    const std::string candidate = absl::StrCat(folder, "/", name);
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return absl::NotFoundError(absl::StrCat(name, " is neither beside seqpar nor in PATH"));
}

}  // namespace seqpar
