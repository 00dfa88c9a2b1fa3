#include "worker/daemon/daemon.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <random>

#include "absl/strings/str_cat.h"
#include "common/base/data_roots.h"
#include "common/base/failpoints.h"
#include "common/base/file_limit.h"
#include "common/base/line_file.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/base/service_manager.h"
#include "common/base/status.h"
#include "common/base/tls.h"
#include "common/base/version.h"
#include "common/job/proto.h"
#include "common/rpc/grpc_log.h"
#include "worker/daemon/calibration.h"
#include "worker/daemon/executor_processes.h"
#include "worker/daemon/faulty_ports.h"
#include "worker/daemon/fleet_client.h"
#include "worker/daemon/gpu_watch.h"
#include "worker/daemon/gpus.h"
#include "worker/daemon/node_agent.h"
#include "worker/daemon/node_lock.h"
#include "worker/daemon/pulse.h"
#include "worker/daemon/transport_settings.h"
#include "worker/metrics/metrics.h"

namespace seqpar {
namespace {

constexpr int64_t kStopGraceUs = 2'000'000;  // for ranks that are stopped
constexpr int kPredecessorMs = 5000;         // for a daemon of this node that is on its way out

// What the stream's threads leave for the loop; readable as a descriptor.
class FleetInbox {
 public:
  FleetInbox() : wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  int fd() const { return wake_.get(); }

  void Put(FleetEvent event) {
    MutexLock lock(mutex_);
    events_.push_back(std::move(event));
    const uint64_t one = 1;
    if (write(wake_.get(), &one, sizeof(one)) < 0)
      return;  // only a full counter fails: it is readable anyway
  }

  std::deque<FleetEvent> TakeAll() {
    uint64_t count = 0;
    MutexLock lock(mutex_);
    if (read(wake_.get(), &count, sizeof(count)) < 0) return {};  // nothing came
    return std::exchange(events_, {});
  }

 private:
  const UniqueFd wake_;
  Mutex mutex_;
  std::deque<FleetEvent> events_ ABSL_GUARDED_BY(mutex_);
};

// The agent's messages go to the stream that it knows of, never to one that was opened meanwhile.
class StreamSender : public FleetSender {
 public:
  explicit StreamSender(FleetClient* client) : client_(client) {}
  void SetStream(int64_t stream) { stream_ = stream; }
  void Send(const v1::WorkerMessage& message) override { client_->Send(stream_, message); }
  void Break(const absl::Status& why) override {
    LogWarning("giving up the stream to the coordinator", {{"error", why.message()}});
    client_->Break(stream_, why);
  }

