#include "coordinator/planner/shapes.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/attention/strategies.h"

namespace seqpar {
namespace {

int AxesInUse(int tensor, int ulysses, int ring) { return (tensor > 1) + (ulysses > 1) + (ring > 1); }

int ProductOf(const ParallelismSpec& p) {
  return std::max(1, p.tensor) * std::max(1, p.ulysses) * std::max(1, p.ring);
}

bool AllGiven(const ParallelismSpec& p) { return p.tensor > 0 && p.ulysses > 0 && p.ring > 0; }

bool IsPrime(int n) {
  if (n < 2) return false;
  for (int d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return true;
}

// Whether some mesh of `ranks` ranks has the degrees that are settled and is of the job's strategy.
bool CanForm(const ParallelismSpec& p, int ranks) {
  const int product = ProductOf(p);
  if (ranks % product != 0) return false;
  if (p.strategy != StrategyKind::kHybrid) return true;
  const int rest = ranks / product;
  if (AxesInUse(p.tensor, p.ulysses, p.ring) > 0) return rest > 1;
  const int open = (p.tensor == 0) + (p.ulysses == 0) + (p.ring == 0);
  return open > 1 && rest > 1 && !IsPrime(rest);
}

// Strategies of heads only take no more ranks than there are heads; a hybrid needs two heads at least.
int MostRanks(const JobSpec& job, const ParallelismSpec& p) {
  const bool ring_is_open = p.ring == 0;
  if (p.strategy == StrategyKind::kAuto || ring_is_open) return kMaxRanks;
  return p.ring * job.config.heads;
}

bool Allows(const ParallelismSpec& p, const Mesh& m) {
  const auto fits = [](int settled, int degree) { return settled == 0 || settled == degree; };
  if (!fits(p.tensor, m.tensor) || !fits(p.ulysses, m.ulysses) || !fits(p.ring, m.ring)) return false;
  return p.strategy != StrategyKind::kHybrid || AllGiven(p) || AxesInUse(m.tensor, m.ulysses, m.ring) >= 2;
}

std::vector<CoreKind> CoresOf(const ParallelismSpec& p, const Mesh& m) {
  if (p.strategy == StrategyKind::kGather) return {CoreKind::kGather};
  if (m.ring == 1) return {CoreKind::kRing};
  if (p.strategy == StrategyKind::kAuto) return {CoreKind::kRing, CoreKind::kGather};
  return {p.core};
}

// A window narrower than the stride leaves gaps between the keys that a striped share sees: every key would
// be a piece of its own.
bool StripesLeaveGaps(const MaskSpec& mask, int ring) {
  if (mask.kind != MaskKind::kWindow || mask.left < 0 || mask.right < 0) return false;
  return mask.right < ring - 1 - mask.left;  // either may be as large as its type
}

std::vector<LayoutKind> LayoutsOf(const JobSpec& job, const Mesh& m) {
  if (job.parallelism.layout) return {*job.parallelism.layout};
  if (m.ring == 1) return {LayoutKind::kContiguous};
  if (StripesLeaveGaps(job.mask, m.ring)) return {LayoutKind::kContiguous, LayoutKind::kZigzag};
  return {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped};
}

// Inner ring sizes worth considering: what the job says, else the plain ring and, where a ring spans nodes, a
// ring a node.
std::vector<int> InnersOf(const ParallelismSpec& p, const Mesh& m, CoreKind core, int per_node) {
  if (m.ring == 1 || core == CoreKind::kGather) return {m.ring};
  if (p.inner > 0) return {p.inner == 1 ? m.ring : p.inner};
  std::vector<int> inners = {m.ring};
  const int in_node = per_node / (m.tensor * m.ulysses);
  if (in_node > 1 && in_node < m.ring && m.ring % in_node == 0) inners.push_back(in_node);
  return inners;
}

}  // namespace

ParallelismSpec SettledDegrees(const ParallelismSpec& asked) {
  ParallelismSpec p = asked;
  if (p.strategy == StrategyKind::kAuto) return p;
  const Strategy& strategy = StrategyOf(p.strategy);
  const bool rest_is_one =
      p.strategy == StrategyKind::kHybrid && AxesInUse(asked.tensor, asked.ulysses, asked.ring) >= 2;
  const auto settle = [&](int* degree, bool has_axis) {
    if (!has_axis || (rest_is_one && *degree == 0)) *degree = 1;
  };
  settle(&p.tensor, strategy.tensor);
  settle(&p.ulysses, strategy.ulysses);
  settle(&p.ring, strategy.ring);
  return p;
}

std::vector<int> WorldSizes(const JobSpec& job, int most) {
  const ParallelismSpec p = SettledDegrees(job.parallelism);
  const int product = ProductOf(p);
  const int low = std::max(job.min_workers, product);
  const int high = std::min(job.max_workers > 0 ? std::min(most, job.max_workers) : most, MostRanks(job, p));
  std::vector<int> sizes;
  if (AllGiven(p)) {
    if (product <= (job.max_workers > 0 ? std::min(most, job.max_workers) : most)) sizes.push_back(product);
    return sizes;
  }
  for (int n = low; n <= high; ++n) {
    if (CanForm(p, n)) sizes.push_back(n);
  }
  return sizes;
}

std::string WhyNoWorldSize(const JobSpec& job) {
  const ParallelismSpec p = SettledDegrees(job.parallelism);
  const std::string strategy = absl::StrCat("strategy ", StrategyName(p.strategy));
  if (job.min_workers > MostRanks(job, p)) {
    return absl::StrCat(strategy, " takes at most ", MostRanks(job, p), " ranks with ", job.config.heads,
                        " heads, workers.min is ", job.min_workers, "; nearest: workers.min ",
                        MostRanks(job, p), ", or strategy ring, gather or hybrid");
  }
  JobSpec free = job;
  free.max_workers = 0;
  const std::vector<int> above = WorldSizes(free, kMaxRanks);
  free.min_workers = 1;
  free.max_workers = job.max_workers;
  const std::vector<int> below = WorldSizes(free, kMaxRanks);
  std::string text =
      p.strategy == StrategyKind::kHybrid
          ? absl::StrCat(strategy,
                         " uses at least two axes of the mesh, so its ranks are a product of two degrees")
          : absl::StrCat(strategy, " with these degrees makes ", AllGiven(p) ? "" : "multiples of ",
                         ProductOf(p), " ranks");
  absl::StrAppend(&text, "; workers allow ", job.min_workers, " to ",
                  job.max_workers > 0 ? absl::StrCat(job.max_workers) : "any number");
  if (!above.empty()) absl::StrAppend(&text, "; nearest: workers.max ", above.front());
  if (!below.empty()) {
    absl::StrAppend(&text, above.empty() ? "; nearest" : " or", " workers.min ", below.back());
  }
  return text;
}

ShapeSet ShapesOf(const JobSpec& job, int ranks, int per_node) {
  ShapeSet set;
  const ParallelismSpec p = SettledDegrees(job.parallelism);
  for (int t = 1; t <= ranks; ++t) {
    if (ranks % t != 0) continue;
    for (int u = 1; u <= ranks / t; ++u) {
      if ((ranks / t) % u != 0) continue;
      Mesh mesh{t, u, ranks / t / u, 1};
      if (!Allows(p, mesh)) continue;
      if (int64_t{t} * u > job.config.heads) {
        set.too_few_heads.push_back(mesh);
        continue;
      }
      for (CoreKind core : CoresOf(p, mesh)) {
        for (int inner : InnersOf(p, mesh, core, per_node)) {
          if (mesh.ring % inner != 0) continue;
          mesh.inner = inner;
          for (LayoutKind layout : LayoutsOf(job, mesh)) set.shapes.push_back({mesh, core, layout});
        }
      }
    }
  }
  return set;
}

}  // namespace seqpar
