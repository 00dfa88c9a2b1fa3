#include "worker/daemon/calibration.h"

#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/base/cgroup.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "common/job/proto.h"
#include "worker/daemon/probes.h"
#include "worker/daemon/transport_settings.h"

namespace seqpar {
namespace {

using nlohmann::json;

// Of measuring (device/cpu/calibrate.h), counted up where figures that were made otherwise would mislead.
constexpr int kMethod = 3;
constexpr double kLinkLatencySeconds = 30e-6;
// It takes a second or two; a machine that is starved by other work, or a sanitizer's build, still ends in
// it.
constexpr int64_t kTimeoutUs = 120'000'000;

// The first line of /proc/cpuinfo that begins with `name`, after its colon.
std::string ProcessorFact(const std::string& name) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind(name, 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "";
}

// Which vector extensions the processor offers: the kernels use the widest of them.
std::string Vectors() {
  const std::string flags = absl::StrCat(" ", ProcessorFact("flags"), ProcessorFact("Features"), " ");
  std::string found;
  for (const char* name : {"sse4_2", "avx2", "avx512f", "avx512_bf16", "asimd", "sve"}) {
    if (flags.find(absl::StrCat(" ", name, " ")) != std::string::npos) absl::StrAppend(&found, " ", name);
  }
  return found;
}

std::string Setting(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// The node's figures as one NodeSpec: devices[0] stands for every slot. What a cluster file must have is what
// a calibration must have.
bool IsUsable(const v1::NodeSpec& node) {
  v1::Cluster cluster;
  *cluster.add_nodes() = node;
  cluster.mutable_nodes(0)->set_name("node");
  cluster.mutable_nodes(0)->mutable_devices(0)->set_kind("cpu");
  cluster.mutable_nodes(0)->mutable_devices(0)->set_memory_bytes(1);
  return ClusterFromProto(cluster).ok();
}

std::optional<v1::NodeSpec> LoadCached(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  const json cached = json::parse(file, nullptr, false);
  if (!cached.is_object() || cached.value("key", json()) != key || !cached.contains("node"))
    return std::nullopt;
  v1::NodeSpec node;
  if (!google::protobuf::util::JsonStringToMessage(cached["node"].dump(), &node).ok()) return std::nullopt;
  if (node.devices_size() != 1 || !node.has_local() || node.cores() < 1 || !IsUsable(node))
    return std::nullopt;
  return node;
}

// Written whole or not at all; a cache that cannot be written costs the next start two seconds.
void StoreCached(const std::string& path, const std::string& key, const v1::NodeSpec& node) {
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(node, &text).ok()) return;
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  const std::string temporary = absl::StrCat(path, ".", getpid());
  std::ofstream file(temporary, std::ios::trunc);
  file << json{{"key", key}, {"node", json::parse(text)}}.dump(2) << "\n";
  file.close();
  if (file) std::filesystem::rename(temporary, path, error);
  if (!file || error) LogWarning("calibration cannot be kept", {{"path", path}});
}

// Slots are alike: what they measured differs by noise.
DeviceRates MeanOf(const std::vector<v1::NodeSpec>& slots) {
  std::vector<DeviceRates> all;
  for (const v1::NodeSpec& slot : slots) all.push_back(DeviceFromProto(slot.devices(0)).rates);
  DeviceRates mean = MeanRates(all);
  for (const DeviceRates& rates : all) mean.peak_flops = std::max(mean.peak_flops, rates.peak_flops);
  return mean;
}

std::vector<ProbeCommand> CommandsOf(const WorkerConfig& config, bool by_cpu_time) {
  std::vector<ProbeCommand> commands;
  for (int slot = 0; slot < config.cpu_slots; ++slot) {
    commands.push_back({{"--threads", absl::StrCat(config.threads_per_slot), "--slot", absl::StrCat(slot),
                         "--slots", absl::StrCat(config.cpu_slots), "--by-cpu-time", by_cpu_time ? "1" : "0"},
                        TransportSettings(config, absl::StrCat("slot-", slot))});
  }
  return commands;
}

absl::StatusOr<v1::NodeSpec> Measure(const WorkerConfig& config, int stop_fd) {
  const int cores = UsableCores(), threads = config.cpu_slots * config.threads_per_slot;
  // One thread's CPU time is also what neighbours cannot touch.
  const bool by_cpu_time = config.threads_per_slot == 1 || threads > cores;
  SEQPAR_ASSIGN_OR_RETURN(const ProbeResults results,
                          RunProbes(CommandsOf(config, by_cpu_time), kTimeoutUs, stop_fd));
  std::vector<v1::NodeSpec> slots;
  for (const absl::StatusOr<v1::NodeSpec>& measured : results.devices) {
    SEQPAR_RETURN_IF_ERROR(measured.status());
    slots.push_back(*measured);
  }
  DeviceSpec slot;
  slot.rates = ShareOfCores(MeanOf(slots), threads, cores);
  v1::NodeSpec node;
  *node.add_devices() = DeviceToProto(slot);
  node.set_cores(cores);
  node.set_start_seconds(results.start_seconds);
  const bool linked = results.start_seconds > 0;
  if (!linked && config.cpu_slots > 1) LogWarning("the link between slots is not measured but estimated");
  *node.mutable_local() = LinkToProto(linked ? MeanLink(slots) : EstimateLocalLink(slot.rates));
  return node;
}

}  // namespace

DeviceRates ShareOfCores(const DeviceRates& measured, int threads, int cores) {
  return threads > cores ? Scaled(measured, static_cast<double>(cores) / threads) : measured;
}

LinkRates MeanLink(const std::vector<v1::NodeSpec>& devices) {
  LinkRates mean;
  for (const v1::NodeSpec& device : devices) {
    mean.latency += device.local().latency() / static_cast<double>(devices.size());
    mean.bandwidth += device.local().bandwidth() / static_cast<double>(devices.size());
  }
  return mean;
}

LinkRates EstimateLocalLink(const DeviceRates& rates) { return {kLinkLatencySeconds, rates.copy_bytes / 2}; }

std::string ProcessorName() {
  const std::string name = ProcessorFact("model name");
  return name.empty() ? "unknown processor" : name;
}

std::string CalibrationKey(const WorkerConfig& config) {
  return absl::StrCat(kVersion, ".", kMethod, " | ", ProcessorName(), " |", Vectors(), " | ", UsableCores(),
                      " cores | ", config.cpu_slots, " x ", config.threads_per_slot, " | ",
                      Setting("UCX_TLS"), " ",
                      config.data_interface.empty() ? Setting("UCX_NET_DEVICES") : config.data_interface);
}

absl::StatusOr<MeasuredSlots> Calibrate(const WorkerConfig& config, int stop_fd) {
  const std::string path = absl::StrCat(config.state_dir, "/calibration.json");
  const std::string key = CalibrationKey(config);
  std::optional<v1::NodeSpec> node;
  if (!config.recalibrate) node = LoadCached(path, key);
  if (!node.has_value()) {
    SEQPAR_ASSIGN_OR_RETURN(node, Measure(config, stop_fd));
    StoreCached(path, key, *node);
  }
  const DeviceRates rates = DeviceFromProto(node->devices(0)).rates;
  MeasuredSlots measured;
  measured.processor = ProcessorName();
  measured.slots.assign(config.cpu_slots, rates);
  measured.local = LinkFromProto(node->local());
  measured.cores = node->cores();
  measured.start_seconds = node->start_seconds();
  LogInfo("slots calibrated", {{"gemm_gflops", rates.gemm_flops / 1e9},
                               {"attention_forward_gflops", rates.attention_forward_flops / 1e9},
                               {"attention_backward_gflops", rates.attention_backward_flops / 1e9},
                               {"peak_gflops", rates.peak_flops / 1e9},
                               {"pointwise_gbytes", rates.pointwise_bytes / 1e9},
                               {"copy_gbytes", rates.copy_bytes / 1e9},
                               {"link_latency_us", measured.local.latency * 1e6},
                               {"link_gbytes", measured.local.bandwidth / 1e9}});
  return measured;
}

}  // namespace seqpar
