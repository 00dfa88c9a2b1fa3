#include "coordinator/metrics/job_metrics.h"

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "coordinator/job_machine/slow_ranks.h"

namespace seqpar {
namespace {

double Seconds(int64_t us) { return static_cast<double>(us) / 1e6; }

// The reasons that the table knows; whatever else happens is our own fault.
std::string ReasonLabel(const absl::Status& error) {
  const std::string reason = ReasonOf(error);
  const std::vector<std::string>& known = InfoOf(Metric::kAttemptFailures).labels[0].values;
  return std::find(known.begin(), known.end(), reason) == known.end() ? reason::kInternal : reason;
}

// By decision of the coordinator; a worker may give the same reason for its own.
bool EndedForSlowRank(const AttemptRecord& attempt) {
  return attempt.not_counted && ReasonOf(attempt.error) == reason::kSlowRank;
}

// Not what a user or an operator asked for.
bool IsFailure(const AttemptRecord& attempt) {
  const std::string reason = ReasonOf(attempt.error);
  const bool drained = attempt.not_counted && reason == reason::kNodeDrained;
  return !attempt.error.ok() && reason != reason::kCancelled && !drained && !EndedForSlowRank(attempt);
}

const char* DeviceState(const NodeEntry& node, int device) {
  if (node.State() == v1::NODE_STATE_LOST) return "LOST";
  if (node.busy.count(device) != 0) return "BUSY";
  if (node.set_aside.count(device) != 0) return "SET_ASIDE";
  return node.Ready() ? "FREE" : "DRAINING";
}

const char* NodeStateLabel(const NodeEntry& node) {
  switch (node.State()) {
    case v1::NODE_STATE_READY:
      return "READY";
    case v1::NODE_STATE_DRAINING:
      return "DRAINING";
    default:
      return "LOST";
  }
}

}  // namespace

JobMetrics::JobMetrics(MetricRegistry* registry, const Clock* clock)
    : registry_(registry), clock_(clock), lease_margin_(registry->Histogram(Metric::kLeaseMargin)) {
  for (const Metric metric :
       {Metric::kJobs, Metric::kJobsSubmitted, Metric::kJobsEnded, Metric::kJobPhaseSeconds,
        Metric::kJobQueueWait, Metric::kAttempts, Metric::kAttemptFailures, Metric::kPredictionRatio,
        Metric::kRankImbalance, Metric::kStepSkew, Metric::kSlowRanksReplaced, Metric::kNodes,
        Metric::kDevices, Metric::kJobQueueOldest, Metric::kLinkMeasurements}) {
    registry_->StartAtZero(metric);
  }
  registry_->OnScrape([this] {
    MutexLock lock(mutex_);
    const int64_t now_us = clock_->BootMicros();
    int64_t oldest_us = 0;
    for (const auto& [id, seen] : jobs_) {
      if (seen.stage == Stage::kQueued) oldest_us = std::max(oldest_us, now_us - seen.queued_since_us);
    }
    registry_->Gauge(Metric::kJobQueueOldest).Set(Seconds(oldest_us));
  });
}

prometheus::Gauge& JobMetrics::JobsIn(JobState state, JobPhase phase) {
  return registry_->Gauge(Metric::kJobs, {StateName(state), PhaseName(phase)});
}

JobMetrics::Seen& JobMetrics::Find(const JobRecord& record) {
  const auto found = jobs_.find(record.id);
  if (found != jobs_.end()) return found->second;
  Seen seen{record.state, record.phase, record.stage, record.attempt, 0, 0, 0};
  seen.phase_since_us = seen.queued_since_us = clock_->BootMicros();
  // What ended before this process knew the job was counted by the one before it.
  for (const AttemptRecord& attempt : record.attempts) seen.ended_attempts += attempt.end_us != 0 ? 1 : 0;
  JobsIn(seen.state, seen.phase).Increment();
  return jobs_[record.id] = seen;
}

void JobMetrics::JobSubmitted(const JobRecord& record) {
  MutexLock lock(mutex_);
  registry_->Counter(Metric::kJobsSubmitted).Increment();
  Find(record);
}

void JobMetrics::JobStepped(const JobRecord& record, const JobEvent& event) {
  MutexLock lock(mutex_);
  Seen& seen = Find(record);
  CountAttempts(record, &seen);
  CountPhases(record, &seen);
  if (record.ended()) {
    registry_->Counter(Metric::kJobsEnded, {StateName(record.state)}).Increment();
    if (record.state == JobState::kSucceeded) CountResult(record);
    return Leave(record.id);
  }
  const auto* progressed = std::get_if<event::RankProgressed>(&event);
  // Every rank reports as often as any other: once a round is enough.
  if (progressed == nullptr || progressed->progress.rank() == 0 || record.stage != Stage::kRunning) {
    SetSlowness(record);
  }
}

void JobMetrics::Leave(const std::string& job) {
  const Seen& seen = jobs_.at(job);
  JobsIn(seen.state, seen.phase).Decrement();
  jobs_.erase(job);
  if (const auto shown = slowness_.find(job); shown != slowness_.end()) {
    for (const auto& [labels, ratio] : shown->second) registry_->Remove(Metric::kRankSlowness, labels);
    slowness_.erase(shown);
  }
}

void JobMetrics::CountPhases(const JobRecord& record, Seen* seen) {
  const int64_t now_us = clock_->BootMicros();
  if (seen->stage == Stage::kQueued && record.HoldsDevices()) {
    registry_->Histogram(Metric::kJobQueueWait).Observe(Seconds(now_us - seen->queued_since_us));
  }
  if (seen->stage != Stage::kQueued && record.stage == Stage::kQueued) seen->queued_since_us = now_us;
  const bool left = record.phase != seen->phase || record.ended();
  if (left) {
    registry_->Histogram(Metric::kJobPhaseSeconds, {PhaseName(seen->phase)})
        .Observe(Seconds(now_us - seen->phase_since_us));
    seen->phase_since_us = now_us;
  }
  if (!record.ended() && (left || record.state != seen->state)) {
    JobsIn(seen->state, seen->phase).Decrement();
    JobsIn(record.state, record.phase).Increment();
    seen->state = record.state;
    seen->phase = record.phase;
  }
  seen->stage = record.stage;
}

void JobMetrics::CountAttempts(const JobRecord& record, Seen* seen) {
  if (record.attempt > seen->attempt) {
    registry_->Counter(Metric::kAttempts).Increment(record.attempt - seen->attempt);
    seen->attempt = record.attempt;
  }
  for (; seen->ended_attempts < record.attempts.size(); ++seen->ended_attempts) {
    const AttemptRecord& attempt = record.attempts[seen->ended_attempts];
    if (attempt.end_us == 0) return;
    if (EndedForSlowRank(attempt)) registry_->Counter(Metric::kSlowRanksReplaced).Increment();
    if (!IsFailure(attempt)) continue;
    registry_->Counter(Metric::kAttemptFailures, {ReasonLabel(attempt.error)}).Increment();
  }
}

void JobMetrics::CountResult(const JobRecord& record) {
  if (!record.report || record.report->ranks().empty()) return;
  const v1::Report& report = *record.report;
  const std::string& strategy = report.strategy();
  const v1::RankReport* largest = &report.ranks(0);
  double compute = 0, compute_max = 0;
  double slowest = 0, fastest = report.ranks(0).execute_seconds();
  for (const v1::RankReport& rank : report.ranks()) {
    if (rank.peak_bytes() > largest->peak_bytes()) largest = &rank;
    compute += rank.compute_seconds();
    compute_max = std::max(compute_max, rank.compute_seconds());
    slowest = std::max(slowest, rank.execute_seconds());
    fastest = std::min(fastest, rank.execute_seconds());
  }
  const auto ratio = [&](const char* quantity, double predicted, double measured) {
    if (predicted <= 0 || measured <= 0) return;
    registry_->Histogram(Metric::kPredictionRatio, {quantity, strategy}).Observe(predicted / measured);
  };
  ratio("time", report.predicted_step_seconds(), report.step_seconds());
  ratio("memory", static_cast<double>(largest->predicted_peak_bytes()),
        static_cast<double>(largest->peak_bytes()));
  if (compute > 0) {
    registry_->Histogram(Metric::kRankImbalance, {strategy})
        .Observe(compute_max / (compute / report.ranks_size()));
  }
  registry_->Histogram(Metric::kStepSkew, {strategy}).Observe(slowest - fastest);
}

void JobMetrics::SetSlowness(const JobRecord& record) {
  std::map<MetricRegistry::Values, double> ratios;
  const std::vector<double> slowness = SlownessOf(record);
  for (size_t i = 0; i < slowness.size(); ++i) {
    const RankRecord& rank = record.ranks[i];
    if (slowness[i] > 0) ratios[{rank.node, absl::StrCat(rank.device)}] = slowness[i];
  }
  auto shown = slowness_.find(record.id);
  if (shown == slowness_.end() && ratios.empty()) return;
  if (shown == slowness_.end()) shown = slowness_.emplace(record.id, decltype(ratios)()).first;
  for (const auto& [labels, ratio] : shown->second) {
    if (ratios.count(labels) == 0) registry_->Remove(Metric::kRankSlowness, labels);
  }
  if (ratios.empty()) {
    slowness_.erase(shown);
    return;
  }
  for (const auto& [labels, ratio] : ratios) registry_->Gauge(Metric::kRankSlowness, labels).Set(ratio);
  shown->second = std::move(ratios);
}

void JobMetrics::NodesSeen(const std::map<std::string, NodeEntry>& nodes) {
  std::map<MetricRegistry::Values, double> states, infos, devices;
  for (const std::string& state : InfoOf(Metric::kNodes).labels[0].values) states[{state}] = 0;
  for (const std::string& state : InfoOf(Metric::kDevices).labels[0].values) devices[{state}] = 0;
  for (const auto& [name, node] : nodes) {
    if (!node.known()) continue;
    const char* state = NodeStateLabel(node);
    ++states[{state}];
    infos[{name, state, node.hello.version()}] = 1;
    for (int i = 0; i < static_cast<int>(node.devices.size()); ++i) ++devices[{DeviceState(node, i)}];
  }
  registry_->Replace(Metric::kNodes, states);
  registry_->Replace(Metric::kNodeInfo, infos);
  registry_->Replace(Metric::kDevices, devices);
}

void JobMetrics::LinkEnded(const LinkEnds&, LinkOutcome outcome) {
  registry_->Counter(Metric::kLinkMeasurements, {LinkOutcomeName(outcome)}).Increment();
}

void JobMetrics::RequestPassed(JobPhase phase, double seconds) {
  registry_->Histogram(Metric::kJobPhaseSeconds, {PhaseName(phase)}).Observe(seconds);
}

void JobMetrics::LeaseExtended(const std::string&, int64_t left_us) {
  lease_margin_.Observe(Seconds(left_us));
}

}  // namespace seqpar
