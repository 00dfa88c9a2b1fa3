// Memory of one rank, term by term: the buffers that layers, attention cores and communicators allocate
// (common/layers, common/attention, common/comm). They are allocated once and kept, so the peak is their sum.
#ifndef SEQPAR_COORDINATOR_PLANNER_MEMORY_H_
#define SEQPAR_COORDINATOR_PLANNER_MEMORY_H_

#include <string>

#include "common/job/job.h"
#include "common/parallel/head_layout.h"
#include "coordinator/planner/ring_cost.h"
#include "coordinator/planner/shapes.h"

namespace seqpar {

// Bytes by what they are for.
struct RankMemory {
  double weights = 0;
  double weight_gradients = 0;  // of one layer, float32
  double hidden = 0;            // inputs and outputs of layers, and the gradient of one
  double kept = 0;              // activations that backward reads, of all layers; forward: of one
  double layer = 0;             // what one layer computes in and all share
  double communication = 0;     // parts of sums
  double kernels = 0;           // what kernels compute in: by the kind of device
  double verification = 0;      // values of sampled rows on their way between ranks
  double total() const {
    return weights + weight_gradients + hidden + kept + layer + communication + kernels + verification;
  }
};

// Of the rank at `at` on a device of this kind. `heads` are those of shape.mesh, `ring` what the shape's ring
// costs.
RankMemory PredictRankMemory(const JobSpec& job, const Shape& shape, Recompute recompute, const MeshCoord& at,
                             const HeadLayout& heads, const RingCost& ring, const std::string& device_kind);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_MEMORY_H_
