#include "coordinator/validate/config_json.h"

#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace seqpar {
namespace {

using Json = nlohmann::json;

// Families whose layers are what formulas.md calls a layer. Others differ in ways that no key shows (norms
// after the blocks, parallel blocks, weights plus one).
const std::set<std::string>& KnownFamilies() {
  static const auto& families = *new std::set<std::string>{"llama", "mistral", "qwen2"};
  return families;
}

// What these families take where config.json has no rope_theta: the first Llama 2 checkpoints have none.
constexpr double kRopeThetaDefault = 10000;

class ConfigJson {
 public:
  ConfigJson(const JobSpec& job, const Json& json, Violations* v) : job_(job), json_(json), v_(v) {}

  void Check() {
    Sizes();
    Rotary();
    Biases();
    Activation();
    SlidingWindow();
    Family();
    // Keys that change the result of a layer, and the value of each that does not.
    Neutral("rope_scaling", Json());
    Neutral("quantization_config", Json());
    Neutral("partial_rotary_factor", 1.0);
    Neutral("attn_logit_softcapping", Json());
    Neutral("clip_qkv", Json());
    Neutral("qk_layernorm", false);
    Neutral("use_qk_norm", false);
    Neutral("residual_multiplier", 1.0);
    Neutral("attention_dropout", 0.0);
    Neutral("hidden_dropout", 0.0);
    const double scale = 1 / std::sqrt(static_cast<double>(job_.config.head_dim));
    if (!Near("attention_multiplier", scale)) Unsupported("attention_multiplier");
    if (!Near("query_pre_attn_scalar", job_.config.head_dim)) Unsupported("query_pre_attn_scalar");
  }

 private:
  bool Has(const char* key) const { return json_.contains(key) && !json_[key].is_null(); }
  bool HasNumber(const char* key) const { return Has(key) && json_[key].is_number(); }
  // Absent, or this number.
  bool Near(const char* key, double value) const {
    return !HasNumber(key) || std::abs(json_[key].get<double>() - value) <= 1e-6 * std::abs(value);
  }

  template <typename T>
  void Same(const char* key, const char* field, T ours) {
    if (Near(key, static_cast<double>(ours))) return;
    v_->Add(field,
            absl::StrCat("is ", ours, "; the checkpoint's config.json has ", key, " ", json_[key].dump()),
            json_[key].dump());
  }
  void Unsupported(const char* key) {
    v_->Add("weights.file", absl::StrCat("config.json has ", key, " = ", json_[key].dump(),
                                         ", which changes the result and is not supported"));
  }
  void Neutral(const char* key, const Json& value) {
    if (Has(key) && json_[key] != value && json_[key] != false) Unsupported(key);
  }

  void Sizes() {
    const ModelConfig& c = job_.config;
    Same("hidden_size", "config.hidden_size", c.hidden_size);
    Same("num_attention_heads", "config.num_attention_heads", c.heads);
    Same("num_key_value_heads", "config.num_key_value_heads", c.kv_heads);
    Same("head_dim", "config.head_dim", c.head_dim);
    if (c.mlp != MlpKind::kNone) Same("intermediate_size", "config.intermediate_size", c.intermediate_size);
    for (const char* key : {"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"}) {
      Same(key, "config.norm_eps", c.norm_eps);
    }
    if (HasNumber("num_hidden_layers") && c.layers > json_["num_hidden_layers"].get<double>()) {
      v_->Add("config.num_hidden_layers", absl::StrCat("is ", c.layers, "; the checkpoint has fewer"),
              json_["num_hidden_layers"].dump());
    }
  }

  void Rotary() {
    bool given = Theta(json_);
    if (Has("rope_parameters") && json_["rope_parameters"].is_object()) {
      const Json& parameters = json_["rope_parameters"];
      if (!ArePlain(parameters)) Unsupported("rope_parameters");
      given = Theta(parameters) || given;
    }
    if (!given && KnownFamilies().count(FamilyName()) > 0) {
      SameTheta(kRopeThetaDefault, "has none, which means 10000", "10000");
    }
  }
  // Rotation of all dimensions by theta alone, the same in every layer. Some families keep an object for each
  // kind of layer there.
  static bool ArePlain(const Json& parameters) {
    for (const auto& [key, value] : parameters.items()) {
      if (value.is_object()) return false;
      if (key == "rope_type" && value != "default") return false;
      if (key == "partial_rotary_factor" && !value.is_null() && value != 1.0) return false;
    }
    return true;
  }
  // Whether it is there, and then the same.
  bool Theta(const Json& holder) {
    if (!holder.contains("rope_theta") || !holder["rope_theta"].is_number()) return false;
    const std::string text = holder["rope_theta"].dump();
    SameTheta(holder["rope_theta"].get<double>(), absl::StrCat("has ", text), text);
    return true;
  }
  void SameTheta(double theirs, const std::string& what, const std::string& nearest) {
    const std::optional<double>& ours = job_.config.rope_theta;
    if (ours && std::abs(*ours - theirs) <= 1e-6 * theirs) return;
    v_->Add("config.rope_theta",
            absl::StrCat(ours ? absl::StrCat("is ", *ours) : "is not given",
                         "; the checkpoint's config.json ", what),
            nearest);
  }

