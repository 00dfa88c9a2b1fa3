#include "coordinator/planner/shapes.h"

#include <algorithm>

namespace seqpar {
namespace {

// Whether the job's strategy has meshes of this form.
bool StrategyAllows(StrategyKind strategy, const Mesh& m) {
  const int axes = (m.tensor > 1) + (m.ulysses > 1) + (m.ring > 1);
  switch (strategy) {
    case StrategyKind::kAuto:
      return true;
    case StrategyKind::kMegatronSp:
      return m.ulysses == 1 && m.ring == 1;
    case StrategyKind::kUlysses:
      return m.tensor == 1 && m.ring == 1;
    case StrategyKind::kRing:
    case StrategyKind::kGather:
      return m.tensor == 1 && m.ulysses == 1;
    case StrategyKind::kHybrid:
      return axes >= 2;
  }
  return false;
}

bool DegreesAllow(const ParallelismSpec& p, const Mesh& m) {
  return (p.tensor == 0 || p.tensor == m.tensor) && (p.ulysses == 0 || p.ulysses == m.ulysses) &&
         (p.ring == 0 || p.ring == m.ring);
}

std::vector<CoreKind> CoresOf(const ParallelismSpec& p, const Mesh& m) {
  if (m.ring == 1) return {p.core};
  switch (p.strategy) {
    case StrategyKind::kAuto:
      return {CoreKind::kRing, CoreKind::kGather};
    case StrategyKind::kGather:
      return {CoreKind::kGather};
    default:
      return {p.core};
  }
}

std::vector<LayoutKind> LayoutsOf(const JobSpec& job, const Mesh& m) {
  if (job.parallelism.layout) return {*job.parallelism.layout};
  if (m.ring == 1) return {LayoutKind::kContiguous};
  return {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped};
}

// Inner ring sizes worth considering: what the job says, else the plain ring and, where a ring spans nodes, a ring a node.
std::vector<int> InnersOf(const ParallelismSpec& p, const Mesh& m, CoreKind core, int per_node) {
  if (m.ring == 1 || core == CoreKind::kGather) return {m.ring};
  if (p.inner > 0) return {p.inner == 1 ? m.ring : p.inner};
  std::vector<int> inners = {m.ring};
  const int in_node = per_node / std::max(1, m.tensor * m.ulysses);
  if (in_node > 1 && in_node < m.ring && m.ring % in_node == 0) inners.push_back(in_node);
  return inners;
}

}  // namespace

StrategyKind StrategyOf(const Mesh& m, CoreKind core) {
  const int axes = (m.tensor > 1) + (m.ulysses > 1) + (m.ring > 1);
  if (axes > 1) return StrategyKind::kHybrid;
  if (m.tensor > 1) return StrategyKind::kMegatronSp;
  if (m.ulysses > 1) return StrategyKind::kUlysses;
  return core == CoreKind::kGather ? StrategyKind::kGather : StrategyKind::kRing;
}

std::vector<int> WorldSizes(const JobSpec& job, int most) {
  const ParallelismSpec& p = job.parallelism;
  const bool fixed = (p.strategy == StrategyKind::kMegatronSp && p.tensor) ||
                     (p.strategy == StrategyKind::kUlysses && p.ulysses) ||
                     ((p.strategy == StrategyKind::kRing || p.strategy == StrategyKind::kGather) && p.ring) ||
                     (p.strategy == StrategyKind::kHybrid && p.tensor && p.ulysses && p.ring);
  const int product = std::max(1, p.tensor) * std::max(1, p.ulysses) * std::max(1, p.ring);
  const int low = std::max(1, job.min_workers);
  const int high = job.max_workers > 0 ? std::min(most, job.max_workers) : most;
  std::vector<int> sizes;
  if (fixed) {
    if (product <= high) sizes.push_back(product);
    return sizes;
  }
  for (int n = std::max(low, product); n <= high; ++n) {
    if (n % product == 0) sizes.push_back(n);
  }
  return sizes;
}

std::vector<Shape> ShapesOf(const JobSpec& job, int ranks, int per_node, int64_t* too_few_heads) {
  std::vector<Shape> shapes;
  const ParallelismSpec& p = job.parallelism;
  for (int t = 1; t <= ranks; ++t) {
    if (ranks % t != 0) continue;
    for (int u = 1; u <= ranks / t; ++u) {
      if ((ranks / t) % u != 0) continue;
      Mesh mesh{t, u, ranks / t / u, 1};
      // A job of one rank is every strategy's smallest mesh, hybrid's too.
      if (!DegreesAllow(p, mesh) || (ranks > 1 && !StrategyAllows(p.strategy, mesh))) continue;
      if (t * u > job.config.heads) {
        ++*too_few_heads;
        continue;
      }
      for (CoreKind core : CoresOf(p, mesh)) {
        for (int inner : InnersOf(p, mesh, core, per_node)) {
          if (mesh.ring % inner != 0) continue;
          mesh.inner = inner;
          for (LayoutKind layout : LayoutsOf(job, mesh)) shapes.push_back({mesh, core, layout});
        }
      }
    }
  }
  return shapes;
}

}  // namespace seqpar
