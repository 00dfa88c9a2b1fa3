// seqpar-coordinator: flags, signals, and the server between them.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <utility>

#include "common/base/failpoints.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/base/service_manager.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "common/rpc/grpc_log.h"
#include "coordinator/config.h"
#include "coordinator/server.h"
#include "coordinator/store/store.h"

namespace {

constexpr auto kShutdownTime = std::chrono::milliseconds(2500);

// Whole or not at all: scripts poll for it.
bool WritePortFile(const std::string& path, const std::string& address) {
  const std::string partial = path + ".partial";
  const std::string line = address + "\n";
  const seqpar::UniqueFd fd(open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  return fd.valid() && write(fd.get(), line.data(), line.size()) == static_cast<ssize_t>(line.size()) &&
         rename(partial.c_str(), path.c_str()) == 0;
}

// The signal that ends the process; until one comes, tells `manager` that the server is alive, while it is.
int WaitForSignal(const sigset_t& signals, const seqpar::CoordinatorServer& server,
                  const seqpar::ServiceManager& manager) {
  const int64_t period_us = manager.alive_period_us();
  while (true) {
    int received = 0;
    if (period_us == 0) {
      sigwait(&signals, &received);
      return received;
    }
    const timespec period = {static_cast<time_t>(period_us / 1'000'000),
                             static_cast<long>(period_us % 1'000'000 * 1000)};
    received = sigtimedwait(&signals, nullptr, &period);
    if (received > 0) return received;
    if (server.Alive().ok()) manager.Alive();
  }
}

// Ends the process where a shutdown takes too long: what was promised is on disk already.
class ShutdownWatchdog {
 public:
  explicit ShutdownWatchdog(int exit_code)
      : thread_([this, exit_code] {
          seqpar::MutexLock lock(mutex_);
          const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return done_; };
          if (done_cv_.wait_for(mutex_, kShutdownTime, done)) return;
          seqpar::LogWarning("shutdown took too long: leaving at once");
          _exit(exit_code);
        }) {}
  ~ShutdownWatchdog() {
    {
      seqpar::MutexLock lock(mutex_);
      done_ = true;
    }
    done_cv_.notify_one();
    thread_.join();
  }

 private:
  seqpar::Mutex mutex_;
  seqpar::ConditionVariable done_cv_;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// Each node and each client is a connection, which is a file; shells begin with 1,024.
void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int Restore(const seqpar::CoordinatorConfig& config) {
  const absl::Status restored = seqpar::Store::Restore(config.restore, config.state_dir);
  if (restored.ok()) {
    seqpar::LogInfo("restored", {{"backup", config.restore}, {"state_dir", config.state_dir}});
    return 0;
  }
  seqpar::LogError("cannot restore", {{"backup", config.restore}, {"error", restored.message()}});
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  seqpar::CoordinatorConfig config;
  const int parsed = seqpar::ParseCoordinatorFlags(argc, argv, &config);
  if (parsed >= 0) return parsed;
  seqpar::SetupLogging(config.log);
  seqpar::LogWhatGrpcSays(seqpar::LogLevel::kWarning);
  if (!config.test_failpoints.empty()) {
    const absl::Status enabled = seqpar::EnableFailpoints(config.test_failpoints, {});
    if (!enabled.ok()) {
      seqpar::LogError("cannot start", {{"error", enabled.message()}});
      return 1;
    }
  }
  if (!config.restore.empty()) return Restore(config);
  RaiseFileLimit();
  const seqpar::ServiceManager manager = seqpar::ServiceManager::FromEnvironment();
  config.still_us = manager.still_us();

  // Taken by sigwait below; blocked before any thread starts, so that none else gets them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD,
         SIG_IGN);  // it starts no processes; as a container's first one it is given orphans, which so end

  auto server = seqpar::CoordinatorServer::Create(config, &seqpar::Clock::System(), [](const absl::Status&) {
    kill(getpid(), SIGUSR1);  // the store is gone: leave, with an error
  });
  if (!server.ok()) {
    seqpar::LogError("cannot start", {{"error", server.status().message()}});
    return 1;
  }
  // The metrics' first: whoever has seen the other may read both.
  for (const auto& [file, address] : {std::make_pair(config.metrics_port_file, (*server)->metrics_address()),
                                      std::make_pair(config.port_file, (*server)->address())}) {
    if (file.empty() || address.empty() || WritePortFile(file, address)) continue;
    seqpar::LogError("cannot write the port file", {{"file", file}});
    return 1;
  }
  seqpar::LogInfo("serving", {{"address", (*server)->address()},
                              {"metrics", (*server)->metrics_address()},
                              {"state_dir", config.state_dir},
                              {"version", seqpar::kVersion}});
  manager.Ready();
  const int received = WaitForSignal(signals, **server, manager);
  manager.Stopping();
  const int exit_code = received == SIGUSR1 ? 1 : 0;
  seqpar::LogInfo("shutting down", {{"signal", received}});
  ShutdownWatchdog watchdog(exit_code);
  (*server)->Shutdown();
  server->reset();
  seqpar::LogInfo("stopped");
  return exit_code;
}
