#include "coordinator/validate/files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/job/tensors.h"
#include "common/tensor/checkpoint.h"
#include "nlohmann/json.hpp"

namespace seqpar {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

// The absolute path, or "" with a violation.
std::string ResolvePath(const DataRoots& roots, const std::string& field, const std::string& path,
                        Violations* v) {
  auto resolved = roots.Resolve(path);
  if (resolved.ok()) return *resolved;
  v->Add(field, MessageOf(resolved.status()));
  return "";
}

void Fingerprint(const std::string& field, const std::string& path, ValidatedJob* job, Violations* v) {
  auto fingerprint = FingerprintFile(path);
  if (fingerprint.ok()) {
    job->inputs[path] = *fingerprint;
  } else {
    v->Add(field, MessageOf(fingerprint.status()));
  }
}

// Finds `tensor` in the file of `source`; null with a violation where it is not there.
const TensorLocation* FindInput(const DataRoots& roots, const std::string& field, const std::string& tensor,
                                Source* source, Checkpoint* checkpoint, ValidatedJob* job, Violations* v) {
  source->file = ResolvePath(roots, field + ".file", source->file, v);
  if (source->file.empty()) return nullptr;
  auto opened = Checkpoint::Open(source->file);
  if (!opened.ok()) {
    v->Add(field + ".file", MessageOf(opened.status()));
    return nullptr;
  }
  *checkpoint = std::move(opened).value();
  for (const std::string& file : checkpoint->files()) Fingerprint(field + ".file", file, job, v);
  const TensorLocation* found = checkpoint->Find(tensor);
  if (!found) {
    std::vector<std::string> names;
    for (const auto& [name, location] : checkpoint->tensors()) names.push_back(name);
    v->Add(field + ".file", absl::StrCat("has no tensor ", tensor), NearestName(tensor, names));
  }
  return found;
}

bool IsRotaryBuffer(const std::string& name) {
  const std::string suffix = ".rotary_emb.inv_freq";
  return name.size() > suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0;
}

// A tensor of one of the layers [0, layers)?
bool InsideLayers(const std::string& name, int layers) {
  const std::string prefix = "model.layers.";
  if (name.compare(0, prefix.size(), prefix) != 0) return false;
  const size_t dot = name.find('.', prefix.size());
  if (dot == std::string::npos) return false;
  const std::string number = name.substr(prefix.size(), dot - prefix.size());
  if (number.empty() || number.size() > 6 || number.find_first_not_of("0123456789") != std::string::npos)
    return true;
  return std::stoi(number) < layers;
}

// A Hugging Face config.json must say what the job says, and nothing that would change the result and is not
// supported.
class ConfigJson {
 public:
  ConfigJson(const JobSpec& job, const nlohmann::json& json, Violations* v) : job_(job), json_(json), v_(v) {}

  void Check() {
    const ModelConfig& c = job_.config;
    Same("hidden_size", "config.hidden_size", c.hidden_size);
    Same("num_attention_heads", "config.num_attention_heads", c.heads);
    Same("num_key_value_heads", "config.num_key_value_heads", c.kv_heads);
    Same("head_dim", "config.head_dim", c.head_dim);
    if (c.mlp != MlpKind::kNone) Same("intermediate_size", "config.intermediate_size", c.intermediate_size);
    Same("rms_norm_eps", "config.norm_eps", c.norm_eps);
    if (Has("rope_theta")) Same("rope_theta", "config.rope_theta", c.rope_theta.value_or(0));
    if (Has("num_hidden_layers") && json_["num_hidden_layers"].is_number() &&
        c.layers > json_["num_hidden_layers"].get<int64_t>()) {
      v_->Add("config.num_hidden_layers", absl::StrCat("is ", c.layers, "; the checkpoint has fewer"),
              json_["num_hidden_layers"].dump());
    }
    for (const char* key : {"rope_scaling", "attn_logit_softcapping", "final_logit_softcapping",
                            "qk_layernorm", "residual_multiplier", "attention_multiplier", "clip_qkv"}) {
      if (Has(key) && json_[key] != false && json_[key] != 1.0) Unsupported(key);
    }
    if (Has("partial_rotary_factor") && json_["partial_rotary_factor"] != 1.0)
      Unsupported("partial_rotary_factor");
    Activation();
    SlidingWindow();
  }

