// A child process that looks at something and says what it saw: `seqpar-worker MODE ...`.
#ifndef SEQPAR_WORKER_DAEMON_PROBE_PROCESS_H_
#define SEQPAR_WORKER_DAEMON_PROBE_PROCESS_H_

#include <poll.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/fd.h"

namespace seqpar {

// One thread. Its destructor kills the process and never waits for one that a sick device keeps from dying:
// that is reaped when it does.
class ProbeProcess {
 public:
  // /proc/self/exe with `arguments`, its outputs into pipes. `timeout_us` from now; errors begin with `what`.
  static absl::StatusOr<std::unique_ptr<ProbeProcess>> Start(std::string what,
                                                             const std::vector<std::string>& arguments,
                                                             const std::vector<std::string>& environment,
                                                             int64_t timeout_us);
  ~ProbeProcess();

  // Appends what to poll for.
  void AddPolls(std::vector<pollfd>* fds) const;
  int64_t deadline_us() const { return deadline_us_; }
  // Reads what is there without waiting. Its standard output once it has ended well; UNAVAILABLE with the
  // last line that it wrote to the other where it ended otherwise; DEADLINE_EXCEEDED once its time is over;
  // none while it runs.
  std::optional<absl::StatusOr<std::string>> Poll();
  // The same, waiting. CANCELLED as soon as `stop_fd` becomes readable.
  absl::StatusOr<std::string> Wait(int stop_fd);
  // What it wrote to standard error so far.
  const std::string& said() const { return error_text_; }

  // Kills a child and does not wait for it: one that a sick device keeps from dying is reaped when it does.
  static void KillAndReapLater(pid_t pid);
  // Whether a probe that has not been destroyed waits for this process.
  static bool Owns(pid_t pid);
  // Processes that were killed more than a second ago and have not died yet; reaps those that have.
  static int Undead();

 private:
  ProbeProcess(std::string what, int64_t deadline_us) : what_(std::move(what)), deadline_us_(deadline_us) {}
  absl::StatusOr<std::string> End();

  const std::string what_;
  const int64_t deadline_us_;
  pid_t pid_ = -1;
  UniqueFd pidfd_, out_, error_;
  std::string out_text_, error_text_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_PROBE_PROCESS_H_
