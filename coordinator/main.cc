// seqpar-coordinator: flags, signals, and the server between them.
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <utility>

#include "common/base/clock.h"
#include "common/base/failpoints.h"
#include "common/base/file_limit.h"
#include "common/base/line_file.h"
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
constexpr int64_t kGiveBackUs = 30'000'000;

// The signal that ends the process. Until one comes, tells `manager` that the server is alive, while it is,
// and gives back to the system what was freed: a full queue's plans leave holes among the jobs that stay,
// which the allocator would keep for good (on 10,000 jobs two thirds of its memory), and which grow.
int WaitForSignal(const sigset_t& signals, const seqpar::CoordinatorServer& server,
                  const seqpar::ServiceManager& manager, const seqpar::Clock& clock) {
  const int64_t alive_us = manager.alive_period_us();
  const int64_t period_us = alive_us == 0 ? kGiveBackUs : std::min(alive_us, kGiveBackUs);
  const timespec period = {static_cast<time_t>(period_us / 1'000'000),
                           static_cast<long>(period_us % 1'000'000 * 1000)};
  int64_t given_us = clock.BootMicros();
  while (true) {
    const int received = sigtimedwait(&signals, nullptr, &period);
    if (received > 0) return received;
    if (alive_us != 0 && server.Alive().ok()) manager.Alive();
    if (clock.BootMicros() - given_us < kGiveBackUs) continue;
    malloc_trim(0);
    given_us = clock.BootMicros();
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
  seqpar::RaiseFileLimit();
  const seqpar::ServiceManager manager = seqpar::ServiceManager::FromEnvironment();
  config.still_us = manager.still_us();

  // Taken by WaitForSignal; blocked before any thread starts, so that none else gets them.
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
    if (file.empty() || address.empty()) continue;
    const absl::Status written = seqpar::WriteLine(file, address);
    if (written.ok()) continue;
    seqpar::LogError("cannot write the port file", {{"error", written.message()}});
    return 1;
  }
  seqpar::LogInfo("serving", {{"address", (*server)->address()},
                              {"metrics", (*server)->metrics_address()},
                              {"state_dir", config.state_dir},
                              {"version", seqpar::kVersion}});
  manager.Ready();
  const int received = WaitForSignal(signals, **server, manager, seqpar::Clock::System());
  manager.Stopping();
  const int exit_code = received == SIGUSR1 ? 1 : 0;
  seqpar::LogInfo("shutting down", {{"signal", received}});
  ShutdownWatchdog watchdog(exit_code);
  (*server)->Shutdown();
  server->reset();
  seqpar::LogInfo("stopped");
  return exit_code;
}
