#include "worker/daemon/gpu_watch.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "seqpar/v1/executor.pb.h"
#include "worker/daemon/executor_processes.h"

namespace seqpar {
namespace {

// The driver answers in some ten milliseconds, or, where nothing kept it loaded, in seconds. Within the time
// that a device has before it is set aside, and more than that afterwards.
constexpr int64_t kLookUs = 4'500'000, kPatientLookUs = 10'000'000;

std::map<int, int64_t> IdleBytes(const v1::NodeSpec& node) {
  std::map<int, int64_t> idle;
  for (int i = 0; i < node.devices_size(); ++i) {
    const v1::DeviceSpec& device = node.devices(i);
    if (device.gpu().has_idle_bytes()) idle[i] = device.gpu().idle_bytes();
    if (device.kind() == "cuda" && !device.gpu().has_idle_bytes()) {
      LogWarning("what ranks leave on this GPU cannot be checked: NVML does not show it", {{"device", i}});
    }
  }
  return idle;
}

}  // namespace

GpuWatch::GpuWatch(const FoundDevices& found, const WorkerConfig& config)
    : policy_(IdleBytes(found.node), config.shared_gpus || config.ranks_per_gpu > 1, config.gpu_retry_us),
      config_(config),
      node_(found.node),
      unmeasured_(found.unmeasured),
      next_measuring_us_(Clock::System().BootMicros() + config.gpu_retry_us) {
  const v1::NodeSpec& node = found.node;
  for (int i = 0; i < node.devices_size(); ++i) {
    if (node.devices(i).has_gpu()) devices_.emplace(node.devices(i).gpu().uuid(), i);
  }
}

DeviceGate::State GpuWatch::StateOf(int device) const {
  return unmeasured_.count(device) != 0 ? State::kSetAside : policy_.StateOf(device);
}

std::string GpuWatch::WhySetAside(int device) const {
  const auto found = unmeasured_.find(device);
  return found != unmeasured_.end() ? found->second : policy_.WhySetAside(device);
}

// One after the other, each once in the time between two tries.
int64_t GpuWatch::TickMeasuring(int64_t now_us) {
  if (measuring_ != nullptr) {
    const auto answer = measuring_->Poll();
    if (!answer) return measuring_->deadline_us();
    if (answer->ok()) {
      unmeasured_.erase(measured_device_);
    } else {
      unmeasured_[measured_device_] = absl::StrCat("it cannot be measured: ", answer->status().message());
    }
    measuring_.reset();
  }
  if (unmeasured_.empty()) return INT64_MAX;
  if (now_us < next_measuring_us_) return next_measuring_us_;
  auto next = unmeasured_.upper_bound(measured_device_);
  if (next == unmeasured_.end()) next = unmeasured_.begin();
  measured_device_ = next->first;
  next_measuring_us_ = now_us + config_.gpu_retry_us / static_cast<int64_t>(unmeasured_.size());
  if (ProbeProcess::Undead() > 0) return next_measuring_us_;  // it would hang as the last one does
  const ProbeCommand command =
      MeasureAlone(config_, node_.devices(measured_device_).gpu().ordinal(), measured_device_);
  std::vector<std::string> arguments = {"seqpar-worker", "calibrate"};
  arguments.insert(arguments.end(), command.arguments.begin(), command.arguments.end());
  auto measuring = ProbeProcess::Start(absl::StrCat("measuring GPU ", measured_device_), arguments,
                                       EnvironmentWith(command.environment), kMeasureGpuUs);
  if (!measuring.ok()) return next_measuring_us_;
  measuring_ = std::move(measuring).value();
  return measuring_->deadline_us();
}

int64_t GpuWatch::Tick() {
  const int64_t now_us = Clock::System().BootMicros();
  const int64_t measuring_us = TickMeasuring(now_us);
  if (look_ != nullptr) {
    if (const auto answer = look_->Poll()) Finish(*answer, now_us);
  }
  int64_t next_us = policy_.Tick(now_us);
  if (look_ == nullptr && policy_.NextLookUs() <= now_us) {
    Look(now_us);
    next_us = policy_.Tick(now_us);
  }
  return std::min({measuring_us, next_us, look_ != nullptr ? look_->deadline_us() : policy_.NextLookUs()});
}

void GpuWatch::Look(int64_t now_us) {
  look_began_us_ = now_us;
  if (ProbeProcess::Undead() > 0) {
    return Finish(absl::DeadlineExceededError("a process that looked at the GPUs hangs in the driver"),
                  now_us);
  }
  const bool pressed = std::any_of(devices_.begin(), devices_.end(), [this](const auto& entry) {
    return policy_.StateOf(entry.second) == DeviceGate::State::kChecking;
  });
  auto look = ProbeProcess::Start("NVML", {"seqpar-worker", "probe-gpus", "--memory"}, EnvironmentWith({}),
                                  pressed ? kLookUs : kPatientLookUs);
  if (!look.ok()) return Finish(look.status(), now_us);
  look_ = std::move(look).value();
}

void GpuWatch::Finish(const absl::StatusOr<std::string>& answer, int64_t now_us) {
  policy_.Looked(look_began_us_, answer.ok() ? Parse(*answer) : answer.status(), now_us);
  look_.reset();
}

absl::StatusOr<HeldByDevice> GpuWatch::Parse(const std::string& json) const {
  v1::GpuMemoryReport report;
  if (!google::protobuf::util::JsonStringToMessage(json, &report).ok()) {
    return absl::InternalError("the process that looks at GPUs printed what is no report");
  }
  HeldByDevice held;
  for (const v1::GpuMemoryReport::Gpu& gpu : report.gpus()) {
    HeldMemory memory;
    memory.used_bytes = gpu.used_bytes();
    for (const auto& process : gpu.processes()) memory.processes[process.pid()] = process.bytes();
    const auto range = devices_.equal_range(gpu.uuid());
    for (auto device = range.first; device != range.second; ++device) held[device->second] = memory;
  }
  return held;
}

std::map<int, int> GpuWatch::States() const {
  std::map<int, int> states;
  for (const auto& entry : devices_) states[entry.second] = static_cast<int>(StateOf(entry.second));
  return states;
}

bool GpuWatch::TakeChanged() {
  std::map<int, int> states = States();
  if (states == states_) return false;
  for (const auto& entry : states) {
    const int device = entry.first, state = entry.second;
    const auto is = [&](DeviceGate::State s) { return state == static_cast<int>(s); };
    const bool was_aside =
        states_.count(device) != 0 && states_[device] == static_cast<int>(DeviceGate::State::kSetAside);
    if (is(DeviceGate::State::kSetAside) && !was_aside) {
      LogWarning("device set aside", {{"device", device}, {"why", WhySetAside(device)}});
    }
    if (is(DeviceGate::State::kOpen) && was_aside) LogInfo("device is back", {{"device", device}});
  }
  states_ = std::move(states);
  return true;
}

void GpuWatch::AddPolls(std::vector<pollfd>* fds) const {
  if (look_ != nullptr) look_->AddPolls(fds);
  if (measuring_ != nullptr) measuring_->AddPolls(fds);
}

}  // namespace seqpar
