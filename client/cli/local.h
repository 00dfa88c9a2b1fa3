// A coordinator and one worker on this machine, their state under one folder.
#ifndef SEQPAR_CLIENT_CLI_LOCAL_H_
#define SEQPAR_CLIENT_CLI_LOCAL_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/config.h"
#include "client/cli/process.h"
#include "common/base/fd.h"

namespace seqpar {

// The folder: lock, address, {coordinator,worker}.{pid,log,metrics}, and a folder of its own for each
// process. Commands that change it hold its lock. Not thread-safe.
class LocalCluster {
 public:
  // Creates the folder where it is missing and waits for its lock.
  static absl::StatusOr<LocalCluster> Open(const std::string& state_dir);

  struct Member {
    std::string name;                  // "coordinator", "worker"
    std::optional<ProcessId> process;  // none: not running
    std::string log;
    std::string metrics;  // host:port of its metrics; "": not running, or it serves none
  };
  Member coordinator() const { return Find("coordinator"); }
  Member worker() const { return Find("worker"); }
  // host:port of the coordinator; "" where none has written it.
  std::string address() const;

  // Starts both; returns before they are ready. On failure nothing is left running.
  absl::Status Start(const CliConfig& config);
  // Stops the worker, then the coordinator, and forgets their pids. OK where nothing ran.
  absl::Status Stop();

 private:
  LocalCluster(std::string folder, UniqueFd lock);
  Member Find(const std::string& name) const;
  std::string Path(const std::string& name) const;
  absl::Status StartMember(const std::string& name, std::vector<std::string> args);
  absl::Status StopMember(const std::string& name);

  std::string folder_;  // absolute
  UniqueFd lock_;
};

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_LOCAL_H_