 private:
  FleetClient* const client_;
  int64_t stream_ = 0;
};

// How many stop signals came since the last look.
uint64_t TakeSignals(int signals) {
  uint64_t count = 0;
  return read(signals, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

class Daemon {
 public:
  Daemon(const WorkerConfig& config, const FoundDevices& found, NodeIdentity identity, int signals,
         const ServiceManager* manager, Pulse* pulse, AgentObserver* observer)
      : manager_(manager),
        pulse_(pulse),
        signals_(signals),
        drain_us_(int64_t{config.drain_seconds} * 1'000'000),
        gpus_(found, config),
        processes_(Arguments(config),
                   [config](const RankKey& key) {
                     return TransportSettings(config, absl::StrCat("rank-", key.rank));
                   }),
        client_(config.coordinator, config.tls, [this](FleetEvent event) { inbox_.Put(std::move(event)); }),
        sender_(&client_),
        ports_(&processes_, &sender_),
        agent_(std::move(identity), &Clock::System(), ports_.host(), ports_.fleet(), &gpus_, observer) {
    processes_.SetObserver({
        [this](const RankKey& key, const v1::FromExecutor& message) {
          agent_.OnExecutorMessage(key, message);
        },
        [this](const RankKey& key, const char* data, size_t bytes) {
          agent_.OnExecutorOutput(key, data, bytes);
        },
        [this](const RankKey& key, const ExecutorExit& exit) {
          PassFailpoint("daemon.executor.exit", {key.job, key.attempt, key.rank});
          agent_.OnExecutorExit(key, exit);
        },
    });
  }

  // Until a signal has come and nothing runs any more. The first lets ranks end for as long as the drain
  // lasts, the second stops them, the third leaves at once.
  void Run() {
    while (true) {
      const int64_t gpus_us = gpus_.Tick();
      if (gpus_.TakeChanged()) agent_.OnDevicesChanged();
      int64_t wake_us = std::min({gpus_us, agent_.Tick(), pulse_->Beat()});
      if (state_ != State::kServing) {
        if (agent_.Settled()) return;
        if (Clock::System().BootMicros() >= until_us_) {
          if (state_ == State::kStopping) return;
          Advance(1);
          continue;
        }
        wake_us = std::min(wake_us, until_us_);
      }
      std::vector<pollfd> fds = {{signals_, POLLIN, 0}, {inbox_.fd(), POLLIN, 0}};
      processes_.AddPolls(&fds);
      gpus_.AddPolls(&fds);
      const int64_t wait_us = std::max<int64_t>(0, wake_us - Clock::System().BootMicros());
      if (poll(fds.data(), fds.size(), static_cast<int>((wait_us + 999) / 1000)) < 0) continue;  // EINTR
      if (fds[0].revents != 0) {
        const uint64_t signals = TakeSignals(signals_);
        if (state_ == State::kStopping && signals > 0) return;
        Advance(signals);
      }
      // Executors first: what they reported is known before a command about them is obeyed.
      processes_.HandlePolls(fds, 2);
      processes_.ReapOrphans();
      for (FleetEvent& event : inbox_.TakeAll()) Handle(event);
    }
  }

 private:
  enum class State { kServing, kDraining, kStopping };

  // `steps` states on; no further than kStopping.
  void Advance(uint64_t steps) {
    if (steps == 0) return;
    const bool drains = state_ == State::kServing && steps == 1 && drain_us_ > 0;
    state_ = drains ? State::kDraining : State::kStopping;
    until_us_ = Clock::System().BootMicros() + (drains ? drain_us_ : kStopGraceUs);
    manager_->Stopping();
    if (drains) {
      PassFailpoint("daemon.drain");
      LogInfo("draining: running ranks may end, none begins", {{"seconds", drain_us_ / 1'000'000}});
      agent_.BeginDrain();
    } else {
      LogInfo("stopping");
      agent_.BeginShutdown();
    }
  }

  static std::vector<std::string> Arguments(const WorkerConfig& config) {
    std::vector<std::string> arguments = {"seqpar-worker", "executor", "--channel-fd",
                                          absl::StrCat(ExecutorProcesses::kExecutorChannelFd)};
    for (const ExecutorHold& hold : config.holds) {
      arguments.insert(arguments.end(), {"--test-hold", absl::StrCat(hold.phase, ":", hold.file)});
    }
    if (!config.test_failpoints.empty()) {
      arguments.insert(arguments.end(), {"--test-failpoints", config.test_failpoints});
    }
    return arguments;
  }

  void Handle(FleetEvent& event) {
    switch (event.kind) {
      case FleetEvent::Kind::kConnected:
        sender_.SetStream(event.stream);
        return agent_.OnConnected();
      case FleetEvent::Kind::kMessage:
        last_broken_ = absl::StatusCode::kOk;
        if (ports_.Loses(event.stream, event.message)) return;
        return agent_.OnMessage(event.message);
      case FleetEvent::Kind::kBroken:
        LogBroken(event.error);
        return agent_.OnDisconnected();
    }
  }

  // An absent coordinator is worth a line when it goes, not at every attempt.
  void LogBroken(const absl::Status& error) {
    if (error.code() != last_broken_) {
      LogWarning("not attached to the coordinator", {{"error", error.message()}});
    }
    last_broken_ = error.code();
  }

  const ServiceManager* const manager_;
  Pulse* const pulse_;
  const int signals_;  // an eventfd that counts stop signals
  const int64_t drain_us_;
  State state_ = State::kServing;
  int64_t until_us_ = 0;                                  // of a state that ends by itself: BootMicros
  absl::StatusCode last_broken_ = absl::StatusCode::kOk;  // why it is not attached; OK: it is
  FleetInbox inbox_;
  GpuWatch gpus_;
  ExecutorProcesses processes_;
  FleetClient client_;
  StreamSender sender_;
  FaultyPorts ports_;
  NodeAgent agent_;
};

int stop_fd = -1;  // of the signal handler

void OnStopSignal(int) {
  const int before = errno;
  const uint64_t one = 1;
  (void)!write(stop_fd, &one, sizeof(one));  // only a full counter fails: it is readable anyway
  errno = before;
}

// A descriptor that counts SIGTERMs and SIGINTs: readable from the first on. By a handler, not by blocking
// the signals: a library may have started threads before main, and the signal would go to them.
absl::StatusOr<int> CatchStopSignals() {
  stop_fd =
      eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);  // to the end of the process: a signal may come until then
  if (stop_fd < 0) return absl::InternalError(absl::StrCat("eventfd: ", std::strerror(errno)));
  struct sigaction action = {};
  action.sa_handler = OnStopSignal;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGTERM, SIGINT}) {
    if (sigaction(signal, &action, nullptr) != 0) return absl::InternalError("cannot catch signals");
  }
  signal(SIGPIPE, SIG_IGN);
  return stop_fd;
}

// The slots of this node, alike.
v1::NodeSpec SlotsOf(const WorkerConfig& config, const MeasuredSlots& measured) {
  v1::NodeSpec node;
  for (const DeviceRates& rates : measured.slots) {
    DeviceSpec device;
    device.kind = "cpu";
    device.name = measured.processor;
    device.memory_bytes = config.memory_per_slot;
    device.threads = config.threads_per_slot;
    device.rates = rates;
    *node.add_devices() = DeviceToProto(device);
  }
  *node.mutable_local() = LinkToProto(measured.local);
  node.set_cores(measured.cores);
  node.set_start_seconds(measured.start_seconds);
  return node;
}

// What ranks run on here: measured slots, or GPUs. CANCELLED where the daemon was told to stop meanwhile.
absl::StatusOr<FoundDevices> FindDevices(const WorkerConfig& config, int stop_fd) {
  if (config.devices != "cpu") {
    absl::StatusOr<FoundDevices> gpus = FindGpus(config, stop_fd);
    if (gpus.ok() || absl::IsCancelled(gpus.status())) return gpus;
    if (config.devices == "cuda") return Annotate(gpus.status(), "--devices=cuda");
    LogInfo("no GPUs: CPU slots instead", {{"why", gpus.status().message()}});
  }
  SEQPAR_ASSIGN_OR_RETURN(const MeasuredSlots measured, Calibrate(config, stop_fd));
  return FoundDevices{SlotsOf(config, measured), {}};
}

NodeIdentity Identify(const WorkerConfig& config, const DataRoots& roots, const v1::NodeSpec& node) {
  NodeIdentity identity;
  v1::Hello& hello = identity.hello;
  hello.set_node(config.node_name);
  std::random_device random;
  hello.set_incarnation(static_cast<int64_t>((uint64_t{random()} << 31 | random()) & INT64_MAX));
  hello.set_version(kVersion);
  for (const auto& [key, value] : config.labels) (*hello.mutable_labels())[key] = value;
  *hello.mutable_devices() = node.devices();
  *hello.mutable_local() = node.local();
  hello.set_cores(node.cores());
  hello.set_start_seconds(node.start_seconds());
  hello.set_link_key(LinkKey(config));
  for (const DataRoots::Root& root : roots.roots()) identity.data_roots.emplace_back(root.name, root.given);
  return identity;
}

absl::Status ServeMetrics(const WorkerConfig& config, const Pulse* pulse, WorkerMetrics* metrics) {
  if (config.metrics_listen == kMetricsOff) return absl::OkStatus();
  absl::Status served = metrics->Serve(config.metrics_listen, [pulse] { return pulse->Alive(); });
  if (!served.ok() && config.metrics_required) return served;
  if (!served.ok()) LogWarning("no metrics are served", {{"error", served.message()}});
  if (!served.ok() || config.metrics_port_file.empty()) return absl::OkStatus();
  return WriteLine(config.metrics_port_file, metrics->address());
}

absl::Status Run(const WorkerConfig& config) {
  const ServiceManager manager = ServiceManager::FromEnvironment();
  RaiseFileLimit();
  if (!config.test_failpoints.empty()) {
    SEQPAR_RETURN_IF_ERROR(
        EnableFailpoints(config.test_failpoints, {FailProcess::kDaemon, config.node_name}));
  }
  prctl(PR_SET_CHILD_SUBREAPER,
        1);  // what executors leave behind is reaped here, as by the first process of a container
  SEQPAR_ASSIGN_OR_RETURN(const int signals, CatchStopSignals());
  SEQPAR_RETURN_IF_ERROR(CheckTls(config.tls, Clock::System().WallMicros()));
  SEQPAR_ASSIGN_OR_RETURN(const DataRoots roots, DataRoots::Create(config.data_roots));
  if (roots.roots().empty()) LogWarning("no --data-root: jobs with files cannot run here");
  WarnOfUnknownInterfaces(config);
  const absl::StatusOr<UniqueFd> alone =
      LockNode(config.state_dir, config.node_name, config.coordinator, kPredecessorMs, signals);
  if (absl::IsCancelled(alone.status())) return absl::OkStatus();
  SEQPAR_RETURN_IF_ERROR(alone.status());
  LineFile pid_file(config.pid_file);
  SEQPAR_RETURN_IF_ERROR(pid_file.Write(absl::StrCat(getpid())));
  Pulse pulse(&manager);
  WorkerMetrics metrics(config.node_name, config.tls, config.state_dir, roots, &Clock::System());
  SEQPAR_RETURN_IF_ERROR(ServeMetrics(config, &pulse, &metrics));
  const absl::StatusOr<FoundDevices> found = FindDevices(config, signals);
  if (absl::IsCancelled(found.status())) return absl::OkStatus();
  SEQPAR_RETURN_IF_ERROR(found.status());
  const v1::NodeSpec* const devices = &found->node;
  LogInfo("worker starts", {{"node", config.node_name},
                            {"coordinator", config.coordinator},
                            {"devices", devices->devices_size()},
                            {"kind", devices->devices(0).kind()},
                            {"threads", devices->devices(0).threads()},
                            {"memory", devices->devices(0).memory_bytes()},
                            {"metrics", metrics.address()},
                            {"data_interface", config.data_interface},
                            {"transport", DescribeTransport(TransportSettings(config, "rank-N"))},
                            {"data_roots", roots.ToString()}});
  SEQPAR_RETURN_IF_ERROR(Failpoint("daemon.start"));
  Daemon daemon(config, *found, Identify(config, roots, *devices), signals, &manager, &pulse,
                metrics.Watch(*devices));
  manager.Ready();
  daemon.Run();
  return absl::OkStatus();
}

}  // namespace

int RunDaemon(const WorkerConfig& config) {
  LogWhatGrpcSays(LogLevel::kDebug);  // the stream's error says it
  const absl::Status ran = Run(config);
  if (ran.ok()) {
    LogInfo("worker ends");
    return 0;
  }
  LogError("worker cannot run", {{"error", ran.message()}});
  return 1;
}

}  // namespace seqpar
