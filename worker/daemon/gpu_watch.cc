#include "worker/daemon/gpu_watch.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <utility>

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

GpuWatch::GpuWatch(const v1::NodeSpec& node, const WorkerConfig& config)
    : policy_(IdleBytes(node), config.shared_gpus || config.ranks_per_gpu > 1, config.gpu_retry_us) {
  for (int i = 0; i < node.devices_size(); ++i) {
    if (node.devices(i).has_gpu()) devices_.emplace(node.devices(i).gpu().uuid(), i);
  }
}

int64_t GpuWatch::Tick() {
  const int64_t now_us = Clock::System().BootMicros();
  if (look_ != nullptr) {
    if (const auto answer = look_->Poll()) Finish(*answer, now_us);
  }
  int64_t next_us = policy_.Tick(now_us);
  if (look_ == nullptr && policy_.NextLookUs() <= now_us) {
    Look(now_us);
    next_us = policy_.Tick(now_us);
  }
  return std::min(next_us, look_ != nullptr ? look_->deadline_us() : policy_.NextLookUs());
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
  for (const auto& entry : devices_) states[entry.second] = static_cast<int>(policy_.StateOf(entry.second));
  return states;
}

bool GpuWatch::TakeChanged() {
  std::map<int, int> states = States();
  if (states == states_) return false;
  for (const auto& [device, state] : states) {
    const auto is = [&](DeviceGate::State s) { return state == static_cast<int>(s); };
    const bool was_aside =
        states_.count(device) != 0 && states_[device] == static_cast<int>(DeviceGate::State::kSetAside);
    if (is(DeviceGate::State::kSetAside) && !was_aside) {
      LogWarning("device set aside", {{"device", device}, {"why", policy_.WhySetAside(device)}});
    }
    if (is(DeviceGate::State::kOpen) && was_aside) LogInfo("device is back", {{"device", device}});
  }
  states_ = std::move(states);
  return true;
}

void GpuWatch::AddPolls(std::vector<pollfd>* fds) const {
  if (look_ != nullptr) look_->AddPolls(fds);
}

}  // namespace seqpar
