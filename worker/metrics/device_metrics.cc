#include "worker/metrics/device_metrics.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

// Those whose labels are the device's and what the table knows.
constexpr Metric kOfDevices[] = {Metric::kDeviceBusy,
                                 Metric::kDeviceSetAside,
                                 Metric::kDevicePeakFlops,
                                 Metric::kDeviceTokens,
                                 Metric::kDeviceFlops,
                                 Metric::kDevicePhaseSeconds,
                                 Metric::kDeviceComputeSeconds,
                                 Metric::kDeviceExposedSeconds,
                                 Metric::kDeviceHiddenSeconds,
                                 Metric::kDeviceSentBytes,
                                 Metric::kDeviceSentMessages,
                                 Metric::kDeviceMemoryLimit,
                                 Metric::kDeviceMemoryUsed,
                                 Metric::kDeviceMemoryPeak,
                                 Metric::kDeviceMemoryPredicted,
                                 Metric::kDeviceStepPredicted,
                                 Metric::kDeviceExecutorsStarted,
                                 Metric::kDeviceExecutorRestarts,
                                 Metric::kDeviceBootstrapSeconds,
                                 Metric::kDeviceVerificationError,
                                 Metric::kDeviceVerificationBound};

}  // namespace

DeviceMetrics::DeviceMetrics(const std::string& node, MetricRegistry* registry, const Clock* clock)
    : node_(node), registry_(registry), clock_(clock) {
  for (const Metric metric : {Metric::kWorkerAttached, Metric::kWorkerAttaches, Metric::kWorkerLeaseLeft,
                              Metric::kWorkerHeartbeatSeconds}) {
    registry_->StartAtZero(metric, {node_});
  }
  registry_->OnScrape([this] {
    const int64_t left_us = std::max<int64_t>(0, lease_deadline_us_ - clock_->BootMicros());
    registry_->Gauge(Metric::kWorkerLeaseLeft, {node_}).Set(static_cast<double>(left_us) / 1e6);
  });
}

DeviceMetrics::Values DeviceMetrics::Device(int device) const { return {node_, absl::StrCat(device)}; }

void DeviceMetrics::SetDevices(const v1::NodeSpec& devices) {
  for (int i = devices.devices_size(); i < devices_; ++i) {
    for (const Metric metric : kOfDevices) registry_->Remove(metric, Device(i));
  }
  registry_->Remove(Metric::kDeviceInfo, {node_});
  devices_ = devices.devices_size();
  for (int i = 0; i < devices_; ++i) {
    const v1::DeviceSpec& device = devices.devices(i);
    for (const Metric metric : kOfDevices) registry_->StartAtZero(metric, Device(i));
    Values info = Device(i);
    info.insert(info.end(), {device.kind(), device.name(), device.gpu().uuid()});
    registry_->Gauge(Metric::kDeviceInfo, info).Set(1);
    registry_->Gauge(Metric::kDevicePeakFlops, Device(i)).Set(device.rates().peak_flops());
    registry_->Gauge(Metric::kDeviceMemoryLimit, Device(i)).Set(static_cast<double>(device.memory_bytes()));
  }
}

void DeviceMetrics::Attached(bool attached) {
  if (attached == attached_) return;
  attached_ = attached;
  registry_->Gauge(Metric::kWorkerAttached, {node_}).Set(attached ? 1 : 0);
  if (attached) registry_->Counter(Metric::kWorkerAttaches, {node_}).Increment();
}

void DeviceMetrics::HeartbeatAnswered(int64_t after_us) {
  registry_->Histogram(Metric::kWorkerHeartbeatSeconds, {node_}).Observe(static_cast<double>(after_us) / 1e6);
}

void DeviceMetrics::DeviceSetAside(int device, bool aside) {
  registry_->Gauge(Metric::kDeviceSetAside, Device(device)).Set(aside ? 1 : 0);
}

void DeviceMetrics::RankStarted(const RankKey& key, int device, const v1::StartRanks& start) {
  Rank& rank = ranks_[key];
  rank.device = device;
  rank.verify_bound = JobFromProto(start.job()).verify_max_error;
  rank.info = Device(device);
  rank.info.insert(rank.info.end(), {key.job, absl::StrCat(key.attempt), absl::StrCat(key.rank),
                                     StrategyName(StrategyFromProto(start.plan().strategy()))});
  registry_->Gauge(Metric::kRankInfo, rank.info).Set(1);
  registry_->Gauge(Metric::kRankProgress, Device(device)).Set(0);
  registry_->Gauge(Metric::kDeviceBusy, Device(device)).Set(1);
  registry_->Gauge(Metric::kDeviceMemoryPeak, Device(device)).Set(0);
  double predicted = 0;
  if (key.rank < start.plan().ranks_size()) {
    predicted = static_cast<double>(start.plan().ranks(key.rank).predicted_peak_bytes());
  }
  registry_->Gauge(Metric::kDeviceMemoryPredicted, Device(device)).Set(predicted);
  registry_->Gauge(Metric::kDeviceStepPredicted, Device(device))
      .Set(start.plan().prediction().step_seconds());
  registry_->Counter(Metric::kDeviceExecutorsStarted, Device(device)).Increment();
}

