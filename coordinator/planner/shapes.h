// Which shapes a gang may take: every mesh, core and layout that a job allows on so many ranks.
#ifndef SEQPAR_COORDINATOR_PLANNER_SHAPES_H_
#define SEQPAR_COORDINATOR_PLANNER_SHAPES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/job/job.h"
#include "common/parallel/mesh.h"

namespace seqpar {

struct Shape {
  Mesh mesh;
  CoreKind core = CoreKind::kRing;
  LayoutKind layout = LayoutKind::kContiguous;
};

// The most ranks that a job may ask for.
inline constexpr int kMaxRanks = 1 << 16;

// The degrees that the job fixes: an axis that its strategy does not have is 1, and a hybrid that gives two
// degrees above 1 has 1 elsewhere. 0: open.
ParallelismSpec SettledDegrees(const ParallelismSpec& asked);

// The world sizes that the job's own limits allow, ascending, at most `most` and workers.max: the product of
// its degrees where all are settled, else those from workers.min on that its strategy can form.
std::vector<int> WorldSizes(const JobSpec& job, int most);

// Why WorldSizes(job, kMaxRanks) is empty, and what the nearest change is.
std::string WhyNoWorldSize(const JobSpec& job);

// Shapes are in a fixed order.
struct ShapeSet {
  std::vector<Shape> shapes;
  std::vector<Mesh> too_few_heads;  // meshes left out: tensor * ulysses exceeds the heads
};
// Every shape of `ranks` ranks that the job's parallelism allows. `per_node`: ranks of a node, for rings
// within rings; 0 where nodes differ.
ShapeSet ShapesOf(const JobSpec& job, int ranks, int per_node);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_SHAPES_H_
