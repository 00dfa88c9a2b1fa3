// Memory of one rank, term by term: the buffers that the layers and cores really allocate (docs/formulas.md).
#ifndef SEQPAR_COORDINATOR_PLANNER_MEMORY_H_
#define SEQPAR_COORDINATOR_PLANNER_MEMORY_H_

#include "common/job/job.h"
#include "coordinator/planner/ring_cost.h"
#include "coordinator/planner/shapes.h"

namespace seqpar {

// Bytes at the peak of the rank at `coord`.
double PredictRankBytes(const JobSpec& job, const Shape& shape, Recompute recompute, const MeshCoord& coord,
                        const RingCost& ring);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_MEMORY_H_
