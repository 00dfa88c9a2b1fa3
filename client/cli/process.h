// Processes that a command starts: most outlive it and are known again later by pid and start time.
#ifndef SEQPAR_CLIENT_CLI_PROCESS_H_
#define SEQPAR_CLIENT_CLI_PROCESS_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace seqpar {

// A pid alone may be somebody else's by now; with the kernel's start time and boot it is this process or
// none.
struct ProcessId {
  pid_t pid = 0;
  std::string start;  // clock ticks since boot, and the boot's id
  friend bool operator==(const ProcessId&, const ProcessId&) = default;
};

// The process that has this pid now; none where there is none or it is a zombie.
std::optional<ProcessId> FindProcess(pid_t pid);
bool IsRunning(const ProcessId& process);

// kOwn: the process outlives the command. kOfParent: the kernel kills it when the thread that started it
// ends.
enum class Lifetime { kOwn, kOfParent };

// Starts args[0] (a path) in a session of its own, without a terminal, standard output and error appended to
// `log`. Errors of exec itself are returned, naming the path.
absl::StatusOr<ProcessId> SpawnDaemon(const std::vector<std::string>& args, const std::string& log,
                                      Lifetime lifetime = Lifetime::kOwn);

// SIGTERM, and after `grace_seconds` SIGKILL to its whole process group. OK when it is gone, also when it was
// before; never signals a process that only has the pid. INTERNAL where it cannot be killed.
absl::Status StopProcess(const ProcessId& process, double grace_seconds);

// One line in a file. Read: none where there is no such file or it holds something else.
absl::Status WritePidFile(const std::string& path, const ProcessId& process);
std::optional<ProcessId> ReadPidFile(const std::string& path);

// `name` beside this binary, else in PATH. NOT_FOUND where it is in neither.
absl::StatusOr<std::string> FindBinary(const std::string& name);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_PROCESS_H_