  void Biases() {
    SameFlag("attention_bias", "config.qkv_bias", job_.config.qkv_bias);
    if (job_.config.mlp != MlpKind::kNone) SameFlag("mlp_bias", "config.mlp_bias", job_.config.mlp_bias);
  }
  void SameFlag(const char* key, const char* field, bool ours) {
    if (!Has(key) || !json_[key].is_boolean() || json_[key].get<bool>() == ours) return;
    v_->Add(field,
            absl::StrCat("is ", ours ? "true" : "false", "; the checkpoint's config.json has ", key, " ",
                         json_[key].dump()),
            json_[key].dump());
  }

  void Activation() {
    if (!Has("hidden_act") || !json_["hidden_act"].is_string() || job_.config.mlp == MlpKind::kNone) return;
    const std::string act = json_["hidden_act"].get<std::string>();
    const bool silu = act == "silu" || act == "swish";
    const bool tanh = act == "gelu_new" || act == "gelu_pytorch_tanh" || act == "gelu_tanh";
    const MlpKind kind = job_.config.mlp;
    const bool fits = kind == MlpKind::kSwiglu ? silu : kind == MlpKind::kGeluTanh ? tanh : act == "gelu";
    if (fits) return;
    v_->Add("config.mlp", absl::StrCat("does not fit the checkpoint's hidden_act ", act),
            silu            ? "swiglu"
            : tanh          ? "gelu_tanh"
            : act == "gelu" ? "gelu"
                            : "");
  }

  void SlidingWindow() {
    if (Has("layer_types") && json_["layer_types"].is_array()) {
      for (size_t i = 0; i < json_["layer_types"].size() && i < static_cast<size_t>(job_.config.layers);
           ++i) {
        const Json& type = json_["layer_types"][i];
        if (type != "full_attention" && type != "sliding_attention") return Unsupported("layer_types");
        if (type != json_["layer_types"][0]) return Unsupported("layer_types");
      }
      if (!json_["layer_types"].empty() && json_["layer_types"][0] == "full_attention") return;
    }
    if (!Has("sliding_window") || !json_["sliding_window"].is_number_integer()) return;
    if (!UsesSlidingWindow()) return;
    if (!Has("layer_types") && HasNumber("max_window_layers")) {
      // The first so many layers see everything, the others have the window.
      const auto whole = json_["max_window_layers"].get<double>();
      if (whole >= job_.config.layers) return;
      if (whole > 0) return Unsupported("max_window_layers");
    }
    const int64_t window = json_["sliding_window"].get<int64_t>();
    if (window < 1) return Unsupported("sliding_window");  // a query would not see itself
    const MaskSpec& mask = job_.mask;
    if (mask.kind == MaskKind::kWindow && mask.left == window - 1 && mask.right == 0) return;
    if (mask.kind == MaskKind::kCausal && window >= job_.tokens) return;
    v_->Add("mask", absl::StrCat("the checkpoint's config.json has sliding_window ", window),
            absl::StrCat("{kind: window, left: ", window - 1, ", right: 0}"));
  }

  // Qwen2 has the key beside the window and takes false where it is left out.
  bool UsesSlidingWindow() const {
    if (json_.contains("use_sliding_window")) return json_["use_sliding_window"] != false;
    return FamilyName() != "qwen2";
  }

  std::string FamilyName() const {
    return Has("model_type") && json_["model_type"].is_string() ? json_["model_type"].get<std::string>() : "";
  }
  void Family() {
    const std::string family = FamilyName();
    if (family.empty() || KnownFamilies().count(family) > 0) return;
    v_->Add("weights.file",
            absl::StrCat("config.json has model_type ", family, ", whose layers are not known to be Llama's"),
            "a checkpoint of llama, mistral or qwen2");
  }

  const JobSpec& job_;
  const Json& json_;
  Violations* v_;
};

}  // namespace

void CheckConfigJson(const JobSpec& job, const std::string& text, Violations* violations) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    violations->Add("weights.file", "config.json is not a JSON object");
    return;
  }
  ConfigJson(job, json, violations).Check();
}

}  // namespace seqpar
