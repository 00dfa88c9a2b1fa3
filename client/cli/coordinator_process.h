// What is known of a coordinator that a command started: where it listens, and what it said last.
#ifndef SEQPAR_CLIENT_CLI_COORDINATOR_PROCESS_H_
#define SEQPAR_CLIENT_CLI_COORDINATOR_PROCESS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/process.h"

namespace seqpar {

// host:port from a file that `seqpar-coordinator --port-file` wrote; "" while there is none.
std::string ReadAddress(const std::string& port_file);

// The last lines of a log, indented.
std::string LogTail(const std::string& log);

// Until the address is there. UNAVAILABLE with the end of the log where the process ends before or takes too
// long, CANCELLED where `interrupted` (which may be null) says so.
absl::StatusOr<std::string> WaitForAddress(const ProcessId& process, const std::string& port_file,
                                           const std::string& log, const std::function<bool()>& interrupted);

// A coordinator of this command alone, on a free port of the loopback, with its state in a temporary folder:
// it answers questions that need no nodes. It ends, and its folder goes, with this object; if the command is
// killed, it is killed too. Relative paths of jobs are under the current folder, absolute ones may lie
// anywhere.
class PrivateCoordinator {
 public:
  static absl::StatusOr<std::unique_ptr<PrivateCoordinator>> Start(const std::function<bool()>& interrupted);
  ~PrivateCoordinator();
  PrivateCoordinator(const PrivateCoordinator&) = delete;
  PrivateCoordinator& operator=(const PrivateCoordinator&) = delete;

  const std::string& address() const { return address_; }

 private:
  explicit PrivateCoordinator(std::string folder) : folder_(std::move(folder)) {}

  const std::string folder_;
  ProcessId process_;
  std::string address_;
};

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_COORDINATOR_PROCESS_H_
