#include "coordinator/job_machine/slow_ranks.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"

namespace seqpar {
namespace {

// From the decision until the devices are placed again: a gang is stopped within two seconds.
constexpr double kTurnaroundSeconds = 3;

// The middle one; of an even number the smaller of the two.
double LowMedian(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<int64_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Of the whole job, behind which the current attempt began.
double BegunAfter(const JobRecord& record) {
  return record.attempts.back().first_layer /
         std::max<double>(1, static_cast<double>(record.spec.config.layers));
}

// All model flops of a rank's part that the attempt has to do; 0: not known yet.
double AllFlops(const JobRecord& record, const RankRecord& rank) {
  const double done = rank.percent / 100 - BegunAfter(record);
  return done > 0 ? rank.flops * (1 - BegunAfter(record)) / done : 0;
}

// How many times as long as was predicted the gang's median takes for its kernels; at least 1.
double AgainstPrediction(const JobRecord& record) {
  const double predicted = record.plan.prediction.compute_seconds * (1 - BegunAfter(record));
  std::vector<double> takes;
  for (const RankRecord& rank : record.ranks) {
    const double seconds = rank.flop_seconds * AllFlops(record, rank);
    if (seconds > 0) takes.push_back(seconds);
  }
  return takes.empty() || predicted <= 0 ? 1 : std::max(1.0, LowMedian(std::move(takes)) / predicted);
}

}  // namespace

bool NoteWork(double flops, double flops_seconds, RankRecord* rank) {
  const double more = flops - rank->flops, took = flops_seconds - rank->flops_seconds;
  rank->flops = flops;
  rank->flops_seconds = flops_seconds;
  const bool known = more > 0 && took > 0 && std::isfinite(more) && std::isfinite(took);
  if (known) rank->flop_seconds = took / more;
  return known;
}

std::vector<double> SlownessOf(const JobRecord& record) {
  std::vector<double> slowness(record.ranks.size(), 0), paces;
  for (size_t i = 0; i < record.ranks.size(); ++i) {
    const RankRecord& rank = record.ranks[i];
    if (record.stage == Stage::kRunning && rank.phase == JobPhase::kExecute) slowness[i] = rank.flop_seconds;
    if (slowness[i] > 0) paces.push_back(slowness[i]);
  }
  if (paces.empty()) return slowness;
  const double median = LowMedian(std::move(paces));
  for (double& one : slowness) one /= median;
  return slowness;
}

bool IsToReplace(const SlowRankPolicy& policy, int rank, JobRecord* record) {
  if (policy.factor <= 0) return false;
  const std::vector<double> slowness = SlownessOf(*record);
  int& slow = record->ranks[rank].slow_reports;
  slow = slowness[rank] > policy.factor ? slow + 1 : 0;
  if (slow < policy.reports || static_cast<int>(record->avoided.size()) >= policy.replacements) return false;
  if (*std::max_element(slowness.begin(), slowness.end()) > slowness[rank]) return false;
  slow = 0;
  return true;
}

std::optional<std::string> WhyReplace(const JobRecord& record, const SlowRankPolicy& policy, int index,
                                      const OtherPlan& other) {
  const RankRecord& rank = record.ranks[index];
  const double slowness = SlownessOf(record)[index];
  if (slowness <= policy.factor) return std::nullopt;  // not any more
  const double left = rank.flop_seconds * std::max(0.0, AllFlops(record, rank) - rank.flops);
  const double begun = 1e-6 * static_cast<double>(record.execute_begin_us - record.attempt_begin_us);
  const double again =
      1 - record.checkpoint_layers / std::max<double>(1, static_cast<double>(record.spec.config.layers));
  const double cost = kTurnaroundSeconds + std::max(begun, other.start_seconds) +
                      again * other.step_seconds * AgainstPrediction(record);
  if (!(left > cost)) return std::nullopt;
  return absl::StrFormat(
      "rank %d on %s took %.1f times as long as the median of its gang, %d times in a row: what is left "
      "would "
      "take %.3g s, another attempt without its device %.3g s",
      index, rank.Where(), slowness, policy.reports, left, cost);
}

}  // namespace seqpar
