#include "coordinator/planner/search.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/attention/strategies.h"
#include "common/base/units.h"
#include "coordinator/planner/placement.h"

namespace seqpar {
namespace {

// Simpler first: fewer devices, fewer axes, no recomputation, contiguous before zigzag before striped, ring
// before gather.
auto Simplicity(const Scored& s) {
  const Mesh& m = s.shape.mesh;
  const int axes = (m.tensor > 1) + (m.ulysses > 1) + (m.ring > 1) + (m.inner != m.ring);
  return std::make_tuple(m.size(), axes, static_cast<int>(s.candidate.recompute),
                         static_cast<int>(s.shape.layout), static_cast<int>(s.shape.core), m.tensor, m.ring,
                         m.inner);
}

bool Faster(const Scored& a, const Scored& b) {
  const double left = a.candidate.prediction.step_seconds, right = b.candidate.prediction.step_seconds;
  return left != right ? left < right : Simplicity(a) < Simplicity(b);
}

// Puts the simplest of those that tie with the fastest first.
void PutChosenFirst(std::vector<Scored>* feasible) {
  std::sort(feasible->begin(), feasible->end(), Faster);
  const double limit = feasible->front().candidate.prediction.step_seconds * (1 + kTie);
  auto best = feasible->begin();
  for (auto it = feasible->begin(); it != feasible->end(); ++it) {
    if (it->candidate.prediction.step_seconds > limit) break;
    if (Simplicity(*it) < Simplicity(*best)) best = it;
  }
  std::rotate(feasible->begin(), best, best + 1);
}

// Counts rejections by reason and remembers the one that missed by least.
class Rejections {
 public:
  void Add(const char* why, const Candidate& candidate, int64_t missed_by) {
    auto [it, fresh] = kept_.try_emplace(why);
    Kept& kept = it->second;
    kept.rejection.reason = why;
    ++kept.rejection.count;
    if (fresh || missed_by < kept.missed_by) {
      kept.rejection.nearest = candidate;
      kept.missed_by = missed_by;
    }
  }
  std::vector<Rejection> Take() {
    std::vector<Rejection> list;
    for (auto& entry : kept_) list.push_back(std::move(entry.second.rejection));
    return list;
  }

