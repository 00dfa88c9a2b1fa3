#include "coordinator/planner/calibration.h"

#include <cmath>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace seqpar {
namespace {

const char* NameOf(JobPass pass) { return pass == JobPass::kForward ? "forward" : "forward_backward"; }
}  // namespace

double Calibration::Factor(const std::string& key) const {
  const auto found = corrections.find(key);
  return found == corrections.end() ? 1 : found->second.factor;
}

double Calibration::StepFactor(const std::string& node_kind, JobPass pass, StrategyKind strategy) const {
  return Factor(StepKey(node_kind, pass)) * Factor(StepKey(node_kind, pass, strategy));
}

std::string StepKey(const std::string& node_kind, JobPass pass) {
  return absl::StrCat("step | ", node_kind, " | ", NameOf(pass));
}

std::string StepKey(const std::string& node_kind, JobPass pass, StrategyKind strategy) {
  return absl::StrCat(StepKey(node_kind, pass), " | ", StrategyName(strategy));
}

std::string PhaseKey(const std::string& phase, const std::string& node_kind) {
  return absl::StrCat(phase, " | ", node_kind);
}

std::string CalibrationToText(const Calibration& calibration) {
  std::string text;
  for (const auto& [key, correction] : calibration.corrections) {
    absl::StrAppend(&text, absl::StrFormat("%.17g\t%d\t", correction.factor, correction.jobs), key, "\n");
  }
  return text;
}

Calibration CalibrationFromText(const std::string& text) {
  Calibration calibration;
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(text, '\n'))) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits('\t', 2));
    Correction correction;
    if (parts.size() != 3 || !absl::SimpleAtod(parts[0], &correction.factor) ||
        !absl::SimpleAtoi(parts[1], &correction.jobs)) {
      continue;
    }
    if (!(correction.factor > 0) || !std::isfinite(correction.factor) || correction.jobs < 0) continue;
    calibration.corrections[parts[2]] = correction;
  }
  return calibration;
}

}  // namespace seqpar
