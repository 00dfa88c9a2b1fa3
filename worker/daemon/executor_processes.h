// Executors as child processes of the daemon.
#ifndef SEQPAR_WORKER_DAEMON_EXECUTOR_PROCESSES_H_
#define SEQPAR_WORKER_DAEMON_EXECUTOR_PROCESSES_H_

#include <poll.h>
#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/fd.h"
#include "common/job/job.h"
#include "worker/daemon/node_agent.h"
#include "worker/executor/channel.h"

namespace seqpar {

// One process a rank: /proc/self/exe with `arguments`, its end of the channel as descriptor
// kExecutorChannelFd, stdin from /dev/null, stdout and stderr into a pipe that the daemon reads. Everything
// happens in the thread that polls; it must be the one that starts processes and live as long as they may
// (executors die with their parent thread).
class ExecutorProcesses : public ExecutorHost {
 public:
  static constexpr int kExecutorChannelFd = 3;

  struct Observer {
    std::function<void(const RankKey&, const v1::FromExecutor&)> on_message;
    std::function<void(const RankKey&, const char*, size_t)> on_output;
    // After everything that it sent and printed.
    std::function<void(const RankKey&, const ExecutorExit&)> on_exit;
  };

  // `environment`: of one rank's process, NAME=VALUE above what is inherited.
  ExecutorProcesses(std::vector<std::string> arguments,
                    std::function<std::vector<std::string>(const RankKey&)> environment);
  // Kills and reaps what is left.
  ~ExecutorProcesses() override;
  void SetObserver(Observer observer) { observer_ = std::move(observer); }

  absl::Status Start(const RankKey& key, const v1::Run& run) override;
  void Send(const RankKey& key, const v1::ToExecutor& message) override;
  void Kill(const RankKey& key) override;

  // Appends what to poll for; then, with the results of poll(2) from `fds[first]` on, reads, writes and
  // reaps.
  void AddPolls(std::vector<pollfd>* fds) const;
  void HandlePolls(const std::vector<pollfd>& fds, size_t first);
  // Ends the zombies of processes that this one did not start but inherited: the orphans of a container whose
  // first process it is, or of executors.
  void ReapOrphans() const;

 private:
  struct Child {
    RankKey key;
    pid_t pid = -1;
    UniqueFd pidfd, channel, output;
    std::string to_send;                                  // frames that the socket has not taken yet
    std::string line;                                     // printed, without its end yet
    const char* phase = PhaseName(JobPhase::kBootstrap);  // as it last said
    FrameDecoder decoder;
  };

  absl::Status Spawn(Child* child);
  void Flush(Child* child);
  // Both read as much as an executor can leave behind when it ends, and close their descriptor at its end.
  void ReadChannel(Child* child);
  void ReadOutput(Child* child);
  // What an executor prints goes into our log a line a record, with whose it is: its own records at their
  // level, what libraries print as information.
  void LogLines(Child* child, const char* data, size_t bytes);
  static void LogLine(Child* child);
  void Reap(Child* child);

  const std::vector<std::string> arguments_;
  const std::function<std::vector<std::string>(const RankKey&)> environment_;
  Observer observer_;
  std::map<RankKey, std::shared_ptr<Child>> children_;
};

// "exited with code 1", "was killed by signal 9 (Killed)": from waitpid's status.
std::string DescribeExit(int wait_status);

// This process's environment with `settings` (NAME=VALUE) in place of variables of the same names, without
// what no child may inherit (NCCL_COMM_ID and its kin).
std::vector<std::string> EnvironmentWith(const std::vector<std::string>& settings);

// As exec takes them: null at the end. Valid as long as `texts`.
std::vector<char*> Pointers(const std::vector<std::string>& texts);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_EXECUTOR_PROCESSES_H_