 private:
  bool Has(const char* key) const { return json_.contains(key) && !json_[key].is_null(); }

  template <typename T>
  void Same(const char* key, const char* field, T ours) {
    if (!Has(key) || !json_[key].is_number()) return;
    const double theirs = json_[key].get<double>();
    if (std::abs(theirs - static_cast<double>(ours)) > 1e-12 * std::abs(theirs)) {
      v_->Add(field, absl::StrCat("is ", ours, "; the checkpoint's config.json says otherwise"),
              json_[key].dump());
    }
  }
  void Unsupported(const char* key) {
    v_->Add("weights.file", absl::StrCat("config.json has ", key, " = ", json_[key].dump(),
                                         ", which changes the result and is not supported"));
  }
  void Activation() {
    if (!Has("hidden_act") || !json_["hidden_act"].is_string() || job_.config.mlp == MlpKind::kNone) return;
    const std::string act = json_["hidden_act"].get<std::string>();
    const bool tanh = act == "gelu_new" || act == "gelu_pytorch_tanh" || act == "gelu_tanh";
    const MlpKind kind = job_.config.mlp;
    const bool fits = kind == MlpKind::kSwiglu     ? act == "silu" || act == "swish"
                      : kind == MlpKind::kGeluTanh ? tanh
                                                   : act == "gelu";
    const char* nearest = act == "gelu"                     ? "gelu"
                          : tanh                            ? "gelu_tanh"
                          : act == "silu" || act == "swish" ? "swiglu"
                                                            : "";
    if (!fits) v_->Add("config.mlp", absl::StrCat("does not fit the checkpoint's hidden_act ", act), nearest);
  }
  void SlidingWindow() {
    if (!Has("sliding_window") || !json_["sliding_window"].is_number_integer()) return;
    if (json_.contains("use_sliding_window") && json_["use_sliding_window"] == false) return;
    const int64_t window = json_["sliding_window"].get<int64_t>();
    const MaskSpec& mask = job_.mask;
    if (mask.kind == MaskKind::kWindow && mask.left == window - 1 && mask.right == 0) return;
    if (mask.kind == MaskKind::kCausal && window >= job_.tokens) return;
    v_->Add("mask", absl::StrCat("the checkpoint's config.json has sliding_window ", window),
            absl::StrCat("{kind: window, left: ", window - 1, ", right: 0}"));
  }

  const JobSpec& job_;
  const nlohmann::json& json_;
  Violations* v_;
};

}  // namespace

