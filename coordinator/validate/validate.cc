#include "coordinator/validate/validate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/job/proto.h"
#include "coordinator/validate/files.h"
#include "coordinator/validate/violations.h"

namespace seqpar {
namespace {

constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max();  // key indices are 32 bits
constexpr int64_t kMaxSize = int64_t{1} << 20;
constexpr int kMaxRanks = 1 << 16;

void CheckHead(const v1::Job& job, Violations* v) {
  if (job.name().size() > 128) v->Add("name", absl::StrCat("has ", job.name().size(), " bytes; at most 128"));
  if (!job.id().empty()) v->Add("id", "is made by the coordinator");
  if (job.state() != v1::JOB_STATE_UNSPECIFIED) v->Add("state", "is set by the coordinator");
  if (job.has_report()) v->Add("report", "is made by the coordinator");
  if (job.labels_size() > 64)
    v->Add("labels", absl::StrCat("has ", job.labels_size(), " entries; at most 64"));
  for (const auto& [key, value] : job.labels()) {
    if (key.empty() || key.size() > 63 || value.size() > 63) {
      v->Add(absl::StrCat("labels.", key), "keys have 1 to 63 bytes, values at most 63");
    }
  }
  v->Range("priority", job.priority(), -1000, 1000);
  v->Range("max_attempts", job.max_attempts(), 0, 100);
  if (!(job.deadline() >= 0) || !std::isfinite(job.deadline())) {
    v->Add("deadline", "must be a number of seconds that is not negative", "0");
  }
}

std::string NearestDivisor(int64_t of, int64_t wanted) {
  int64_t best = 1;
  for (int64_t d = 1; d <= of; ++d) {
    if (of % d == 0 && std::abs(d - wanted) < std::abs(best - wanted)) best = d;
  }
  return absl::StrCat(best);
}

void CheckHeadDim(const v1::ModelConfig& c, Violations* v) {
  const int64_t heads = c.num_attention_heads();
  if (c.has_head_dim()) {
    v->Range("config.head_dim", c.head_dim(), 1, 1024);
  } else if (heads > 0 && c.hidden_size() > 0 && c.hidden_size() % heads != 0) {
    v->Add("config.head_dim",
           absl::StrCat("must be given: hidden_size ", c.hidden_size(),
                        " is no multiple of num_attention_heads ", heads),
           absl::StrCat(std::max<int64_t>(1, c.hidden_size() / heads)));
  }
  const int64_t head_dim = c.has_head_dim() ? c.head_dim() : heads > 0 ? c.hidden_size() / heads : 0;
  if (c.has_rope_theta() && head_dim % 2 != 0) {
    v->Add("config.head_dim", absl::StrCat("is ", head_dim, "; must be even with rope_theta"),
           absl::StrCat(head_dim + 1));
  }
}

void CheckConfig(const v1::ModelConfig& c, Violations* v) {
  v->Range("config.hidden_size", c.hidden_size(), 1, kMaxSize);
  const bool heads_ok = v->Range("config.num_attention_heads", c.num_attention_heads(), 1, 4096);
  if (heads_ok && c.has_num_key_value_heads()) {
    const int64_t kv = c.num_key_value_heads();
    if (kv < 1 || c.num_attention_heads() % kv != 0) {
      v->Add("config.num_key_value_heads",
             absl::StrCat("is ", kv, "; must divide num_attention_heads ", c.num_attention_heads()),
             NearestDivisor(c.num_attention_heads(), kv));
    }
  }
  CheckHeadDim(c, v);
  if (c.mlp() == v1::MLP_NONE) {
    if (c.mlp_bias()) v->Add("config.mlp_bias", "there is no mlp", "false");
  } else {
    v->Range("config.intermediate_size", c.intermediate_size(), 1, 4 * kMaxSize);
  }
  v->Range("config.num_hidden_layers", c.num_hidden_layers(), 1, 10'000);
  if (c.has_norm_eps() && !(c.norm_eps() > 0 && c.norm_eps() < 1)) {
    v->Add("config.norm_eps", absl::StrCat("is ", c.norm_eps(), "; must be above 0 and below 1"), "1e-5");
  }
  if (c.has_rope_theta() && !(c.rope_theta() > 0 && std::isfinite(c.rope_theta()))) {
    v->Add("config.rope_theta", absl::StrCat("is ", c.rope_theta(), "; must be positive"), "10000");
  }
}

void CheckMask(const v1::Mask& mask, int64_t tokens, Violations* v) {
  const bool window = mask.kind() == v1::MASK_KIND_WINDOW;
  const auto side = [&](const char* field, bool given, int64_t value) {
    if (!given) return;
    if (!window) {
      v->Add(field, "belongs to kind window only", "kind: window");
    } else if (value < -1) {
      v->Add(field, absl::StrCat("is ", value, "; must be -1 (unlimited) or more"), "-1");
    }
  };
  side("mask.left", mask.has_left(), mask.left());
  side("mask.right", mask.has_right(), mask.right());
  if (mask.documents().empty()) return;
  int64_t sum = 0;
  for (int i = 0; i < mask.documents_size(); ++i) {
    const int64_t length = mask.documents(i);
    if (length < 1) {
      v->Add(absl::StrCat("mask.documents[", i, "]"), absl::StrCat("is ", length, "; must be at least 1"),
             "1");
      return;
    }
    sum = length > kMaxTokens - sum ? kMaxTokens : sum + length;
  }
  if (tokens > 0 && sum != tokens) {
    const int64_t last = mask.documents(mask.documents_size() - 1) + tokens - sum;
    v->Add("mask.documents", absl::StrCat("sum to ", sum, "; the input has ", tokens, " tokens"),
           last > 0 ? absl::StrCat("a last document of ", last) : "");
  }
}

void CheckSources(const v1::Job& job, const JobSpec& spec, Violations* v) {
  if (!spec.weights.given()) v->Add("weights", "needs file or seed", "{seed: 0}");
  if (!spec.input.given()) v->Add("input", "needs file or seed", "{seed: 0, tokens: 4096}");
  if (spec.input.seed) v->Range("input.tokens", job.input().tokens(), 1, kMaxTokens);
  v->Range("input.batch", job.input().batch(), 0, 65536);
  if (spec.backward() && !spec.grad_output.given()) {
    v->Add("grad_output", "needs file or seed where pass is forward_backward", "{seed: 0}");
  }
  if (!spec.backward() && spec.grad_output.given()) {
    v->Add("grad_output", "is not used by pass forward", "pass: forward_backward");
  }
}

void CheckOutput(const v1::Job& job, const JobSpec& spec, Violations* v) {
  const std::vector<std::string> names = {"hidden_states", "hidden_states.grad", "weights.grad"};
  for (int i = 0; i < job.output().tensors_size(); ++i) {
    const std::string& name = job.output().tensors(i);
    const std::string field = absl::StrCat("output.tensors[", i, "]");
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      v->Add(field, absl::StrCat("is ", name, "; must be hidden_states, hidden_states.grad or weights.grad"),
             NearestName(name, names));
    } else if (name != names[0] && !spec.backward()) {
      v->Add(field, absl::StrCat(name, " needs pass forward_backward"), "hidden_states");
    }
  }
  if (spec.output_file.empty() && (job.output().tensors_size() > 0 || job.output().overwrite())) {
    v->Add("output.file", "is missing");
  }
}

// The axes that a strategy may use.
struct StrategyAxes {
  bool tensor, ulysses, ring;
};
StrategyAxes AxesOf(StrategyKind kind) {
  switch (kind) {
    case StrategyKind::kMegatronSp:
      return {true, false, false};
    case StrategyKind::kUlysses:
      return {false, true, false};
    case StrategyKind::kRing:
    case StrategyKind::kGather:
      return {false, false, true};
    case StrategyKind::kHybrid:
      return {true, true, true};
    case StrategyKind::kAuto:
      return {false, false, false};
  }
  return {false, false, false};
}

// The nearest meshes that mean something: tensor * ulysses at most the heads, one axis lowered at a time.
std::string NearestMeshes(int tensor, int ulysses, int heads) {
  std::set<std::string> found;
  const int t = std::min(tensor, std::max(1, heads / std::max(1, std::min(ulysses, heads))));
  const int u = std::min(ulysses, std::max(1, heads / std::max(1, std::min(tensor, heads))));
  const auto add = [&](int a, int b) {
    if (a * b <= heads) found.insert(absl::StrCat("tensor: ", a, ", ulysses: ", b));
  };
  add(t, std::min(ulysses, heads));
  add(std::min(tensor, heads), u);
  std::string text;
  for (const std::string& mesh : found) absl::StrAppend(&text, text.empty() ? "" : " or ", mesh);
  return text;
}

void CheckDegrees(const JobSpec& spec, Violations* v) {
  const ParallelismSpec& p = spec.parallelism;
  const StrategyAxes axes = AxesOf(p.strategy);
  const auto degree = [&](const char* name, int value, bool used) {
    const std::string field = absl::StrCat("parallelism.", name);
    if (value == 0) return;
    if (!v->Range(field, value, 1, kMaxRanks)) return;
    if (!used && value != 1) {
      v->Add(field, absl::StrCat("is not an axis of strategy ", StrategyName(p.strategy)),
             p.strategy == StrategyKind::kAuto ? "no degrees, or a strategy" : "1, or strategy hybrid");
    }
  };
  degree("tensor", p.tensor, axes.tensor);
  degree("ulysses", p.ulysses, axes.ulysses);
  degree("ring", p.ring, axes.ring);
  const int t = std::max(1, p.tensor), u = std::max(1, p.ulysses);
  if (spec.config.heads > 0 && int64_t{t} * u > spec.config.heads) {
    const std::string heads = absl::StrCat(" heads: num_attention_heads is ", spec.config.heads);
    if (t == 1) {
      v->Add("parallelism.ulysses", absl::StrCat("is ", u, "; at most the number of", heads),
             absl::StrCat(spec.config.heads));
    } else if (u == 1) {
      v->Add("parallelism.tensor", absl::StrCat("is ", t, "; at most the number of", heads),
             absl::StrCat(spec.config.heads));
    } else {
      v->Add("parallelism",
             absl::StrCat("tensor * ulysses is ", int64_t{t} * u, "; at most the number of", heads),
             NearestMeshes(t, u, spec.config.heads));
    }
  }
  if (p.inner > 1 && (p.ring == 0 || p.ring % p.inner != 0)) {
    v->Add("parallelism.inner", absl::StrCat("is ", p.inner, "; must divide ring ", p.ring),
           p.ring > 0 ? NearestDivisor(p.ring, p.inner) : "ring must be given");
  }
  const bool gather = p.strategy == StrategyKind::kGather || p.core == CoreKind::kGather;
  if (gather && p.inner > 1) v->Add("parallelism.inner", "gather has no inner ring", "1");
  if (p.strategy == StrategyKind::kRing && p.core == CoreKind::kGather) {
    v->Add("parallelism.core", "strategy ring has core ring", "strategy: gather");
  }
}

void CheckParallelism(const v1::Job& job, const JobSpec& spec, Violations* v) {
  const v1::Parallelism& raw = job.parallelism();
  const auto positive = [&](const char* field, bool given, int value) {
    if (given && value < 1) v->Add(field, absl::StrCat("is ", value, "; must be at least 1"), "1");
  };
  positive("parallelism.tensor", raw.has_tensor(), raw.tensor());
  positive("parallelism.ulysses", raw.has_ulysses(), raw.ulysses());
  positive("parallelism.ring", raw.has_ring(), raw.ring());
  positive("parallelism.inner", raw.has_inner(), raw.inner());
  v->Range("workers.min", job.workers().min(), 0, kMaxRanks);
  v->Range("workers.max", job.workers().max(), 0, kMaxRanks);
  if (job.workers().max() > 0 && job.workers().min() > job.workers().max()) {
    v->Add("workers.max",
           absl::StrCat("is ", job.workers().max(), ", below workers.min ", job.workers().min()),
           absl::StrCat(job.workers().min()));
  }
  if (v->Has("parallelism.tensor") || v->Has("parallelism.ulysses") || v->Has("parallelism.ring")) return;
  CheckDegrees(spec, v);
  const ParallelismSpec& p = spec.parallelism;
  const StrategyAxes axes = AxesOf(p.strategy);
  const bool all_given = p.strategy != StrategyKind::kAuto && (!axes.tensor || p.tensor) &&
                         (!axes.ulysses || p.ulysses) && (!axes.ring || p.ring);
  const int64_t product = int64_t{std::max(1, p.tensor)} * std::max(1, p.ulysses) * std::max(1, p.ring);
  if (product > kMaxRanks) return;
  if (spec.max_workers > 0 && product > spec.max_workers) {
    v->Add("workers.max", absl::StrCat("is ", spec.max_workers, "; the degrees ask for ", product),
           absl::StrCat(product));
  } else if (all_given && product < spec.min_workers) {
    v->Add("workers.min", absl::StrCat("is ", spec.min_workers, "; the degrees make ", product),
           absl::StrCat(product));
  }
}

}  // namespace

absl::StatusOr<ValidatedJob> ValidateJob(const v1::Job& job, const DataRoots& roots) {
  Violations v;
  ValidatedJob result;
  CheckHead(job, &v);
  CheckConfig(job.config(), &v);
  if (!v.empty() && (v.Has("config.num_attention_heads") || v.Has("config.hidden_size"))) {
    // The rest is still judged, on the nearest legal shape, so that one answer holds everything.
    v1::Job patched = job;
    auto* c = patched.mutable_config();
    c->set_num_attention_heads(std::clamp<int64_t>(c->num_attention_heads(), 1, 4096));
    c->set_hidden_size(std::clamp<int64_t>(c->hidden_size(), 1, kMaxSize));
    result.spec = JobFromProto(patched);
  } else {
    result.spec = JobFromProto(job);
  }
  JobSpec& spec = result.spec;
  CheckSources(job, spec, &v);
  ValidateInputs(roots, job.input().tokens(), job.input().batch(), &result, &v);
  CheckMask(job.mask(), spec.tokens, &v);
  CheckOutput(job, spec, &v);
  CheckParallelism(job, spec, &v);
  v.Range("verify.rows", job.verify().rows(), 0, 4096);
  if (job.verify().has_max_error() && !(job.verify().max_error() > 0)) {
    v.Add("verify.max_error", "must be positive", spec.dtype == DType::kBF16 ? "5e-2" : "1e-4");
  }
  // Names and shapes of weights follow from the config: they are compared only where it stands.
  bool config_stands = true;
  for (const char* field : {"config.hidden_size", "config.num_attention_heads", "config.num_key_value_heads",
                            "config.head_dim", "config.intermediate_size", "config.num_hidden_layers"}) {
    config_stands = config_stands && !v.Has(field);
  }
  if (config_stands) ValidateWeights(roots, &result, &v);
  ValidateOutput(roots, &result, &v);
  SEQPAR_RETURN_IF_ERROR(v.ToStatus());
  return result;
}

}  // namespace seqpar
