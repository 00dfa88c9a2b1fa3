// Predicted time and memory of a shape on a gang (design.md section 5; docs/formulas.md for the volumes).
#ifndef SEQPAR_COORDINATOR_PLANNER_COST_H_
#define SEQPAR_COORDINATOR_PLANNER_COST_H_

#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "common/job/job.h"
#include "common/job/plan.h"
#include "coordinator/planner/placement.h"
#include "coordinator/planner/planner.h"
#include "coordinator/planner/shapes.h"

namespace seqpar {

// What a ring of R shares costs, whatever the heads: by ring rank, in tokens and attended pairs.
struct RingCost {
  std::vector<int64_t> tokens;
  std::vector<double> pairs;
  // Keys that the busiest rank sends over forward and backward, and messages.
  int64_t forward_keys = 0, backward_kv_keys = 0, backward_grad_keys = 0;
  int64_t forward_messages = 0, backward_messages = 0;
  int64_t buffer_keys = 0, grad_keys = 0;  // the largest rank's receive buffers (gradients: sums and receives)
  double own_pairs = 0;                    // of the busiest rank, on its own share: what hides a gather
};

struct Cost {
  Prediction prediction;
  std::vector<int64_t> peak_by_coord;  // bytes, index (tensor, ulysses, ring) as in rank order
};

// Evaluates shapes of one job. Caches what depends on (layout, ring, inner, core) only.
class CostModel {
 public:
  CostModel(const JobSpec& job, const Calibration& calibration);

  Prediction Predict(const Shape& shape, Recompute recompute, const Gang& gang);
  // Bytes at the peak of the largest rank.
  int64_t PeakBytes(const Shape& shape, Recompute recompute);
  // Bytes at the peak of one rank.
  int64_t PeakBytesOf(const Shape& shape, Recompute recompute, const MeshCoord& coord);
  const RingCost& Ring(const Shape& shape);
  const ModelFlops& flops() const { return flops_; }

 private:
  struct Times {
    double compute = 0;
    double exposed = 0;
    double bytes = 0;
  };
  Times AttentionCommunication(const Shape& shape, const Gang& gang, double attention_seconds, bool backward);
  Times TensorCommunication(const Shape& shape, const Gang& gang, bool backward);
  Times WeightGradients(const Shape& shape, const Gang& gang);

  JobSpec job_;
  Calibration calibration_;
  Mask mask_;
  ModelFlops flops_;
  double weight_elements_ = 0;  // of one layer
  std::map<std::tuple<LayoutKind, int, int, CoreKind>, RingCost> rings_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_COST_H_
