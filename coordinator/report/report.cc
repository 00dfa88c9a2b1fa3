#include "coordinator/report/report.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status.h"
#include "common/job/verification.h"

namespace seqpar {
namespace {

constexpr double kRateTolerance = 1.25;
constexpr double kRateSecondsMin = 0.010;  // shorter runs are timed too coarsely to judge

// The time that the device itself worked: thread CPU time where it is one of threads, so that slots which
// share cores are judged by what they got of them; else the time that its kernels took.
double DeviceSeconds(const v1::RankReport& rank, int threads) {
  return rank.cpu_seconds() > 0 ? rank.cpu_seconds() / std::max(1, threads) : rank.compute_seconds();
}

absl::Status CheckRate(const v1::RankReport& rank, int threads) {
  const double seconds = DeviceSeconds(rank, threads);
  if (rank.peak_flops() <= 0 || seconds < kRateSecondsMin) return absl::OkStatus();
  const double rate = rank.flops() / seconds;
  if (rate <= kRateTolerance * rank.peak_flops()) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kInternal, reason::kRateAbovePeak,
      absl::StrFormat("rank %d on %s computed at %.4g flops/s, more than %.2f times the best peak seen "
                      "on the device (%.4g): work was skipped",
                      rank.rank(), rank.device(), rate, kRateTolerance, rank.peak_flops()));
}

// By the time a flop, so that a rank which was given less is not taken for a fast one.
void AddSlowness(v1::Report* report) {
  const auto time = [](const v1::RankReport& rank) {
    const bool timed = rank.flops() > 0 && rank.compute_seconds() >= kRateSecondsMin;
    return timed ? rank.compute_seconds() / rank.flops() : 0;
  };
  std::vector<double> times;
  for (const v1::RankReport& rank : report->ranks()) times.push_back(time(rank));
  if (times.empty()) return;
  const auto median = times.begin() + static_cast<int64_t>((times.size() - 1) / 2);  // of two the faster
  std::nth_element(times.begin(), median, times.end());
  if (*median <= 0) return;
  for (v1::RankReport& rank : *report->mutable_ranks()) rank.set_slowness(time(rank) / *median);
}

// The worst over the ranks, layer by layer.
v1::Verification MergeVerification(const JobSpec& job, const std::vector<RankOutcome>& ranks) {
  v1::Verification merged;
  std::map<std::pair<int, std::string>, double> errors;
  for (const RankOutcome& rank : ranks) {
    const v1::Verification& one = rank.result->verification();
    if (!one.ran()) continue;
    merged.set_ran(true);
    for (const v1::LayerError& layer : one.layers()) {
      double& error = errors[{layer.layer(), layer.tensor()}];
      if (IsWorseError(layer.error(), error)) error = layer.error();
    }
  }
  merged.set_rows(job.verify_rows);
  merged.set_max_error(job.verify_max_error);
  for (const auto& [key, error] : errors) {
    v1::LayerError* layer = merged.add_layers();
    layer->set_layer(key.first);
    layer->set_tensor(key.second);
    layer->set_error(error);
    if (merged.worst_tensor().empty() || IsWorseError(error, merged.worst_error())) {
      merged.set_worst_error(error);
      merged.set_worst_layer(key.first);
      merged.set_worst_tensor(key.second);
    }
  }
  return merged;
}

// The first layer that a rank has verified nothing of. Every rank takes part in the checks of every layer,
// and learns what all of them found. Which tensors of a layer these are is the workers' to say.
std::optional<int> FirstUnverified(const JobSpec& job, const v1::Verification& verification) {
  std::set<int> layers;
  for (const v1::LayerError& layer : verification.layers()) layers.insert(layer.layer());
  for (int layer = 0; layer < job.config.layers; ++layer) {
    if (!verification.ran() || layers.count(layer) == 0) return layer;
  }
  return std::nullopt;
}

void AddPhase(const std::string& name, double seconds, double predicted, v1::Report* report) {
  v1::PhaseSeconds* phase = report->add_phases();
  phase->set_phase(name);
  phase->set_seconds(seconds);
  phase->set_predicted(predicted);
}

// The kinds of kernels of the step, each of the slowest rank. Its passes are the report's `passes`.
void AddStepParts(const Prediction& p, v1::Report* report) {
  const auto slowest = [&](double (v1::RankReport::*seconds)() const) {
    double most = 0;
    for (const v1::RankReport& rank : report->ranks()) most = std::max(most, (rank.*seconds)());
    return most;
  };
  AddPhase("execute/attention", slowest(&v1::RankReport::attention_seconds), p.attention_seconds, report);
  AddPhase("execute/products", slowest(&v1::RankReport::product_seconds), p.product_seconds, report);
  AddPhase("execute/pointwise", slowest(&v1::RankReport::pointwise_seconds), p.pointwise_seconds, report);
}

// Phases as the ranks name them, each of the slowest rank. What execute takes beside the step is verification
// and the writing of gradients.
void AddPhases(const JobSpec& job, const Prediction& p, const std::vector<RankOutcome>& ranks,
               v1::Report* report) {
  std::vector<std::string> order;
  std::map<std::string, double> slowest;
  for (const RankOutcome& rank : ranks) {
    for (const v1::PhaseSeconds& phase : rank.result->phases()) {
      if (slowest.count(phase.phase()) == 0) order.push_back(phase.phase());
      double& seconds = slowest[phase.phase()];
      seconds = std::max(seconds, phase.seconds());
    }
  }
  const double verify = job.verify_rows > 0 ? p.verify_seconds : 0;
  const std::map<std::string, double> predicted = {{"bootstrap", p.bootstrap_seconds},
                                                   {"shard", p.shard_seconds},
                                                   {"execute", p.step_seconds + verify},
                                                   {"merge", p.merge_seconds}};
  for (const std::string& name : order) {
    const auto found = predicted.find(name);
    AddPhase(name, slowest[name], found == predicted.end() ? 0 : found->second, report);
    if (name != "execute") continue;
    AddStepParts(p, report);
    if (job.verify_rows > 0) {
      AddPhase("verify", std::max(0.0, slowest[name] - report->step_seconds()), verify, report);
    }
  }
}

// The prediction for so much of the layers.
void ScaleStep(double share, Prediction* p) {
  for (double* seconds : {&p->step_seconds, &p->compute_seconds, &p->communication_seconds,
                          &p->forward.compute_seconds, &p->forward.communication_seconds,
                          &p->attention_seconds, &p->product_seconds, &p->pointwise_seconds}) {
    *seconds *= share;
  }
}

// Figure by figure the slowest rank's.
void AddPasses(const Plan& plan, v1::Report* report) {
  for (const v1::RankReport& rank : report->ranks()) {
    for (int i = 0; i < rank.passes_size(); ++i) {
      const v1::PassFigures& one = rank.passes(i);
      if (i == report->passes_size()) report->add_passes()->set_pass(one.pass());
      v1::PassFigures* all = report->mutable_passes(i);
      all->set_seconds(std::max(all->seconds(), one.seconds()));
      all->set_compute_seconds(std::max(all->compute_seconds(), one.compute_seconds()));
      all->set_communication_exposed_seconds(
          std::max(all->communication_exposed_seconds(), one.communication_exposed_seconds()));
      all->set_communication_hidden_seconds(
          std::max(all->communication_hidden_seconds(), one.communication_hidden_seconds()));
    }
  }
  for (const v1::PassFigures& measured : report->passes()) {
    const PassPrediction& one =
        measured.pass() == "backward" ? plan.prediction.backward : plan.prediction.forward;
    v1::PassFigures* predicted = report->add_predicted_passes();
    predicted->set_pass(measured.pass());
    predicted->set_seconds(one.seconds());
    predicted->set_compute_seconds(one.compute_seconds);
    predicted->set_communication_exposed_seconds(one.communication_seconds);
  }
}

}  // namespace

