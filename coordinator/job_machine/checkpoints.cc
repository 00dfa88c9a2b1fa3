#include "coordinator/job_machine/checkpoints.h"

#include <algorithm>
#include <cmath>

namespace seqpar {

std::vector<int> CheckpointLayers(const JobSpec& spec, const Plan& plan, int first_layer,
                                  int64_t interval_us) {
  const int layers = static_cast<int>(spec.config.layers);
  if (spec.backward() || spec.verify_rows > 0 || spec.output_file.empty()) return {};
  const double layer_us = 1e6 * plan.prediction.step_seconds / std::max(1, layers);
  if (layer_us <= 0) return {};
  const double every = std::max(1.0, std::ceil(static_cast<double>(interval_us) / layer_us));
  std::vector<int> after;
  for (int count = 1; first_layer + count * every < layers; ++count) {
    after.push_back(static_cast<int>(first_layer + count * every));
  }
  return after;
}

}  // namespace seqpar
