#include "coordinator/validate/validate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/job/proto.h"
#include "coordinator/validate/files.h"
#include "coordinator/validate/parallelism.h"
#include "coordinator/validate/violations.h"
#include "coordinator/validate/wire.h"

namespace seqpar {
namespace {

constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max();  // key indices are 32 bits
constexpr int64_t kMaxSize = int64_t{1} << 20;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxLayers = 10'000;
// Of an activation: its bytes must stay far from the end of 64 bits.
constexpr double kMaxElements = 1e15;

bool IsControl(char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); }

// Names and labels stand in tables and logs, a line each.
bool IsOneLine(const std::string& text) { return std::none_of(text.begin(), text.end(), IsControl); }

std::string WithoutControls(std::string text) {
  text.erase(std::remove_if(text.begin(), text.end(), IsControl), text.end());
  return text;
}

void CheckLabels(const std::string& field, const google::protobuf::Map<std::string, std::string>& given,
                 Violations* v) {
  if (given.size() > 64) v->Add(field, absl::StrCat("has ", given.size(), " entries; at most 64"));
  const std::map<std::string, std::string> labels(given.begin(), given.end());  // in order
  for (const auto& [key, value] : labels) {
    if (key.empty() || key.size() > kLabelBytesMax || value.size() > kLabelBytesMax) {
      v->Add(absl::StrCat(field, ".", key), "keys have 1 to 63 bytes, values at most 63",
             key.empty()
                 ? ""
                 : absl::StrCat(key.substr(0, kLabelBytesMax), ": ", value.substr(0, kLabelBytesMax)));
    } else if (!IsOneLine(key) || !IsOneLine(value)) {
      v->Add(absl::StrCat(field, ".", key), "holds a control character, such as a line break",
             absl::StrCat(WithoutControls(key), ": ", WithoutControls(value)));
    }
  }
}

void CheckHead(const v1::Job& job, Violations* v) {
  if (job.name().size() > 128) v->Add("name", absl::StrCat("has ", job.name().size(), " bytes; at most 128"));
  if (!IsOneLine(job.name())) {
    v->Add("name", "holds a control character, such as a line break", WithoutControls(job.name()));
  }
  CheckLabels("labels", job.labels(), v);
  CheckLabels("devices.selector", job.devices().selector(), v);
  v->Range("priority", job.priority(), -1000, 1000);
  v->Range("max_attempts", job.max_attempts(), 0, 100);
  if (!(job.deadline() >= 0) || !std::isfinite(job.deadline())) {
    v->Add("deadline", "must be a number of seconds that is not negative", "0");
  }
}

void CheckHeadDim(const v1::ModelConfig& c, Violations* v) {
  const int64_t heads = c.num_attention_heads();
  const int64_t head_dim = c.has_head_dim() ? c.head_dim() : heads > 0 ? c.hidden_size() / heads : 0;
  if (!c.has_head_dim() && heads > 0 && c.hidden_size() > 0 && c.hidden_size() % heads != 0) {
    const int64_t nearest = std::max<int64_t>(1, head_dim);
    v->Add("config.head_dim",
           absl::StrCat("must be given: hidden_size ", c.hidden_size(),
                        " is no multiple of num_attention_heads ", heads),
           absl::StrCat(c.has_rope_theta() ? nearest + nearest % 2 : nearest));
    return;
  }
  if (c.has_head_dim() || head_dim > kMaxHeadDim) {
    v->Range("config.head_dim", head_dim, 1, kMaxHeadDim);
  }
  if (c.has_rope_theta() && head_dim % 2 != 0 && head_dim > 0 && head_dim <= kMaxHeadDim) {
    v->Add("config.head_dim", absl::StrCat("is ", head_dim, "; must be even with rope_theta"),
           absl::StrCat(head_dim + 1));
  }
}

void CheckConfig(const v1::ModelConfig& c, Violations* v) {
  const bool hidden_ok = v->Range("config.hidden_size", c.hidden_size(), 1, kMaxSize);
  const bool heads_ok = v->Range("config.num_attention_heads", c.num_attention_heads(), 1, kMaxHeads);
  if (heads_ok && c.has_num_key_value_heads()) {
    const int64_t kv = c.num_key_value_heads();
    if (kv < 1 || c.num_attention_heads() % kv != 0) {
      v->Add("config.num_key_value_heads",
             absl::StrCat("is ", kv, "; must divide num_attention_heads ", c.num_attention_heads()),
             absl::StrCat(NearestDivisor(c.num_attention_heads(), kv)));
    }
  }
  if (c.has_head_dim() || (hidden_ok && heads_ok)) CheckHeadDim(c, v);
  if (c.mlp() == v1::MLP_NONE) {
    if (c.mlp_bias()) v->Add("config.mlp_bias", "there is no mlp", "false");
  } else if (!v->Unread("config.mlp")) {
    v->Range("config.intermediate_size", c.intermediate_size(), 1, 4 * kMaxSize);
  }
  v->Range("config.num_hidden_layers", c.num_hidden_layers(), 1, kMaxLayers);
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
    if (!given || v->Unread("mask.kind")) return;
    if (!window) {
      if (value == -1) return;  // the default, written out
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
    // One above the most that an input may have stands for all that is more.
    sum = length > kMaxTokens - sum ? kMaxTokens + 1 : sum + length;
    if (sum > kMaxTokens) break;
  }
  if (tokens > 0 && tokens <= kMaxTokens && sum != tokens) {  // else what is wrong is their number
    const int64_t last = sum > kMaxTokens ? 0 : mask.documents(mask.documents_size() - 1) + tokens - sum;
    v->Add("mask.documents",
           absl::StrCat("sum to ", sum > kMaxTokens ? "more than " : "", std::min(sum, kMaxTokens),
                        "; the input has ", tokens, " tokens"),
           last > 0 ? absl::StrCat("a last document of ", last) : "");
  }
}

void CheckSources(const v1::Job& job, const JobSpec& spec, Violations* v) {
  if (!spec.weights.given()) v->Add("weights", "needs file or seed", "{seed: 0}");
  if (!spec.input.given()) v->Add("input", "needs file or seed", "{seed: 0, tokens: 4096}");
  if (spec.input.seed) v->Range("input.tokens", job.input().tokens(), 1, kMaxTokens);
  v->Range("input.batch", job.input().batch(), 0, 65536);
  if (v->Unread("pass")) return;
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
    } else if (name != names[0] && !spec.backward() && !v->Unread("pass")) {
      v->Add(field, absl::StrCat(name, " needs pass forward_backward"), "hidden_states");
    }
  }
  if (spec.output_file.empty() && (job.output().tensors_size() > 0 || job.output().overwrite())) {
    v->Add("output.file", "is missing");
  }
}