void DeviceMetrics::Count(Rank* rank, Metric metric, const Values& more, double total) {
  double& counted = rank->counted[{metric, more}];
  if (total <= counted) return;
  Values labels = Device(rank->device);
  labels.insert(labels.end(), more.begin(), more.end());
  registry_->Counter(metric, labels).Increment(total - counted);
  counted = total;
}

void DeviceMetrics::CountTotals(Rank* rank, const v1::RankTotals& totals) {
  Count(rank, Metric::kDeviceTokens, {}, totals.tokens());
  Count(rank, Metric::kDeviceFlops, {}, totals.flops());
  Count(rank, Metric::kDeviceExposedSeconds, {}, totals.communication_exposed_seconds());
  Count(rank, Metric::kDeviceHiddenSeconds, {}, totals.communication_hidden_seconds());
  Count(rank, Metric::kDeviceComputeSeconds, {"attention"}, totals.attention_seconds());
  Count(rank, Metric::kDeviceComputeSeconds, {"product"}, totals.product_seconds());
  Count(rank, Metric::kDeviceComputeSeconds, {"pointwise"}, totals.pointwise_seconds());
  Count(rank, Metric::kDeviceComputeSeconds, {"other"}, totals.other_seconds());
  for (const v1::PhaseSeconds& phase : totals.phases()) {
    Count(rank, Metric::kDevicePhaseSeconds, {phase.phase()}, phase.seconds());
  }
  for (const v1::Traffic& traffic : totals.traffic()) {
    const Values link = {traffic.operation(), traffic.link()};
    Count(rank, Metric::kDeviceSentBytes, link, static_cast<double>(traffic.bytes()));
    Count(rank, Metric::kDeviceSentMessages, link, static_cast<double>(traffic.messages()));
  }
}

void DeviceMetrics::RankProgressed(const RankKey& key, const v1::RankProgress& progress) {
  const auto found = ranks_.find(key);
  if (found == ranks_.end()) return;
  Rank& rank = found->second;
  const Values device = Device(rank.device);
  CountTotals(&rank, progress.totals());
  registry_->Gauge(Metric::kRankProgress, device).Set(progress.percent() / 100);
  registry_->Gauge(Metric::kDeviceMemoryUsed, device).Set(static_cast<double>(progress.used_bytes()));
  prometheus::Gauge& peak = registry_->Gauge(Metric::kDeviceMemoryPeak, device);
  peak.Set(std::max(peak.Value(), static_cast<double>(progress.peak_bytes())));
  // Phases are named in order: the second begins where the first has ended.
  const auto& phases = progress.totals().phases();
  if (rank.connected || phases.size() < 2) return;
  rank.connected = true;
  registry_->Histogram(Metric::kDeviceBootstrapSeconds, device).Observe(phases[0].seconds());
}

void DeviceMetrics::RankReported(const RankKey& key, const v1::RankEvent& event) {
  const auto found = ranks_.find(key);
  if (found == ranks_.end() || event.kind() != v1::RankEvent::FINISHED) return;
  Rank& rank = found->second;
  rank.finished = true;
  registry_->Gauge(Metric::kDeviceMemoryPeak, Device(rank.device))
      .Set(static_cast<double>(event.report().peak_bytes()));
  if (!event.verification().ran()) return;
  registry_->Gauge(Metric::kDeviceVerificationError, Device(rank.device)).Set(event.report().verify_error());
  registry_->Gauge(Metric::kDeviceVerificationBound, Device(rank.device)).Set(rank.verify_bound);
}

void DeviceMetrics::RankEnded(const RankKey& key) {
  const auto found = ranks_.find(key);
  if (found == ranks_.end()) return;
  const Rank& rank = found->second;
  const Values device = Device(rank.device);
  if (!rank.finished) registry_->Counter(Metric::kDeviceExecutorRestarts, device).Increment();
  registry_->Gauge(Metric::kDeviceBusy, device).Set(0);
  registry_->Gauge(Metric::kDeviceMemoryUsed, device).Set(0);
  registry_->Remove(Metric::kRankProgress, device);
  registry_->Remove(Metric::kRankInfo, rank.info);
  ranks_.erase(found);
}

}  // namespace seqpar
