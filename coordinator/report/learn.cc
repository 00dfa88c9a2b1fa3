#include "coordinator/report/learn.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace seqpar {
namespace {

constexpr double kSecondsMin = 0.020;
constexpr double kWeightLeast = 1.0 / 8, kStrategyWeight = 1.0 / 16;
constexpr double kOneJobMost = 2;
constexpr double kStepMost = 4, kStrategyMost = 1.15, kStrategyLeast = 0.85, kPhaseMost = 32;

// Half of the way for the first job, then a third, ...
double WeightAfter(int64_t jobs) { return std::max(kWeightLeast, 1.0 / static_cast<double>(jobs + 2)); }

void Move(double log_error, double weight, double least, double most, Correction* correction) {
  const double moved = correction->factor * std::exp(weight * log_error);
  correction->factor = std::clamp(moved, least, most);
  ++correction->jobs;
}

double LogError(double measured, double predicted) {
  const double limit = std::log(kOneJobMost);
  return std::clamp(std::log(measured / predicted), -limit, limit);
}

}  // namespace

Calibration Learn(const Calibration& now, const Plan& plan, JobPass pass, const v1::Report& report) {
  Calibration next = now;
  const Prediction& p = plan.prediction;
  if (report.step_seconds() >= kSecondsMin && p.step_seconds > 0) {
    // Held against what would be predicted now: other jobs may have taught since this one was planned.
    const double anew = p.step_seconds / p.correction * now.StepFactor(plan.node_kind, pass, plan.strategy);
    const double error = LogError(report.step_seconds(), anew);
    Correction& all = next.corrections[StepKey(plan.node_kind, pass)];
    Move(error, WeightAfter(all.jobs), 1 / kStepMost, kStepMost, &all);
    Correction& own = next.corrections[StepKey(plan.node_kind, pass, plan.strategy)];
    Move(error, kStrategyWeight, kStrategyLeast, kStrategyMost, &own);
  }
  for (const v1::PhaseSeconds& phase : report.phases()) {
    const bool beside = phase.phase().find('/') == std::string::npos && phase.phase() != "execute";
    if (!beside || phase.seconds() < kSecondsMin || phase.predicted() <= 0) continue;
    Correction& one = next.corrections[PhaseKey(phase.phase(), plan.node_kind)];
    Move(LogError(phase.seconds(), phase.predicted()), WeightAfter(one.jobs), 1 / kPhaseMost, kPhaseMost,
         &one);
  }
  return next;
}

}  // namespace seqpar
