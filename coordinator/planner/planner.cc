#include "coordinator/planner/planner.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status.h"
#include "common/base/units.h"
#include "coordinator/planner/cost.h"
#include "coordinator/planner/placement.h"
#include "coordinator/planner/shapes.h"

namespace seqpar {
namespace {

constexpr size_t kMaxCandidates = 5000;
constexpr size_t kBestShown = 11;
// Two predictions nearer than this are a tie: fewer devices win, then the simpler mesh.
constexpr double kTie = 0.02;

constexpr char kExceedsMemory[] = "exceeds the memory of a device";
constexpr char kTooFewHeads[] = "tensor * ulysses exceeds the heads";

struct Scored {
  Shape shape;
  Candidate candidate;
};

int AxesOf(const Mesh& m) { return (m.tensor > 1) + (m.ulysses > 1) + (m.ring > 1) + (m.inner != m.ring); }

// Simpler first: fewer devices, fewer axes, plain before striped, ring before gather.
auto Simplicity(const Scored& s) {
  const Mesh& m = s.shape.mesh;
  return std::make_tuple(m.size(), AxesOf(m), static_cast<int>(s.candidate.recompute), static_cast<int>(s.shape.layout),
                         static_cast<int>(s.shape.core), m.tensor, m.ring);
}

class Search {
 public:
  Search(const JobSpec& job, const ClusterSnapshot& cluster, const Calibration& calibration, const PlanOptions& options)
      : job_(job), cluster_(cluster), options_(options), model_(job, calibration) {}

  absl::StatusOr<PlannedJob> Run() {
    const int have = LargestGang(cluster_, options_.only_free);
    const std::vector<int> sizes = Thin(WorldSizes(job_, have));
    if (sizes.empty()) return TooFewDevices(have);
    for (int ranks : sizes) {
      const std::optional<Gang> gang = PlaceGang(cluster_, ranks, options_.only_free);
      if (gang) Evaluate(ranks, *gang);
    }
    if (feasible_.empty()) return NothingFits(sizes.back());
    std::sort(feasible_.begin(), feasible_.end(), [](const Scored& a, const Scored& b) {
      return std::make_tuple(a.candidate.prediction.step_seconds, Simplicity(a)) <
             std::make_tuple(b.candidate.prediction.step_seconds, Simplicity(b));
    });
    return Choose();
  }

 private:
  // With thousands of devices not every number of ranks is worth a look: all up to 64, then those that divide evenly
  // into a power of two or a whole number of nodes, and the largest.
  std::vector<int> Thin(std::vector<int> sizes) const {
    if (sizes.size() <= 64) return sizes;
    const int per_node = std::max(1, DevicesPerNode(cluster_));
    std::vector<int> kept;
    for (int n : sizes) {
      if (n <= 16 || (n & (n - 1)) == 0 || n == sizes.back() || n == sizes.front() ||
          (n % per_node == 0 && n / per_node <= 16)) {
        kept.push_back(n);
      }
    }
    return kept;
  }

  void Evaluate(int ranks, const Gang& gang) {
    int64_t too_few_heads = 0;
    for (const Shape& shape : ShapesOf(job_, ranks, DevicesPerNode(cluster_), &too_few_heads)) {
      Consider(shape, gang);
    }
    considered_ += too_few_heads;
    if (too_few_heads > 0) {
      Candidate nearest;
      nearest.mesh = {1, std::min(ranks, job_.config.heads), 1, 1};
      nearest.reason = absl::StrCat("num_attention_heads is ", job_.config.heads);
      Reject(kTooFewHeads, too_few_heads, nearest, -job_.config.heads);
    }
  }

  void Consider(const Shape& shape, const Gang& gang) {
    ++considered_;
    Scored scored{shape, {}};
    Candidate& c = scored.candidate;
    c.mesh = shape.mesh;
    c.core = shape.core;
    c.layout = shape.layout;
    c.strategy = StrategyOf(shape.mesh, shape.core);
    // The least recomputation that fits.
    for (Recompute recompute : {Recompute::kNone, Recompute::kAttention, Recompute::kLayer}) {
      c.recompute = recompute;
      c.prediction = model_.Predict(shape, recompute, gang);
      c.feasible = c.prediction.peak_bytes <= gang.memory_bytes;
      if (c.feasible || !job_.backward()) break;
    }
    if (c.feasible) {
      feasible_.push_back(scored);
    } else {
      c.reason = absl::StrCat("needs ", FormatBytes(c.prediction.peak_bytes), " a device, there are ",
                              FormatBytes(gang.memory_bytes));
      Reject(kExceedsMemory, 1, c, c.prediction.peak_bytes - gang.memory_bytes);
    }
    if (options_.all_candidates && all_.size() < kMaxCandidates) all_.push_back(c);
  }