absl::StatusOr<v1::Report> BuildReport(const JobSpec& whole, const Plan& whole_plan, int attempt,
                                       int first_layer, const std::vector<RankOutcome>& ranks) {
  JobSpec job = whole;
  job.config.layers -= first_layer;
  Plan plan = whole_plan;
  if (first_layer > 0)
    ScaleStep(static_cast<double>(job.config.layers) / whole.config.layers, &plan.prediction);
  v1::Report report;
  double flops = 0, flops_at_peak = 0;
  for (size_t i = 0; i < ranks.size(); ++i) {
    v1::RankReport* rank = report.add_ranks();
    *rank = ranks[i].result->report();
    rank->set_rank(static_cast<int>(i));
    rank->set_device(absl::StrCat(plan.ranks[i].node, "/", plan.ranks[i].device));
    rank->set_predicted_peak_bytes(plan.ranks[i].predicted_peak_bytes);
    SEQPAR_RETURN_IF_ERROR(CheckRate(*rank, ranks[i].threads));
    flops += rank->flops();
    flops_at_peak += rank->peak_flops() * DeviceSeconds(*rank, ranks[i].threads);
    report.set_step_seconds(std::max(report.step_seconds(), rank->execute_seconds()));
  }
  AddSlowness(&report);
  if (job.verify_rows > 0) {
    *report.mutable_verification() = MergeVerification(job, ranks);
  }
  report.set_attempt(attempt);
  report.set_strategy(StrategyName(plan.strategy));
  report.set_mesh(plan.mesh.ToString());
  report.set_layout(LayoutName(plan.layout));
  report.set_core(CoreName(plan.core));
  report.set_recompute(RecomputeName(plan.recompute));
  report.set_reason(plan.reason);
  report.set_tokens(job.batch * job.tokens);
  report.set_layers(job.config.layers);
  report.set_predicted_step_seconds(plan.prediction.step_seconds);
  report.set_model_flops(CountModelFlops(job).total);
  if (report.step_seconds() > 0) {
    report.set_tokens_per_second(static_cast<double>(report.tokens()) / report.step_seconds());
    report.set_flops_per_second(report.model_flops() / report.step_seconds());
  }
  if (flops_at_peak > 0) report.set_fraction_of_peak(flops / flops_at_peak);
  AddPhases(job, plan.prediction, ranks, &report);
  AddPasses(plan, &report);
  report.set_output(job.output_file);
  return report;
}

absl::Status CheckVerification(const JobSpec& job, const std::vector<RankOutcome>& ranks,
                               const v1::Report& report) {
  if (job.verify_rows == 0) return absl::OkStatus();
  const v1::Verification& verification = report.verification();
  if (!verification.ran()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kVerificationFailed,
                     "the job asked for verification and no rank reported any");
  }
  for (size_t i = 0; i < ranks.size(); ++i) {
    const std::optional<int> layer = FirstUnverified(job, ranks[i].result->verification());
    if (!layer) continue;
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kVerificationFailed,
                     absl::StrFormat("verification: rank %d reported nothing of layer %d, of %d layers", i,
                                     *layer, job.config.layers));
  }
  if (verification.worst_error() <= verification.max_error()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kVerificationFailed,
                   absl::StrFormat("verification: layer %d, %s: error %.3g above the bound %.3g",
                                   verification.worst_layer(), verification.worst_tensor(),
                                   verification.worst_error(), verification.max_error()));
}

}  // namespace seqpar
