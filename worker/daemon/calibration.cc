#include "worker/daemon/calibration.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "worker/daemon/executor_processes.h"

namespace seqpar {
namespace {

using nlohmann::json;

constexpr int64_t kTimeoutUs = 30'000'000;  // a machine that is busy with other work still ends in it
constexpr double kLinkLatencySeconds = 30e-6;

std::string KeyOf(const WorkerConfig& config, const std::string& processor) {
  return absl::StrCat(kVersion, " | ", processor, " | ", config.cpu_slots, " x ", config.threads_per_slot);
}

json ToJson(const DeviceRates& rates) {
  return {{"gemm_flops", rates.gemm_flops},
          {"attention_forward_flops", rates.attention_forward_flops},
          {"attention_backward_flops", rates.attention_backward_flops},
          {"copy_bytes", rates.copy_bytes},
          {"peak_flops", rates.peak_flops}};
}

// None where a rate is missing or not positive.
std::optional<DeviceRates> RatesFromJson(const json& from) {
  DeviceRates rates;
  const std::pair<const char*, double*> fields[] = {
      {"gemm_flops", &rates.gemm_flops},
      {"attention_forward_flops", &rates.attention_forward_flops},
      {"attention_backward_flops", &rates.attention_backward_flops},
      {"copy_bytes", &rates.copy_bytes},
      {"peak_flops", &rates.peak_flops}};
  for (const auto& [name, value] : fields) {
    if (!from.is_object() || !from.contains(name) || !from[name].is_number()) return std::nullopt;
    *value = from[name].get<double>();
    if (!(*value > 0)) return std::nullopt;
  }
  return rates;
}

std::optional<DeviceRates> LoadCached(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  const json cached = json::parse(file, nullptr, false);
  if (!cached.is_object() || cached.value("key", json()) != key || !cached.contains("rates"))
    return std::nullopt;
  return RatesFromJson(cached["rates"]);
}

// Written whole or not at all; a cache that cannot be written costs the next start a second.
void StoreCached(const std::string& path, const std::string& key, const DeviceRates& rates) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  const std::string temporary = absl::StrCat(path, ".", getpid());
  std::ofstream file(temporary, std::ios::trunc);
  file << json{{"key", key}, {"rates", ToJson(rates)}}.dump(2) << "\n";
  file.close();
  if (file) std::filesystem::rename(temporary, path, error);
  if (!file || error) LogWarning("calibration cannot be kept", {{"path", path}});
}

// One measuring process and what it has printed.
struct Probe {
  pid_t pid = -1;
  UniqueFd output;
  std::string text;