 private:
  struct Kept {
    Rejection rejection;
    int64_t missed_by = 0;
  };
  std::map<std::string, Kept> kept_;
};

// A gang, and what its devices were asked to be.
struct SizedGang {
  DeviceFilter filter;
  Gang gang;
};

// What devices a gang may be of, and their memory sizes.
struct Choice {
  DeviceFilter filter;  // of one kind
  std::vector<int64_t> memory_sizes;
};

std::vector<Choice> ChoicesOf(const ClusterSnapshot& cluster, const DeviceFilter& filter) {
  std::vector<Choice> choices;
  for (const std::string& kind : KindsOf(cluster, filter)) {
    Choice choice{filter, {}};
    choice.filter.kind = kind;
    choice.memory_sizes = MemorySizes(cluster, choice.filter);
    choices.push_back(std::move(choice));
  }
  return choices;
}

// Of each kind the gang of any devices, and where devices differ in memory, those of larger ones only; the
// kind with the fastest slowest member first.
std::vector<SizedGang> GangsOf(const ClusterSnapshot& cluster, int ranks,
                               const std::vector<Choice>& choices) {
  std::vector<std::vector<SizedGang>> kinds;
  for (const Choice& choice : choices) {
    std::vector<SizedGang> gangs;
    for (int64_t least : choice.memory_sizes) {
      DeviceFilter filter = choice.filter;
      filter.least_memory = least;
      std::optional<Gang> gang = PlaceGang(cluster, ranks, filter);
      if (!gang) break;
      if (!gangs.empty() && gangs.back().gang.memory_bytes == gang->memory_bytes) continue;
      gangs.push_back({std::move(filter), std::move(*gang)});
    }
    if (!gangs.empty()) kinds.push_back(std::move(gangs));
  }
  std::stable_sort(kinds.begin(), kinds.end(), [](const auto& a, const auto& b) {
    return a.front().gang.rates.gemm_flops > b.front().gang.rates.gemm_flops;
  });
  std::vector<SizedGang> all;
  for (std::vector<SizedGang>& gangs : kinds) {
    std::move(gangs.begin(), gangs.end(), std::back_inserter(all));
  }
  return all;
}

// What the job leaves open: all of a group takes more time and less memory than any of the group before.
std::vector<std::vector<Recompute>> RecomputesOf(const JobSpec& job) {
  if (!job.backward()) return {{Recompute::kNone}};
  if (job.recompute) return {{*job.recompute}};
  if (job.config.mlp == MlpKind::kNone) return {{Recompute::kNone}, {Recompute::kAttention}};
  return {{Recompute::kNone}, {Recompute::kMlp, Recompute::kAttention}, {Recompute::kLayer}};
}

// Predicts a shape with the recomputation that costs least of what fits, or where nothing fits with the most.
Scored JudgeOn(const JobSpec& job, const Shape& shape, const SizedGang& sized, CostModel* model) {
  const Gang& gang = sized.gang;
  Scored scored{shape,
                {},
                gang.usable_bytes(),
                sized.filter.least_memory,
                sized.filter.kind,
                gang.network,
                gang.network_from};
  Candidate& c = scored.candidate;
  c.mesh = shape.mesh;
  c.core = shape.core;
  c.layout = shape.layout;
  c.strategy = StrategyOfMesh(shape.mesh, shape.core);
  for (const std::vector<Recompute>& group : RecomputesOf(job)) {
    int64_t peak = 0;
    for (const Recompute recompute : group) {
      peak = model->PeakBytes(shape, recompute, gang.device_kind, &gang);
      if (peak > gang.usable_bytes()) continue;
      const Prediction prediction = model->Predict(shape, recompute, peak, gang);
      if (c.feasible && c.prediction.step_seconds <= prediction.step_seconds) continue;
      c.feasible = true;
      c.recompute = recompute;
      c.prediction = prediction;
    }
    if (c.feasible) return scored;
    c.recompute = group.back();
    c.prediction.peak_bytes = peak;
  }
  c.prediction = model->Predict(shape, c.recompute, c.prediction.peak_bytes, gang);
  return scored;
}

// On the gang where it is fastest; where none fits, on the one with most memory.
Scored Judge(const JobSpec& job, const Shape& shape, const std::vector<SizedGang>& gangs, CostModel* model) {
  Scored best = JudgeOn(job, shape, gangs.front(), model);
  for (size_t i = 1; i < gangs.size(); ++i) {
    Scored other = JudgeOn(job, shape, gangs[i], model);
    const Candidate &a = other.candidate, &b = best.candidate;
    const bool faster = a.prediction.step_seconds < b.prediction.step_seconds;
    const bool larger = other.usable_bytes > best.usable_bytes;
    if (b.feasible ? a.feasible && faster : a.feasible || larger) best = std::move(other);
  }
  return best;
}

}  // namespace

SearchResult SearchShapes(const JobSpec& job, const ClusterSnapshot& cluster, const PlanOptions& options,
                          const std::vector<int>& sizes, CostModel* model) {
  SearchResult result;
  Rejections rejections;
  const auto reject = [&](const char* why, Scored scored, int64_t missed_by) {
    rejections.Add(why, scored.candidate, missed_by);
    result.rejected.push_back(std::move(scored));
  };
  const DeviceFilter filter = FilterOf(job, options.only_free);
  const std::vector<Choice> choices = ChoicesOf(cluster, filter);
  for (const Choice& choice : choices) result.kinds.push_back(choice.filter.kind);
  if (options.first_that_fits && sizes.size() > 1) {  // most likely on the most devices
    SearchResult most = SearchShapes(job, cluster, options, {sizes.back()}, model);
    if (!most.feasible.empty()) return most;
  }
  for (int ranks : sizes) {
    const std::vector<SizedGang> gangs = GangsOf(cluster, ranks, choices);
    if (gangs.empty()) continue;
    const Gang& gang = gangs.front().gang;
    const ShapeSet set = ShapesOf(job, ranks, gang.per_node);
    result.considered += static_cast<int64_t>(set.shapes.size() + set.too_few_heads.size());
    for (const Mesh& mesh : set.too_few_heads) {
      Scored scored{{mesh}, {}, gang.usable_bytes()};
      scored.candidate.mesh = mesh;
      scored.candidate.strategy = StrategyOfMesh(mesh, CoreKind::kRing);
      const int64_t parts = int64_t{mesh.tensor} * mesh.ulysses;
      scored.candidate.reason = absl::StrCat(
          "cuts ", job.config.heads, job.config.heads == 1 ? " head" : " heads", " into ", parts, " parts");
      reject(kTooFewHeads, std::move(scored), parts - job.config.heads);
    }
    for (const Shape& shape : set.shapes) {
      Scored scored = Judge(job, shape, gangs, model);
      if (scored.candidate.feasible) {
        result.feasible.push_back(std::move(scored));
        if (options.first_that_fits) return result;
        continue;
      }
      const int64_t peak = scored.candidate.prediction.peak_bytes;
      scored.candidate.reason =
          absl::StrCat("needs ", FormatBytes(static_cast<double>(peak)), " a device, ",
                       FormatBytes(static_cast<double>(scored.usable_bytes)), " may be used");
      const int64_t missed_by = peak - scored.usable_bytes;
      reject(kExceedsMemory, std::move(scored), missed_by);
    }
  }
  if (!result.feasible.empty()) PutChosenFirst(&result.feasible);
  result.rejections = rejections.Take();
  return result;
}

std::vector<int> SizesWorthTrying(std::vector<int> sizes, int per_node) {
  if (sizes.size() <= 64) return sizes;
  std::vector<int> kept;
  for (int n : sizes) {
    const bool whole_nodes = per_node > 0 && n % per_node == 0 && n / per_node <= 16;
    const bool end = n == sizes.front() || n == sizes.back();
    if (n <= 16 || (n & (n - 1)) == 0 || whole_nodes || end) kept.push_back(n);
  }
  return kept;
}

}  // namespace seqpar
