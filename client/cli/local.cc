#include "client/cli/local.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/coordinator_process.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

namespace fs = std::filesystem;

constexpr double kGraceSeconds = 15;

// gRPC lets several servers share a port, so a second coordinator would start and steal half of the calls.
absl::Status CheckPortIsFree(int port) {
  if (port == 0) return absl::OkStatus();
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  struct sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd.get(), reinterpret_cast<const struct sockaddr*>(&address), sizeof(address)) == 0)
    return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kInvalidArgument,
                   absl::StrCat("port ", port, " of 127.0.0.1 is taken; --port 0 takes any free one"));
}

}  // namespace

LocalCluster::LocalCluster(std::string folder, UniqueFd lock)
    : folder_(std::move(folder)), lock_(std::move(lock)) {}

absl::StatusOr<LocalCluster> LocalCluster::Open(const std::string& state_dir) {
  std::error_code error;
  const std::string folder = fs::absolute(state_dir, error).lexically_normal().string();
  fs::create_directories(folder, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat("cannot create ", folder, ": ", error.message()));
  UniqueFd lock(open(absl::StrCat(folder, "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!lock.valid() || flock(lock.get(), LOCK_EX) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot lock ", folder));
  }
  return LocalCluster(folder, std::move(lock));
}

std::string LocalCluster::Path(const std::string& name) const { return absl::StrCat(folder_, "/", name); }

LocalCluster::Member LocalCluster::Find(const std::string& name) const {
  Member member{name, ReadPidFile(Path(name + ".pid")), Path(name + ".log"), ""};
  if (member.process.has_value() && !IsRunning(*member.process)) member.process.reset();
  if (member.process.has_value()) member.metrics = ReadAddress(Path(name + ".metrics"));
  return member;
}

std::string LocalCluster::address() const { return ReadAddress(Path("address")); }

absl::Status LocalCluster::StartMember(const std::string& name, std::vector<std::string> args) {
  SEQPAR_ASSIGN_OR_RETURN(std::string binary, FindBinary("seqpar-" + name));
  args.insert(args.begin(), std::move(binary));
  // Any port: several local clusters share a machine.
  args.insert(args.end(),
              {"--metrics-listen", "127.0.0.1:0", "--metrics-port-file", Path(name + ".metrics")});
  SEQPAR_ASSIGN_OR_RETURN(const ProcessId process, SpawnDaemon(args, Path(name + ".log")));
  absl::Status written = WritePidFile(Path(name + ".pid"), process);
  if (!written.ok()) StopProcess(process, kGraceSeconds).IgnoreError();
  return written;
}

absl::Status LocalCluster::StopMember(const std::string& name) {
  const Member member = Find(name);
  if (member.process.has_value()) SEQPAR_RETURN_IF_ERROR(StopProcess(*member.process, kGraceSeconds));
  std::error_code ignored;
  fs::remove(Path(name + ".pid"), ignored);
  fs::remove(Path(name + ".metrics"), ignored);
  return absl::OkStatus();
}

absl::Status LocalCluster::Start(const CliConfig& config) {
  SEQPAR_RETURN_IF_ERROR(Stop());
  SEQPAR_RETURN_IF_ERROR(CheckPortIsFree(config.port));
  std::error_code error;
  const std::string data = fs::canonical(config.data_dir, error).string();
  if (error)
    return absl::InvalidArgumentError(absl::StrCat("--data ", config.data_dir, ": ", error.message()));
  fs::create_directories(Path("coordinator"), error);
  fs::create_directories(Path("worker"), error);
  fs::remove(Path("address"), error);

  const std::string root = absl::StrCat("data=", data);
  SEQPAR_RETURN_IF_ERROR(
      StartMember("coordinator", {"--listen", absl::StrCat("127.0.0.1:", config.port), "--port-file",
                                  Path("address"), "--state-dir", Path("coordinator"), "--data-root", root}));
  // The worker needs to know the port.
  const Member started_first = coordinator();
  absl::Status listens =
      WaitForAddress(started_first.process.value_or(ProcessId()), Path("address"), started_first.log, nullptr)
          .status();
  if (!listens.ok()) {
    Stop().IgnoreError();
    return listens;
  }
  std::vector<std::string> args = {"--coordinator",   address(),
                                   "--node-name",     "local",
                                   "--cpu-slots",     absl::StrCat(config.slots),
                                   "--data-root",     root,
                                   "--state-dir",     Path("worker"),
                                   "--drain-seconds", "0"};
  if (config.threads_per_slot > 0) {
    args.insert(args.end(), {"--threads-per-slot", absl::StrCat(config.threads_per_slot)});
  }
  if (!config.memory_per_slot.empty()) args.insert(args.end(), {"--memory-per-slot", config.memory_per_slot});
  absl::Status started = StartMember("worker", std::move(args));
  if (!started.ok()) Stop().IgnoreError();
  return started;
}

absl::Status LocalCluster::Stop() {
  const absl::Status worker = StopMember("worker");
  const absl::Status coordinator = StopMember("coordinator");
  std::error_code ignored;
  fs::remove(Path("address"), ignored);
  return worker.ok() ? coordinator : worker;
}

}  // namespace seqpar
