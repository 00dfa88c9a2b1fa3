#include "worker/daemon/gpus.h"

#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/status.h"
#include "worker/daemon/executor_processes.h"

namespace seqpar {
namespace {

// A context and a second of measuring a GPU; eight of them, with a cold library.
constexpr int64_t kTimeoutUs = 90'000'000;

absl::Status SystemError(const char* what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

// A child process, killed where it is not waited for.
class Child {
 public:
  ~Child() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  absl::Status Start() {
    int out[2], err[2];
    if (pipe2(out, O_CLOEXEC) != 0) return SystemError("pipe");
    out_.Reset(out[0]);
    const UniqueFd its_out(out[1]);
    if (pipe2(err, O_CLOEXEC) != 0) return SystemError("pipe");
    err_.Reset(err[0]);
    const UniqueFd its_err(err[1]);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, its_out.get(), STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, its_err.get(), STDERR_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
    const std::vector<std::string> arguments = {"seqpar-worker", "probe-gpus"};
    const std::vector<std::string> environment = EnvironmentWith({});
    const int error = posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, Pointers(arguments).data(),
                                  Pointers(environment).data());
    posix_spawn_file_actions_destroy(&actions);
    if (error == 0) return absl::OkStatus();
    pid_ = -1;
    errno = error;
    return SystemError("cannot start the process that looks at GPUs");
  }

  // Until both of its outputs end.
  absl::Status Read(int stop_fd, std::string* out, std::string* err) {
    const int64_t end_us = Clock::System().BootMicros() + kTimeoutUs;
    while (out_.valid() || err_.valid()) {
      const int64_t left_us = end_us - Clock::System().BootMicros();
      if (left_us <= 0) return absl::DeadlineExceededError("looking at the GPUs did not end in 90 s");
      pollfd fds[] = {{stop_fd, POLLIN, 0}, {out_.get(), POLLIN, 0}, {err_.get(), POLLIN, 0}};
      if (poll(fds, 3, static_cast<int>(left_us / 1000 + 1)) < 0) continue;
      if (fds[0].revents != 0) return absl::CancelledError("stopped");
      if (fds[1].revents != 0) ReadSome(&out_, out);
      if (fds[2].revents != 0) ReadSome(&err_, err);
    }
    return absl::OkStatus();
  }

  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
  }

 private:
  static void ReadSome(UniqueFd* fd, std::string* to) {
    char buffer[4096];
    const ssize_t n = read(fd->get(), buffer, sizeof(buffer));
    if (n > 0) to->append(buffer, static_cast<size_t>(n));
    if (n == 0 || (n < 0 && errno != EINTR)) fd->Reset();
  }

  pid_t pid_ = -1;
  UniqueFd out_, err_;
};

}  // namespace

absl::StatusOr<v1::NodeSpec> FindGpus(int stop_fd) {
  Child child;
  std::string out, err;
  SEQPAR_RETURN_IF_ERROR(child.Start());
  SEQPAR_RETURN_IF_ERROR(child.Read(stop_fd, &out, &err));
  const int status = child.Wait();
  v1::NodeSpec node;
  if (status == 0 && google::protobuf::util::JsonStringToMessage(out, &node).ok() &&
      node.devices_size() > 0) {
    return node;
  }
  const std::string said(absl::StripAsciiWhitespace(err));
  return absl::UnavailableError(
      said.empty() ? absl::StrCat("the process that looks at GPUs ", DescribeExit(status)) : said);
}

}  // namespace seqpar
