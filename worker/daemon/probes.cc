#include "worker/daemon/probes.h"

#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/status.h"
#include "worker/daemon/executor_processes.h"
#include "worker/daemon/probe_process.h"

namespace seqpar {
namespace {

constexpr char kBlob[] = "blob ", kNoTransport[] = "-", kConnected[] = "connected", kError[] = "error ";

struct Probe {
  pid_t pid = -1;
  UniqueFd channel;    // both its stdin and its stdout
  std::string text;    // of the line that has not ended
  std::string blob;    // "-": no transport
  std::string result;  // the last line
  std::string error;   // why it fails
  bool connected = false, ended = false;

  Probe() = default;
  Probe(Probe&&) = default;
  ~Probe() {
    if (pid > 0) ProbeProcess::KillAndReapLater(pid);
  }
};

absl::Status Start(const ProbeCommand& command, Probe* probe) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::InternalError(absl::StrCat("socketpair: ", std::strerror(errno)));
  }
  probe->channel.Reset(ends[0]);
  const UniqueFd its_end(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, its_end.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, its_end.get(), STDOUT_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  std::vector<std::string> arguments = {"seqpar-worker", "calibrate"};
  arguments.insert(arguments.end(), command.arguments.begin(), command.arguments.end());
  const std::vector<std::string> environment = EnvironmentWith(command.environment);
  const int error = posix_spawn(&probe->pid, "/proc/self/exe", &actions, nullptr, Pointers(arguments).data(),
                                Pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  if (error == 0) return absl::OkStatus();
  probe->pid = -1;
  return absl::InternalError(absl::StrCat("cannot start a calibration: ", std::strerror(error)));
}

class Conversation {
 public:
  Conversation(std::vector<Probe>* probes, int64_t timeout_us)
      : probes_(probes), timeout_us_(timeout_us), begin_us_(Clock::System().BootMicros()) {}

  // Reads every probe to its end or that of the time, and gives them the table of addresses meanwhile.
  absl::Status Run(int stop_fd) {
    size_t open = probes_->size();
    while (open > 0) {
      std::vector<pollfd> fds = {{stop_fd, POLLIN, 0}};
      for (const Probe& probe : *probes_) fds.push_back({probe.channel.get(), POLLIN, 0});
      const int64_t now_us = Clock::System().BootMicros(), end_us = begin_us_ + timeout_us_;
      if (now_us >= end_us) return absl::OkStatus();
      // Whoever has not come to the table in half of the time is not waited for.
      const int64_t late_us = begin_us_ + timeout_us_ / 2;
      late_ = now_us >= late_us;
      AnswerBlobs();
      const int64_t left_us = (answered_ ? end_us : late_us) - now_us;
      if (poll(fds.data(), fds.size(), static_cast<int>(left_us / 1000 + 1)) < 0) continue;
      if (fds[0].revents != 0) return absl::CancelledError("stopped");
      for (size_t i = 0; i < probes_->size(); ++i) {
        if (fds[i + 1].revents == 0) continue;
        Probe& probe = (*probes_)[i];
        char buffer[4096];
        const ssize_t n = read(fds[i + 1].fd, buffer, sizeof(buffer));
        if (n > 0) Take(std::string(buffer, static_cast<size_t>(n)), &probe);
        if (n > 0 || (n < 0 && errno == EINTR)) continue;
        probe.channel.Reset();
        if (probe.blob.empty()) probe.blob = kNoTransport;
        probe.ended = true;
        --open;
      }
      AnswerBlobs();
    }
    return absl::OkStatus();
  }

  double start_seconds() const { return start_seconds_; }
  int64_t end_us() const { return begin_us_ + timeout_us_; }

 private:
  void Take(const std::string& bytes, Probe* probe) {
    probe->text += bytes;
    for (size_t end; (end = probe->text.find('\n')) != std::string::npos;) {
      const std::string line = probe->text.substr(0, end);
      probe->text.erase(0, end + 1);
      if (line.rfind(kBlob, 0) == 0) {
        probe->blob = line.substr(sizeof(kBlob) - 1);
      } else if (line == kConnected) {
        probe->connected = true;
        const bool all =
            std::all_of(probes_->begin(), probes_->end(), [](const Probe& p) { return p.connected; });
        if (all) start_seconds_ = static_cast<double>(Clock::System().BootMicros() - begin_us_) * 1e-6;
      } else if (line.rfind(kError, 0) == 0) {
        probe->error = line.substr(sizeof(kError) - 1);
      } else {
        probe->result = line;
      }
    }
  }

  void AnswerBlobs() {
    if (answered_) return;
    std::string table;
    bool alone = false;
    for (const Probe& probe : *probes_) {
      if (probe.blob.empty() && !late_) return;
      alone = alone || probe.blob.empty() || probe.blob == kNoTransport;
      absl::StrAppend(&table, probe.blob, "\n");
    }
    answered_ = true;
    if (alone) table = "alone\n";
    for (const Probe& probe : *probes_) {
      // A probe that is gone is seen by its end of the channel. Tables are small: they fit the socket.
      if (probe.channel.valid()) (void)send(probe.channel.get(), table.data(), table.size(), MSG_NOSIGNAL);
    }
  }

  std::vector<Probe>* const probes_;
  const int64_t timeout_us_, begin_us_;
  bool answered_ = false, late_ = false;
  double start_seconds_ = 0;
};

// Its exit status; false where it is still there at the end of the time: on a sick device the way out can
// hang too.
bool Reap(int64_t end_us, pid_t pid, int* status) {
  while (waitpid(pid, status, WNOHANG) == 0) {
    if (Clock::System().BootMicros() >= end_us) return false;
    usleep(1000);
  }
  return true;
}

absl::StatusOr<v1::NodeSpec> ResultOf(size_t device, int64_t timeout_us, int64_t end_us, Probe* probe) {
  int status = 0;
  if (!probe->ended || !Reap(end_us, probe->pid, &status)) {
    return absl::DeadlineExceededError(
        absl::StrCat("the calibration of device ", device, " did not end in ", timeout_us / 1'000'000, " s"));
  }
  probe->pid = -1;
  v1::NodeSpec measured;
  const bool parsed = google::protobuf::util::JsonStringToMessage(probe->result, &measured).ok();
  if (status == 0 && parsed && measured.devices_size() == 1) return measured;
  return absl::InternalError(
      probe->error.empty()
          ? absl::StrCat("the calibration process of device ", device, " ", DescribeExit(status))
          : absl::StrCat("the calibration of device ", device, " failed: ", probe->error));
}

}  // namespace

absl::StatusOr<ProbeResults> RunProbes(const std::vector<ProbeCommand>& commands, int64_t timeout_us,
                                       int stop_fd) {
  pollfd stop = {stop_fd, POLLIN, 0};
  if (poll(&stop, 1, 0) > 0) return absl::CancelledError("stopped");
  std::vector<Probe> probes(commands.size());
  Conversation conversation(&probes, timeout_us);
  for (size_t i = 0; i < commands.size(); ++i) SEQPAR_RETURN_IF_ERROR(Start(commands[i], &probes[i]));
  SEQPAR_RETURN_IF_ERROR(conversation.Run(stop_fd));
  ProbeResults results;
  results.start_seconds = conversation.start_seconds();
  for (size_t i = 0; i < probes.size(); ++i) {
    results.devices.push_back(ResultOf(i, timeout_us, conversation.end_us(), &probes[i]));
  }
  return results;
}

}  // namespace seqpar
