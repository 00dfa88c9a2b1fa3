#include "coordinator/validate/parallelism.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/attention/strategies.h"

namespace seqpar {
namespace {

constexpr int kMaxRanks = 1 << 16;

struct Axes {
  bool tensor, ulysses, ring;
};

// The axes whose degrees the job may give: none where the planner chooses the strategy.
Axes AxesOf(StrategyKind kind) {
  if (kind == StrategyKind::kAuto) return {false, false, false};
  const Strategy& strategy = StrategyOf(kind);
  return {strategy.tensor, strategy.ulysses, strategy.ring};
}

// The nearest meshes that mean something: tensor * ulysses at most the heads, one axis lowered at a time.
std::string NearestMeshes(int tensor, int ulysses, int heads) {
  const int tensor_kept = std::min(tensor, heads), ulysses_kept = std::min(ulysses, heads);
  const std::string first = absl::StrCat("tensor: ", tensor_kept, ", ulysses: ", heads / tensor_kept);
  const std::string second = absl::StrCat("tensor: ", heads / ulysses_kept, ", ulysses: ", ulysses_kept);
  return first == second ? first : absl::StrCat(first, " or ", second);
}

// True where every degree is a positive number of an axis that the strategy has.
bool CheckDegrees(const v1::Parallelism& asked, StrategyKind kind, Violations* v) {
  const Axes axes = AxesOf(kind);
  bool legal = true;
  const auto check = [&](const char* field, bool given, int value, bool used) {
    if (!given) return;
    if (!v->Range(field, value, 1, kMaxRanks)) {
      legal = false;
    } else if (!used && value != 1) {
      legal = false;
      v->Add(field, absl::StrCat("is not an axis of strategy ", StrategyName(kind)),
             kind == StrategyKind::kAuto ? "a strategy, or no degrees" : "1, or strategy: hybrid");
    }
  };
  check("parallelism.tensor", asked.has_tensor(), asked.tensor(), axes.tensor);
  check("parallelism.ulysses", asked.has_ulysses(), asked.ulysses(), axes.ulysses);
  check("parallelism.ring", asked.has_ring(), asked.ring(), axes.ring);
  return legal;
}

void CheckHeads(const ParallelismSpec& p, int heads, Violations* v) {
  const int t = std::max(1, p.tensor), u = std::max(1, p.ulysses);
  if (int64_t{t} * u <= heads) return;
  const std::string have = absl::StrCat("; at most the number of heads: num_attention_heads is ", heads);
  if (t == 1) {
    v->Add("parallelism.ulysses", absl::StrCat("is ", u, have), absl::StrCat(heads));
  } else if (u == 1) {
    v->Add("parallelism.tensor", absl::StrCat("is ", t, have), absl::StrCat(heads));
  } else {
    v->Add("parallelism", absl::StrCat("tensor * ulysses is ", int64_t{t} * u, have),
           NearestMeshes(t, u, heads));
  }
}

void CheckInnerAndCore(const v1::Parallelism& asked, const ParallelismSpec& p, Violations* v) {
  if (asked.has_inner() && v->Range("parallelism.inner", asked.inner(), 1, kMaxRanks) && p.inner > 1) {
    if (p.strategy == StrategyKind::kGather || p.core == CoreKind::kGather) {
      v->Add("parallelism.inner", "gather has no inner ring", "1");
    } else if (!AxesOf(p.strategy).ring) {
      v->Add("parallelism.inner",
             absl::StrCat("strategy ", StrategyName(p.strategy), " has no ring to divide"),
             p.strategy == StrategyKind::kAuto ? "strategy: ring, with its degree" : "1");
    } else if (p.ring == 0) {
      v->Add("parallelism.inner", "needs the degree of the ring that it divides",
             absl::StrCat("ring: ", p.inner));
    } else if (p.ring % p.inner != 0) {
      v->Add("parallelism.inner", absl::StrCat("is ", p.inner, "; must divide ring ", p.ring),
             absl::StrCat(NearestDivisor(p.ring, p.inner)));
    }
  }
  // Ring is the default, which a job that was written out says everywhere.
  if (p.core != CoreKind::kGather || p.strategy == StrategyKind::kHybrid ||
      p.strategy == StrategyKind::kGather)
    return;
  v->Add("parallelism.core",
         absl::StrCat("is gather; strategy ", StrategyName(p.strategy), " does not take it"),
         "strategy: gather, or hybrid");
}

// A hybrid has two axes above 1: what the job fixes at 1 must leave two. All three are the job's to say.
void CheckHybridAxes(const ParallelismSpec& p, Violations* v) {
  if (p.strategy != StrategyKind::kHybrid) return;
  const int fixed = (p.tensor == 1) + (p.ulysses == 1) + (p.ring == 1);
  const bool all = p.tensor > 0 && p.ulysses > 0 && p.ring > 0;
  if (fixed < 2 || all) return;
  const char* left = p.tensor == 0 ? "tensor" : p.ulysses == 0 ? "ulysses" : "ring";
  const StrategyKind alone = p.tensor == 0    ? StrategyKind::kMegatronSp
                             : p.ulysses == 0 ? StrategyKind::kUlysses
                                              : StrategyKind::kRing;
  v->Add("parallelism.strategy",
         absl::StrCat("hybrid takes two axes above 1, and the degrees of 1 leave ", left, " alone"),
         StrategyName(alone));
}

// The degrees and the limits of `workers` must leave a number of ranks.
void CheckWorkersFit(const JobSpec& spec, Violations* v) {
  const ParallelismSpec& p = spec.parallelism;
  const Axes axes = AxesOf(p.strategy);
  const bool all_given = p.strategy != StrategyKind::kAuto && (!axes.tensor || p.tensor > 0) &&
                         (!axes.ulysses || p.ulysses > 0) && (!axes.ring || p.ring > 0);
  const int64_t product = int64_t{std::max(1, p.tensor)} * std::max(1, p.ulysses) * std::max(1, p.ring);
  if (product > kMaxRanks) {
    v->Add("parallelism", absl::StrCat("the degrees ask for ", product, " ranks; at most ", kMaxRanks));
  } else if (spec.max_workers > 0 && product > spec.max_workers) {
    v->Add("workers.max", absl::StrCat("is ", spec.max_workers, "; the degrees ask for ", product),
           absl::StrCat(product));
  } else if (all_given && product < spec.min_workers) {
    v->Add("workers.min", absl::StrCat("is ", spec.min_workers, "; the degrees make ", product),
           absl::StrCat(product));
  } else if (!all_given && p.strategy != StrategyKind::kAuto && !axes.ring &&
             spec.min_workers > spec.config.heads) {
    v->Add("workers.min",
           absl::StrCat("is ", spec.min_workers, "; strategy ", StrategyName(p.strategy),
                        " takes at most as many ranks as heads: num_attention_heads is ", spec.config.heads),
           absl::StrCat(spec.config.heads));
  }
}

}  // namespace

int64_t NearestDivisor(int64_t of, int64_t wanted) {
  wanted = std::clamp<int64_t>(wanted, 0, of);  // as near, and distances stay within their type
  int64_t best = 1;
  for (int64_t d = 1; d <= of; ++d) {
    if (of % d == 0 && std::abs(d - wanted) < std::abs(best - wanted)) best = d;
  }
  return best;
}

void CheckParallelism(const v1::Job& job, const JobSpec& spec, Violations* v) {
  const bool min_legal = v->Range("workers.min", job.workers().min(), 0, kMaxRanks);
  bool workers_legal = v->Range("workers.max", job.workers().max(), 0, kMaxRanks) && min_legal;
  if (workers_legal && job.workers().max() > 0 && job.workers().min() > job.workers().max()) {
    workers_legal = false;
    v->Add("workers.max",
           absl::StrCat("is ", job.workers().max(), ", below workers.min ", job.workers().min()),
           absl::StrCat(job.workers().min()));
  }
  if (v->Unread("parallelism")) return;  // its fields are judged by one another
  CheckInnerAndCore(job.parallelism(), spec.parallelism, v);
  if (!CheckDegrees(job.parallelism(), spec.parallelism.strategy, v)) return;
  CheckHybridAxes(spec.parallelism, v);
  if (!v->Has("config.num_attention_heads")) CheckHeads(spec.parallelism, spec.config.heads, v);
  if (workers_legal && !v->Has("config.num_attention_heads")) CheckWorkersFit(spec, v);
}

}  // namespace seqpar