absl::StatusOr<FileFingerprint> FingerprintFile(const std::string& path) {
  struct stat st;
  if (stat(path.c_str(), &st) != 0) {
    return MakeError(errno == ENOENT ? absl::StatusCode::kNotFound : absl::StatusCode::kFailedPrecondition,
                     reason::kStorage, absl::StrCat(path, ": ", strerror(errno)));
  }
  return FileFingerprint{static_cast<int64_t>(st.st_ino), static_cast<int64_t>(st.st_size),
                         static_cast<int64_t>(st.st_mtim.tv_sec) * 1'000'000'000 + st.st_mtim.tv_nsec};
}

void ValidateInputs(const DataRoots& roots, int64_t given_tokens, int64_t given_batch, ValidatedJob* job,
                    Violations* v) {
  JobSpec& spec = job->spec;
  if (!spec.input.file.empty()) {
    Checkpoint file;
    const TensorLocation* found = FindInput(roots, "input", kHiddenStates, &spec.input, &file, job, v);
    if (found) {
      const std::vector<int64_t>& shape = found->info.shape;
      if (shape.size() != 3 || shape[0] < 1 || shape[1] < 1 || shape[2] != spec.config.hidden_size) {
        v->Add("input.file", absl::StrCat("hidden_states is ", ShapeText(shape), "; must be [batch, tokens, ",
                                          spec.config.hidden_size, "]"));
      } else {
        if (given_batch && given_batch != shape[0]) {
          v->Add("input.batch", absl::StrCat("is ", given_batch, "; the file has ", shape[0]),
                 absl::StrCat(shape[0]));
        }
        if (given_tokens && given_tokens != shape[1]) {
          v->Add("input.tokens", absl::StrCat("is ", given_tokens, "; the file has ", shape[1]),
                 absl::StrCat(shape[1]));
        }
        spec.batch = shape[0];
        spec.tokens = shape[1];
      }
    }
  }
  if (!spec.grad_output.file.empty()) {
    Checkpoint file;
    const TensorLocation* found =
        FindInput(roots, "grad_output", kGradOutput, &spec.grad_output, &file, job, v);
    const std::vector<int64_t> want = {spec.batch, spec.tokens, spec.config.hidden_size};
    if (found && spec.tokens > 0 && found->info.shape != want) {
      v->Add("grad_output.file", absl::StrCat("grad_output is ", ShapeText(found->info.shape),
                                              "; must be as hidden_states: ", ShapeText(want)));
    }
  }
}

void ValidateWeights(const DataRoots& roots, ValidatedJob* job, Violations* v) {
  JobSpec& spec = job->spec;
  if (spec.weights.file.empty()) return;
  spec.weights.file = ResolvePath(roots, "weights.file", spec.weights.file, v);
  if (spec.weights.file.empty()) return;
  auto opened = Checkpoint::Open(spec.weights.file);
  if (!opened.ok()) {
    v->Add("weights.file", MessageOf(opened.status()));
    return;
  }
  for (const std::string& file : opened->files()) Fingerprint("weights.file", file, job, v);
  std::set<std::string> known;
  for (int layer = 0; layer < spec.config.layers; ++layer) {
    for (const WeightInfo& weight : LayerWeights(spec.config, layer)) {
      known.insert(weight.name);
      const TensorLocation* found = opened->Find(weight.name);
      if (!found) {
        v->Add("weights.file", absl::StrCat("has no tensor ", weight.name));
      } else if (found->info.shape != weight.shape) {
        v->Add("weights.file", absl::StrCat(weight.name, " is ", ShapeText(found->info.shape),
                                            "; the config makes it ", ShapeText(weight.shape)));
      }
    }
  }
  const std::vector<std::string> names(known.begin(), known.end());
  for (const auto& [name, location] : opened->tensors()) {
    if (InsideLayers(name, spec.config.layers) && !known.count(name) && !IsRotaryBuffer(name)) {
      v->Add("weights.file", absl::StrCat("has a tensor that this config does not use: ", name),
             NearestName(name, names));
    }
  }
  if (!opened->config_json().empty()) {
    const auto json = nlohmann::json::parse(opened->config_json(), nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) {
      v->Add("weights.file", "config.json is not a JSON object");
    } else {
      ConfigJson(spec, json, v).Check();
    }
  }
}

void ValidateOutput(const DataRoots& roots, ValidatedJob* job, Violations* v) {
  JobSpec& spec = job->spec;
  if (spec.output_file.empty()) return;
  const std::string path = ResolvePath(roots, "output.file", spec.output_file, v);
  if (path.empty()) return;
  spec.output_file = path;
  struct stat st;
  const std::string folder = path.substr(0, path.rfind('/'));
  if (stat(folder.c_str(), &st) != 0 || !S_ISDIR(st.st_mode)) {
    v->Add("output.file", absl::StrCat("the folder ", folder, " does not exist"));
  } else if (stat(path.c_str(), &st) == 0) {
    if (!S_ISREG(st.st_mode)) {
      v->Add("output.file", absl::StrCat(path, " exists and is not a file"));
    } else if (!spec.overwrite) {
      v->Add("output.file", absl::StrCat(path, " exists"), "another name, or output.overwrite: true");
    }
  }
  if (job->inputs.count(path)) v->Add("output.file", "is one of the job's inputs");
}

}  // namespace seqpar
