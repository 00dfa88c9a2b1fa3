// What finished jobs taught: factors between what was predicted and what was measured, by kind of node, pass
// and strategy. Values in, values out; stored as text.
#ifndef SEQPAR_COORDINATOR_PLANNER_CALIBRATION_H_
#define SEQPAR_COORDINATOR_PLANNER_CALIBRATION_H_

#include <cstdint>
#include <map>
#include <string>

#include "common/job/job.h"

namespace seqpar {

struct Correction {
  double factor = 1;  // measured over predicted
  int64_t jobs = 0;   // that it was learnt from
};

// By name: see StepKey and the others. What is not there is 1.
struct Calibration {
  std::map<std::string, Correction> corrections;

  double Factor(const std::string& key) const;
  // Of a step's seconds: what every strategy of this pass errs by on these nodes, times the little that one
  // strategy errs by beside the others. The first moves freely and changes no choice; the second moves slowly
  // within narrow bounds, since only what was chosen is ever measured.
  double StepFactor(const std::string& node_kind, JobPass pass, StrategyKind strategy) const;
};

// "step | NODE KIND | forward", and one strategy's: "step | NODE KIND | forward | ring".
std::string StepKey(const std::string& node_kind, JobPass pass);
std::string StepKey(const std::string& node_kind, JobPass pass, StrategyKind strategy);
// Phases beside the step ("bootstrap", "shard", "verify", "merge"): "shard | NODE KIND".
std::string PhaseKey(const std::string& phase, const std::string& node_kind);

// One line a factor; FromText(ToText(c)) is c. What cannot be read is left out.
std::string CalibrationToText(const Calibration& calibration);
Calibration CalibrationFromText(const std::string& text);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_CALIBRATION_H_
