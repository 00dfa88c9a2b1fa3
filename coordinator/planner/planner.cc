#include "coordinator/planner/planner.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/base/units.h"
#include "coordinator/planner/cost.h"
#include "coordinator/planner/explain.h"
#include "coordinator/planner/placement.h"
#include "coordinator/planner/search.h"
#include "coordinator/planner/shapes.h"

namespace seqpar {
namespace {

// How far the search for a number of devices that would fit goes.
constexpr int kMostDevicesSuggested = 4096;

absl::Status Infeasible(const std::string& message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kInfeasible, message);
}

absl::Status Waits(const std::string& message) {
  return MakeError(absl::StatusCode::kUnavailable, reason::kTooFewDevices, message);
}

std::string Devices(int n) { return absl::StrCat(n, n == 1 ? " device" : " devices"); }

// The asked mesh must be able to mean something; validation says the same with field paths.
absl::Status CheckMeaning(const JobSpec& job) {
  const int64_t tensor = std::max(1, job.parallelism.tensor), ulysses = std::max(1, job.parallelism.ulysses);
  const int heads = job.config.heads;
  if (tensor * ulysses <= heads) return absl::OkStatus();
  std::string nearest;
  const auto add = [&](int64_t t, int64_t u) {
    const std::string mesh = absl::StrCat("tensor ", t, " x ulysses ", u);
    if (nearest.find(mesh) == std::string::npos) {
      absl::StrAppend(&nearest, nearest.empty() ? "" : " or ", mesh);
    }
  };
  add(std::min<int64_t>(tensor, heads), std::max<int64_t>(1, heads / std::min<int64_t>(tensor, heads)));
  add(std::max<int64_t>(1, heads / std::min<int64_t>(ulysses, heads)), std::min<int64_t>(ulysses, heads));
  return InvalidInput(reason::kInvalidJob,
                      {{"parallelism",
                        absl::StrCat("tensor x ulysses is ", tensor * ulysses, ", there are ", heads,
                                     heads == 1 ? " head" : " heads"),
                        nearest}});
}

// A small mesh of the given sizes that fits on devices like those of `gang` with all recomputation; none up
// to kMostDevicesSuggested. Sizes grow by half and by whole nodes: a suggestion, not a proof of the least.
std::optional<Mesh> SmallMeshThatFits(const JobSpec& job, const std::vector<int>& sizes, int above,
                                      const Gang& gang, CostModel* model) {
  const Recompute most = job.backward() ? job.recompute.value_or(Recompute::kLayer) : Recompute::kNone;
  const int node = std::max(1, gang.per_node);
  for (int tried = above; tried < std::min(sizes.back(), kMostDevicesSuggested);) {
    const int next = (std::max(tried + 1, tried + tried / 2) + node - 1) / node * node;
    const auto at = std::lower_bound(sizes.begin(), sizes.end(), next);
    tried = at == sizes.end() ? sizes.back() : *at;
    for (const Shape& shape : ShapesOf(job, tried, gang.per_node).shapes) {
      if (model->PeakBytes(shape, most, gang.device_kind, nullptr) <= gang.usable_bytes()) return shape.mesh;
    }
  }
  return std::nullopt;
}

// Nothing fits on these devices: more of them may help within the job's limits (it waits), or beyond (it is
// refused).
absl::Status WhyNothingFits(const JobSpec& job, const Gang& gang, const std::vector<int>& allowed,
                            const SearchResult& result, CostModel* model) {
  const Rejection* memory = nullptr;
  for (const Rejection& rejection : result.rejections) {
    if (rejection.reason == kExceedsMemory) memory = &rejection;
  }
  const int tried = static_cast<int>(gang.devices.size());
  const std::string each = FormatBytes(static_cast<double>(gang.usable_bytes()));
  const std::optional<Mesh> more = SmallMeshThatFits(job, allowed, tried, gang, model);
  if (memory == nullptr) {
    if (more) return Waits(absl::StrCat("waits for ", Devices(more->size()), ", there are ", tried));
    if (result.rejections.empty()) {
      return Infeasible(absl::StrCat("strategy ", StrategyName(job.parallelism.strategy),
                                     " has no mesh of at most ", Devices(tried), " with these degrees"));
    }
    const Candidate& nearest = result.rejections.front().nearest;
    return Infeasible(absl::StrCat("strategy ", StrategyName(job.parallelism.strategy), " has no mesh of ",
                                   Devices(tried), " for these heads: ", nearest.mesh.ToString(), " ",
                                   nearest.reason, "; nearest: strategy ring or gather"));
  }
  const Candidate& nearest = memory->nearest;
  const std::string needs = FormatBytes(static_cast<double>(nearest.prediction.peak_bytes));
  if (more) {
    return Waits(absl::StrCat("does not fit on ", Devices(tried), " with ", each, " to use each; waits for ",
                              Devices(more->size()), ", where ", more->ToString(), " would fit"));
  }
  std::string text = absl::StrCat("no mesh within the job's limits fits: ", NameOf(nearest),
                                  " comes nearest and needs ", needs, " a device, ", each, " may be used");
  JobSpec wider = job;
  wider.max_workers = 0;
  wider.parallelism = {};
  wider.recompute.reset();
  const std::optional<Mesh> beyond = SmallMeshThatFits(wider, WorldSizes(wider, kMaxRanks), 0, gang, model);
  if (beyond) {
    absl::StrAppend(&text, "; without the limits ", beyond->ToString(), " on ", Devices(beyond->size()),
                    " would fit");
  } else {
    absl::StrAppend(&text, "; nor does any that was tried on up to ", Devices(kMostDevicesSuggested),
                    " like these");
  }
  return Infeasible(text);
}

Plan MakePlan(const JobSpec& job, const ClusterSnapshot& cluster, const PlanOptions& options,
              const Scored& chosen, CostModel* model) {
  const Mesh& m = chosen.shape.mesh;
  DeviceFilter filter = FilterOf(job, options.only_free);
  filter.least_memory = chosen.least_memory;
  filter.kind = chosen.kind;
  const std::optional<Gang> gang = PlaceGang(cluster, m.size(), filter);
  SEQPAR_CHECK(gang.has_value());
  const TokenLayout tokens(m, chosen.shape.layout, job.tokens);
  const HeadLayout heads(m, job.config.heads, job.config.kv_heads);
  const RingCost& ring = model->Ring(chosen.shape, &*gang);
  Plan plan;
  plan.mesh = m;
  plan.strategy = chosen.candidate.strategy;
  plan.core = chosen.shape.core;
  plan.layout = chosen.shape.layout;
  plan.recompute = chosen.candidate.recompute;
  plan.prediction = chosen.candidate.prediction;
  plan.node_kind = gang->node_kind;
  for (int rank = 0; rank < m.size(); ++rank) {
    const MeshCoord at = m.CoordOf(rank);
    RankPlan r;
    r.rank = rank;
    r.tokens = tokens.OfRank(rank);
    r.heads = heads.Of(at.tensor, at.ulysses);
    r.tensor_heads = heads.OfTensor(at.tensor);
    r.tensor_group = m.TensorGroup(rank);
    r.ulysses_group = m.UlyssesGroup(rank);
    r.ring_group = m.RingGroup(rank);
    r.ring_next = r.ring_group[(at.ring + 1) % m.ring];
    r.ring_previous = r.ring_group[(at.ring + m.ring - 1) % m.ring];
    r.attended_pairs = ring.pairs[at.ring];
    r.predicted_peak_bytes =
        model->PeakBytesOf(chosen.shape, plan.recompute, gang->device_kind, at, heads, ring);
    r.node = cluster.nodes[gang->devices[rank].node].name;
    r.device = gang->devices[rank].device;
    plan.ranks.push_back(std::move(r));
  }
  return plan;
}

absl::StatusOr<PlannedJob> PlanOn(const JobSpec& job, const ClusterSnapshot& cluster,
                                  const Calibration& calibration, const PlanOptions& options) {
  const std::vector<int> allowed = WorldSizes(job, kMaxRanks);
  if (allowed.empty()) return Infeasible(WhyNoWorldSize(job));
  const DeviceFilter filter = FilterOf(job, options.only_free);
  const int have = LargestGang(cluster, filter);
  const std::vector<int> possible(allowed.begin(), std::upper_bound(allowed.begin(), allowed.end(), have));
  if (possible.empty()) {
    return Waits(absl::StrCat("waits for ", DevicesOf(allowed.front(), filter), ", ", have,
                              options.only_free ? " free" : " attached", WhyTooFew(cluster, filter)));
  }
  const std::optional<Gang> largest = PlaceGang(cluster, possible.back(), filter);
  SEQPAR_CHECK(largest.has_value());
  CostModel model(job, calibration);
  const SearchResult result =
      SearchShapes(job, cluster, options, SizesWorthTrying(possible, largest->per_node), &model);
  if (result.feasible.empty()) return WhyNothingFits(job, *largest, allowed, result, &model);
  PlannedJob planned;
  planned.plan = MakePlan(job, cluster, options, result.feasible.front(), &model);
  planned.plan.reason = WhyChosen(job, result);
  planned.explanation = MakeExplanation(job, result, options.all_candidates);
  return planned;
}

// INFEASIBLE on the nodes that take ranks, but not on all that are known: those may come back.
absl::Status WaitsForOtherNodes(const JobSpec& job, const ClusterSnapshot& cluster,
                                const Calibration& calibration, const absl::Status& infeasible) {
  ClusterSnapshot all = cluster;
  std::string others;
  const auto add = [&](const std::string& name) {
    absl::StrAppend(&others, others.empty() ? "" : ", ", name);
  };
  for (NodeSnapshot& node : all.nodes) {
    if (!node.ready) add(node.name);
    for (const auto& entry : node.set_aside) {
      if (node.ready) add(absl::StrCat(node.name, "/", entry.first));
    }
    node.ready = true;
    node.set_aside.clear();
  }
  if (others.empty()) return infeasible;
  const absl::Status later = PlanOn(job, all, calibration, {}).status();
  if (!later.ok() && !absl::IsUnavailable(later)) return infeasible;
  return Waits(absl::StrCat("waits for nodes that take no ranks now (", others, "): ", infeasible.message()));
}

}  // namespace

absl::StatusOr<PlannedJob> PlanJob(const JobSpec& job, const ClusterSnapshot& cluster,
                                   const Calibration& calibration, const PlanOptions& options) {
  SEQPAR_RETURN_IF_ERROR(CheckMeaning(job));
  absl::StatusOr<PlannedJob> planned = PlanOn(job, cluster, calibration, options);
  if (planned.ok() || !absl::IsFailedPrecondition(planned.status())) return planned;
  if (options.only_free) {
    // Devices that are busy now may be larger than those that are free.
    const absl::Status later = PlanOn(job, cluster, calibration, {}).status();
    if (later.ok())
      return Waits(absl::StrCat("waits for devices that are busy: ", planned.status().message()));
    if (!absl::IsFailedPrecondition(later)) return later;
    planned = later;
  }
  return WaitsForOtherNodes(job, cluster, calibration, planned.status());
}

}  // namespace seqpar
