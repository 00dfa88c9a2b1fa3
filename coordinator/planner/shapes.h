// Which shapes a gang may take: every mesh, core and layout that a job allows on so many devices.
#ifndef SEQPAR_COORDINATOR_PLANNER_SHAPES_H_
#define SEQPAR_COORDINATOR_PLANNER_SHAPES_H_

#include <vector>

#include "common/job/job.h"
#include "common/parallel/mesh.h"

namespace seqpar {

struct Shape {
  Mesh mesh;
  CoreKind core = CoreKind::kRing;
  LayoutKind layout = LayoutKind::kContiguous;
};

// The strategy that a mesh is called by.
StrategyKind StrategyOf(const Mesh& mesh, CoreKind core);

// The world sizes that the job allows, ascending, at most `most`: the product of its degrees where all are given, else
// workers.min to workers.max.
std::vector<int> WorldSizes(const JobSpec& job, int most);

// Every shape of `ranks` ranks that the job's parallelism allows. Meshes with more heads' parts than heads are left out
// and counted in `too_few_heads`. `per_node`: the devices of a node, for rings within rings; 0 where nodes differ.
std::vector<Shape> ShapesOf(const JobSpec& job, int ranks, int per_node, int64_t* too_few_heads);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_SHAPES_H_