  // Keeps for each reason a count and the candidate that missed by least.
  void Reject(const char* why, int64_t count, const Candidate& candidate, int64_t missed_by) {
    auto [it, fresh] = rejected_.try_emplace(why);
    it->second.rejection.reason = why;
    it->second.rejection.count += count;
    if (fresh || missed_by < it->second.missed_by) {
      it->second.rejection.nearest = candidate;
      it->second.missed_by = missed_by;
    }
  }

  absl::Status TooFewDevices(int have) const {
    const std::vector<int> sizes = WorldSizes(job_, 1 << 16);
    const int need = sizes.empty() ? std::max(1, job_.min_workers) : sizes.front();
    if (sizes.empty()) {
      return MakeError(absl::StatusCode::kFailedPrecondition, reason::kInfeasible,
                       "no number of ranks satisfies both parallelism and workers");
    }
    return MakeError(absl::StatusCode::kUnavailable, reason::kInfeasible,
                     absl::StrCat("waits for ", need, need == 1 ? " device, " : " devices, ", have,
                                  options_.only_free ? " free" : " attached"));
  }

  // Nothing fits in memory here. More devices of this kind may help, if the job's own limits allow them.
  absl::Status NothingFits(int tried) {
    const std::vector<int> sizes = WorldSizes(job_, 1 << 16);
    const std::optional<Gang> gang = PlaceGang(cluster_, tried, options_.only_free);
    const Candidate& nearest = rejected_.empty() ? Candidate() : rejected_.begin()->second.rejection.nearest;
    int larger = tried;
    while (gang && larger < sizes.back()) {
      larger = std::min(larger * 2, sizes.back());
      int64_t ignored = 0;
      const std::vector<int>::const_iterator at = std::lower_bound(sizes.begin(), sizes.end(), larger);
      for (const Shape& shape : ShapesOf(job_, *at, 0, &ignored)) {
        const Recompute least = job_.backward() ? Recompute::kLayer : Recompute::kNone;
        if (model_.PeakBytes(shape, least) > gang->memory_bytes) continue;
        return MakeError(absl::StatusCode::kUnavailable, reason::kInfeasible,
                         absl::StrCat("does not fit on ", tried, " devices of ", FormatBytes(gang->memory_bytes),
                                      "; waits for ", *at, " (", shape.mesh.ToString(), " would fit)"));
      }
      if (larger > 4096) break;
    }
    int64_t least_bytes = nearest.prediction.peak_bytes;
    std::string text = absl::StrCat("no mesh within the job's limits fits: ", nearest.mesh.ToString(), " comes nearest and ",
                                    "needs ", FormatBytes(least_bytes), " a device");
    if (gang) absl::StrAppend(&text, ", there are ", FormatBytes(gang->memory_bytes));
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kInfeasible, text);
  }

  absl::StatusOr<PlannedJob> Choose() {
    const double fastest = feasible_.front().candidate.prediction.step_seconds;
    auto best = feasible_.begin();
    for (auto it = feasible_.begin(); it != feasible_.end(); ++it) {
      if (it->candidate.prediction.step_seconds > fastest * (1 + kTie)) break;
      if (Simplicity(*it) < Simplicity(*best)) best = it;
    }
    std::rotate(feasible_.begin(), best, best + 1);
    Scored& chosen = feasible_.front();
    chosen.candidate.reason = WhyChosen(fastest);
    PlannedJob result;
    result.plan = MakePlan(chosen);
    Explanation& x = result.explanation;
    x.considered = considered_;
    x.feasible = static_cast<int64_t>(feasible_.size());
    for (size_t i = 0; i < feasible_.size() && i < kBestShown; ++i) {
      Candidate c = feasible_[i].candidate;
      if (i > 0) c.reason = WhyNot(c, chosen.candidate);
      x.best.push_back(c);
    }
    for (const auto& [why, kept] : rejected_) x.rejected.push_back(kept.rejection);
    x.all = std::move(all_);
    return result;
  }

