#include "client/cli/coordinator_process.h"

#include <stdlib.h>

#include <cerrno>
#include <chrono>
#include <deque>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

namespace fs = std::filesystem;

constexpr double kAddressSeconds = 20;
constexpr double kPollSeconds = 0.005;
constexpr size_t kLogTailLines = 20;
constexpr double kNoGrace = 0;  // nothing in a private coordinator is worth keeping

}  // namespace

std::string ReadAddress(const std::string& port_file) {
  std::ifstream file(port_file);
  std::string text;
  file >> text;
  if (text.empty() || absl::StrContains(text, ":")) return text;
  return absl::StrCat("127.0.0.1:", text);
}

std::string LogTail(const std::string& log) {
  std::ifstream file(log);
  std::deque<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back("  " + line);
    if (lines.size() > kLogTailLines) lines.pop_front();
  }
  return absl::StrJoin(lines, "\n");
}

absl::StatusOr<std::string> WaitForAddress(const ProcessId& process, const std::string& port_file,
                                           const std::string& log, const std::function<bool()>& interrupted) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(kAddressSeconds);
  while (true) {
    std::string address = ReadAddress(port_file);
    if (!address.empty()) return address;
    if (interrupted && interrupted()) return absl::CancelledError("interrupted");
    const bool died = !IsRunning(process);
    if (died || std::chrono::steady_clock::now() > end) {
      return absl::UnavailableError(
          absl::StrCat(died ? "the coordinator ended" : "the coordinator does not listen",
                       "; the end of its log:\n", LogTail(log)));
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(kPollSeconds));
  }
}

absl::StatusOr<std::unique_ptr<PrivateCoordinator>> PrivateCoordinator::Start(
    const std::function<bool()>& interrupted) {
  SEQPAR_ASSIGN_OR_RETURN(const std::string binary, FindBinary("seqpar-coordinator"));
  std::error_code error;
  std::string folder = (fs::temp_directory_path(error) / "seqpar-plan-XXXXXX").string();
  const std::string here = fs::current_path(error).string();
  if (error || mkdtemp(folder.data()) == nullptr) {
    return absl::UnavailableError(absl::StrCat("cannot create a temporary folder: ", folder));
  }
  // From here on the folder goes with the object, also where a step below fails.
  std::unique_ptr<PrivateCoordinator> coordinator(new PrivateCoordinator(folder));
  const std::string port_file = folder + "/address", log = folder + "/log";
  const absl::StatusOr<ProcessId> process = SpawnDaemon(
      {binary, "--listen", "127.0.0.1:0", "--port-file", port_file, "--state-dir", folder + "/state",
       "--metrics-listen", "off", "--data-root", absl::StrCat("here=", here), "--data-root", "files=/"},
      log, Lifetime::kOfParent);
  if (!process.ok()) {
    // The log goes with the folder: its end is told here.
    return absl::Status(process.status().code(),
                        absl::StrCat(std::string(process.status().message()), "\n", LogTail(log)));
  }
  coordinator->process_ = *process;
  SEQPAR_ASSIGN_OR_RETURN(coordinator->address_,
                          WaitForAddress(coordinator->process_, port_file, log, interrupted));
  return coordinator;
}

PrivateCoordinator::~PrivateCoordinator() {
  if (process_.pid > 0) StopProcess(process_, kNoGrace).IgnoreError();
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

}  // namespace seqpar