  Probe() = default;
  Probe(Probe&&) = default;
  ~Probe() {
    if (pid <= 0) return;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
};

absl::Status StartProbe(int threads, Probe* probe) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::InternalError(absl::StrCat("pipe: ", std::strerror(errno)));
  probe->output.Reset(ends[0]);
  const UniqueFd its_output(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, its_output.get(), STDOUT_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  const std::string count = absl::StrCat(threads);
  const char* const arguments[] = {"seqpar-worker", "calibrate", "--threads", count.c_str(), nullptr};
  const int error = posix_spawn(&probe->pid, "/proc/self/exe", &actions, nullptr,
                                const_cast<char* const*>(arguments), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error == 0) return absl::OkStatus();
  probe->pid = -1;
  return absl::InternalError(absl::StrCat("cannot start a calibration: ", std::strerror(error)));
}

// Reads every probe to its end.
absl::Status ReadProbes(std::vector<Probe>* probes, int stop_fd) {
  const int64_t end_us = Clock::System().BootMicros() + kTimeoutUs;
  size_t open = probes->size();
  while (open > 0) {
    std::vector<pollfd> fds = {{stop_fd, POLLIN, 0}};
    for (const Probe& probe : *probes) fds.push_back({probe.output.get(), POLLIN, 0});
    const int64_t left_us = end_us - Clock::System().BootMicros();
    if (left_us <= 0) return absl::DeadlineExceededError("calibration did not end in 30 s");
    if (poll(fds.data(), fds.size(), static_cast<int>(left_us / 1000 + 1)) < 0) continue;
    if (fds[0].revents != 0) return absl::CancelledError("stopped");
    for (size_t i = 0; i < probes->size(); ++i) {
      if (fds[i + 1].revents == 0) continue;
      char buffer[4096];
      const ssize_t n = read(fds[i + 1].fd, buffer, sizeof(buffer));
      if (n > 0) (*probes)[i].text.append(buffer, static_cast<size_t>(n));
      if (n > 0 || (n < 0 && errno == EINTR)) continue;
      (*probes)[i].output.Reset();
      --open;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<DeviceRates> Measure(const WorkerConfig& config, int stop_fd) {
  pollfd stop = {stop_fd, POLLIN, 0};
  if (poll(&stop, 1, 0) > 0) return absl::CancelledError("stopped");
  std::vector<Probe> probes(config.cpu_slots);
  for (Probe& probe : probes) SEQPAR_RETURN_IF_ERROR(StartProbe(config.threads_per_slot, &probe));
  SEQPAR_RETURN_IF_ERROR(ReadProbes(&probes, stop_fd));
  DeviceRates mean;
  const double share = 1.0 / config.cpu_slots;
  for (Probe& probe : probes) {
    int status = 0;
    waitpid(probe.pid, &status, 0);
    probe.pid = -1;
    const std::optional<DeviceRates> rates = RatesFromJson(json::parse(probe.text, nullptr, false));
    if (status != 0 || !rates.has_value()) {
      return absl::InternalError(absl::StrCat("a calibration process ", DescribeExit(status)));
    }
    mean.gemm_flops += share * rates->gemm_flops;
    mean.attention_forward_flops += share * rates->attention_forward_flops;
    mean.attention_backward_flops += share * rates->attention_backward_flops;
    mean.copy_bytes += share * rates->copy_bytes;
    mean.peak_flops = std::max(mean.peak_flops, rates->peak_flops);  // the best seen
  }
  return mean;
}

}  // namespace

DeviceRates ShareOfCores(const DeviceRates& measured, int threads, int cores) {
  const double share = threads > cores ? static_cast<double>(cores) / threads : 1;
  DeviceRates rates = measured;
  rates.gemm_flops *= share;
  rates.attention_forward_flops *= share;
  rates.attention_backward_flops *= share;
  rates.copy_bytes *= share;
  return rates;
}

LinkRates EstimateLocalLink(const DeviceRates& rates) { return {kLinkLatencySeconds, rates.copy_bytes / 2}; }

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

absl::StatusOr<Calibration> Calibrate(const WorkerConfig& config, int stop_fd) {
  Calibration calibration;
  calibration.processor = ProcessorName();
  const std::string path = absl::StrCat(config.state_dir, "/calibration.json");
  const std::string key = KeyOf(config, calibration.processor);
  std::optional<DeviceRates> rates;
  if (!config.recalibrate) rates = LoadCached(path, key);
  if (!rates.has_value()) {
    SEQPAR_ASSIGN_OR_RETURN(rates, Measure(config, stop_fd));
    const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    rates = ShareOfCores(*rates, config.cpu_slots * config.threads_per_slot, cores);
    StoreCached(path, key, *rates);
  }
  LogInfo("slots calibrated", {{"gemm_gflops", rates->gemm_flops / 1e9},
                               {"attention_forward_gflops", rates->attention_forward_flops / 1e9},
                               {"attention_backward_gflops", rates->attention_backward_flops / 1e9},
                               {"peak_gflops", rates->peak_flops / 1e9},
                               {"copy_gbytes", rates->copy_bytes / 1e9}});
  calibration.slots.assign(config.cpu_slots, *rates);
  calibration.local = EstimateLocalLink(*rates);
  return calibration;
}

}  // namespace seqpar