  std::string WhyChosen(double fastest) const {
    const Candidate& c = feasible_.front().candidate;
    const Candidate* next = feasible_.size() > 1 ? &feasible_[1].candidate : nullptr;
    std::string text = absl::StrCat(StrategyName(c.strategy), " ", c.mesh.ToString());
    if (!next) return absl::StrCat(text, " is the only mesh that the job allows and that fits");
    if (c.prediction.step_seconds > fastest) {
      const double slower = 100 * (c.prediction.step_seconds / fastest - 1);
      return absl::StrCat(text, absl::StrFormat(" ties with the fastest (%.1f %% behind) and is simpler", slower));
    }
    const double ahead = 100 * (next->prediction.step_seconds / c.prediction.step_seconds - 1);
    return absl::StrCat(text, absl::StrFormat(" is predicted fastest, %.1f %% ahead of ", ahead),
                        StrategyName(next->strategy), " ", next->mesh.ToString(), " ", LayoutName(next->layout));
  }

  static std::string WhyNot(const Candidate& c, const Candidate& chosen) {
    const double slower = 100 * (c.prediction.step_seconds / chosen.prediction.step_seconds - 1);
    if (slower <= 0) return "a tie, but less simple";
    std::string text = absl::StrFormat("%.1f %% slower", slower);
    const double compute = c.prediction.compute_seconds - chosen.prediction.compute_seconds;
    const double exposed = c.prediction.communication_seconds - chosen.prediction.communication_seconds;
    absl::StrAppend(&text, exposed > compute ? ": more communication exposed" : ": its busiest rank computes more");
    return text;
  }

  Plan MakePlan(const Scored& s) {
    const Mesh& m = s.shape.mesh;
    const Gang gang = *PlaceGang(cluster_, m.size(), options_.only_free);
    const TokenLayout tokens(m, s.shape.layout, job_.tokens);
    const HeadLayout heads(m, job_.config.heads, job_.config.kv_heads);
    Plan plan;
    plan.mesh = m;
    plan.strategy = s.candidate.strategy;
    plan.core = s.shape.core;
    plan.layout = s.shape.layout;
    plan.recompute = s.candidate.recompute;
    plan.prediction = s.candidate.prediction;
    plan.reason = s.candidate.reason;
    const RingCost& ring = model_.Ring(s.shape);
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
      r.predicted_peak_bytes = model_.PeakBytesOf(s.shape, plan.recompute, at);
      r.node = cluster_.nodes[gang.devices[rank].node].name;
      r.device = gang.devices[rank].device;
      plan.ranks.push_back(std::move(r));
    }
    return plan;
  }

  struct Kept {
    Rejection rejection;
    int64_t missed_by = 0;
  };

  const JobSpec& job_;
  const ClusterSnapshot& cluster_;
  const PlanOptions options_;
  CostModel model_;
  std::vector<Scored> feasible_;
  std::vector<Candidate> all_;
  std::map<std::string, Kept> rejected_;
  int64_t considered_ = 0;
};

// The asked mesh must be able to mean something; validation says the same with field paths.
absl::Status CheckMeaning(const JobSpec& job) {
  const int64_t parts = int64_t{std::max(1, job.parallelism.tensor)} * std::max(1, job.parallelism.ulysses);
  if (parts <= job.config.heads) return absl::OkStatus();
  return InvalidInput(reason::kInvalidJob,
                      {{"parallelism", absl::StrCat("tensor * ulysses is ", parts, "; there are ", job.config.heads, " heads"),
                        absl::StrCat("tensor * ulysses: ", job.config.heads)}});
}

}  // namespace

absl::StatusOr<PlannedJob> PlanJob(const JobSpec& job, const ClusterSnapshot& cluster, const Calibration& calibration,
                                   const PlanOptions& options) {
  SEQPAR_RETURN_IF_ERROR(CheckMeaning(job));
  return Search(job, cluster, calibration, options).Run();
}

}  // namespace seqpar