void CheckSize(const JobSpec& spec, Violations* v) {
  // A row of the widest activation: the residual stream, all queries, the inside of the MLP.
  const ModelConfig& c = spec.config;
  const std::pair<double, const char*> widest =
      std::max({std::pair(static_cast<double>(c.hidden_size), "hidden_size"),
                std::pair(static_cast<double>(c.heads) * static_cast<double>(c.head_dim),
                          "num_attention_heads * head_dim"),
                std::pair(c.mlp == MlpKind::kNone ? 0 : static_cast<double>(c.intermediate_size),
                          "intermediate_size")},
               [](const auto& a, const auto& b) { return a.first < b.first; });
  const double elements = static_cast<double>(spec.batch) * static_cast<double>(spec.tokens) * widest.first;
  if (elements <= kMaxElements) return;
  const double tokens = kMaxElements / static_cast<double>(spec.batch) / widest.first;
  v->Add("input.tokens",
         absl::StrCat("batch * tokens * ", widest.second, " is ", elements, "; at most ", kMaxElements),
         absl::StrCat(std::clamp<int64_t>(static_cast<int64_t>(tokens), 1, kMaxTokens)));
}

void CheckVerify(const v1::Verify& verify, DType dtype, Violations* v) {
  v->Range("verify.rows", verify.rows(), 0, 4096);
  if (verify.has_max_error() && !(verify.max_error() > 0 && std::isfinite(verify.max_error()))) {
    v->Add("verify.max_error", absl::StrCat("is ", verify.max_error(), "; must be positive"),
           dtype == DType::kBF16 ? "5e-2" : "1e-4");
  }
}

void CheckRecompute(const JobSpec& spec, Violations* v) {
  if (spec.backward() && spec.recompute == Recompute::kMlp && spec.config.mlp == MlpKind::kNone) {
    v->Add("recompute", "is mlp, but config.mlp is none", "none or attention");
  }
  if (spec.backward() || v->Unread("pass")) return;
  if (spec.recompute.value_or(Recompute::kNone) == Recompute::kNone) return;
  v->Add("recompute",
         absl::StrCat("is ", RecomputeName(*spec.recompute),
                      ", but the pass has no backward that would compute again"),
         "none, or pass: forward_backward");
}

// The rest is still judged where the config is wrong, on the nearest legal one, so that one answer holds
// everything.
JobSpec SpecOf(const v1::Job& job, const Violations& v) {
  const auto clamp = [](int64_t value, int64_t most) { return std::clamp<int64_t>(value, 1, most); };
  v1::Job legal = job;
  v1::ModelConfig* c = legal.mutable_config();
  if (v.Has("config.num_attention_heads")) {
    c->set_num_attention_heads(clamp(c->num_attention_heads(), kMaxHeads));
  }
  if (v.Has("config.hidden_size")) c->set_hidden_size(clamp(c->hidden_size(), kMaxSize));
  if (v.Has("config.num_key_value_heads")) c->set_num_key_value_heads(1);
  if (v.Has("config.head_dim") && c->has_head_dim()) c->set_head_dim(clamp(c->head_dim(), kMaxHeadDim));
  if (v.Has("config.num_hidden_layers")) c->set_num_hidden_layers(clamp(c->num_hidden_layers(), kMaxLayers));
  return JobFromProto(legal);
}

}  // namespace

absl::StatusOr<ValidatedJob> ValidateJob(const v1::Job& job, const DataRoots& roots,
                                         std::vector<Violation> unread) {
  Violations v(std::move(unread));
  CheckWire(job, &v);
  CheckHead(job, &v);
  CheckConfig(job.config(), &v);
  ValidatedJob result;
  result.spec = SpecOf(job, v);
  CheckSources(job, result.spec, &v);
  ValidateInputs(roots, job.input().tokens(), job.input().batch(), &result, &v);
  CheckSize(result.spec, &v);
  CheckMask(job.mask(), result.spec.tokens, &v);
  CheckParallelism(job, result.spec, &v);
  CheckVerify(job.verify(), result.spec.dtype, &v);
  CheckRecompute(result.spec, &v);
  ValidateWeights(roots, &result, &v);
  CheckOutput(job, result.spec, &v);
  ValidateOutput(roots, &result, &v);
  SEQPAR_RETURN_IF_ERROR(v.ToStatus());
  return result;
}

}  // namespace seqpar
