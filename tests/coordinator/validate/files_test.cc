// What validation finds in the files that a job names.
#include "coordinator/validate/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "nlohmann/json.hpp"
#include "tests/coordinator/validate/job_files.h"

namespace seqpar {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using Json = nlohmann::json;

auto Wrong(const std::string& field, const std::string& description, const std::string& nearest) {
  return AllOf(Field("field", &Violation::field, field),
               Field("description", &Violation::description, HasSubstr(description)),
               Field("nearest", &Violation::nearest, nearest));
}

class FilesTest : public ::testing::Test {
 protected:
  FilesTest() : job_(GoodJob()) {}

  std::vector<Violation> Violations() {
    const auto validated = ValidateJob(job_, files_.Roots());
    return validated.ok() ? std::vector<Violation>() : ViolationsOf(validated.status());
  }
  void InputOf(const std::vector<int64_t>& shape, const char* name = "hidden_states") {
    files_.WriteTensors("in.safetensors", {{name, DType::kF32, shape}});
    job_.mutable_input()->clear_tokens();
    job_.mutable_input()->set_file("in.safetensors");
  }
  void WeightsFrom(const std::vector<NamedTensorShape>& tensors) {
    files_.WriteTensors("w.safetensors", tensors);
    job_.mutable_weights()->set_file("w.safetensors");
  }
  // A Hugging Face folder of two files whose config.json fits the job, but for `spoil`.
  void HuggingFaceFolder(const std::function<void(Json*)>& spoil) {
    std::vector<NamedTensorShape> tensors = WeightsOf(job_);
    const std::vector<NamedTensorShape> first(tensors.begin(), tensors.begin() + 7),
        rest(tensors.begin() + 7, tensors.end());
    files_.WriteTensors("llama/model-1.safetensors", first);
    files_.WriteTensors("llama/model-2.safetensors", rest);
    Json index;
    for (const NamedTensorShape& t : first) index["weight_map"][t.name] = "model-1.safetensors";
    for (const NamedTensorShape& t : rest) index["weight_map"][t.name] = "model-2.safetensors";
    files_.Write("llama/model.safetensors.index.json", index.dump());
    Json config = {{"model_type", "llama"},    {"hidden_size", 32},          {"num_attention_heads", 4},
                   {"num_key_value_heads", 2}, {"intermediate_size", 48},    {"num_hidden_layers", 2},
                   {"rope_theta", 10000.0},    {"rms_norm_eps", 1e-5},       {"hidden_act", "silu"},
                   {"rope_scaling", nullptr},  {"attention_bias", false},    {"attention_dropout", 0.0},
                   {"vocab_size", 50},         {"tie_word_embeddings", true}};
    spoil(&config);
    files_.Write("llama/config.json", config.dump());
    job_.mutable_weights()->set_file("llama");
  }

  JobFiles files_;
  v1::Job job_;
};

TEST_F(FilesTest, TakesBatchAndTokensFromTheInput) {
  InputOf({3, 77, 32});
  const auto validated = ValidateJob(job_, files_.Roots());
  ASSERT_TRUE(validated.ok()) << validated.status();
  EXPECT_EQ(validated->spec.batch, 3);
  EXPECT_EQ(validated->spec.tokens, 77);
  EXPECT_EQ(validated->spec.input.file, files_.Roots().roots()[0].path + "/in.safetensors");
  EXPECT_THAT(validated->inputs, SizeIs(1));
}

TEST_F(FilesTest, RefusesAnInputOfAnotherShape) {
  InputOf({3, 77, 31});
  EXPECT_THAT(
      Violations(),
      ElementsAre(Wrong("input.file", "hidden_states is [3, 77, 31]; must be [batch, tokens, 32]", "")));
  InputOf({77, 32});
  EXPECT_THAT(Violations(), ElementsAre(Wrong("input.file", "hidden_states is [77, 32]", "")));
  InputOf({3, 0, 32});
  EXPECT_THAT(Violations(), ElementsAre(Wrong("input.file", "hidden_states is [3, 0, 32]", "")));
}

TEST_F(FilesTest, RefusesTokensAndBatchThatTheFileDoesNotHave) {
  InputOf({3, 77, 32});
  job_.mutable_input()->set_batch(2);
  job_.mutable_input()->set_tokens(78);
  EXPECT_THAT(Violations(), ElementsAre(Wrong("input.batch", "is 2; the file has 3", "3"),
                                        Wrong("input.tokens", "is 78; the file has 77", "77")));
}

TEST_F(FilesTest, DocumentsMustSumToTheFilesTokens) {
  InputOf({1, 77, 32});
  job_.mutable_mask()->add_documents(70);
  EXPECT_THAT(Violations(), ElementsAre(Wrong("mask.documents", "sum to 70; the input has 77 tokens",
                                              "a last document of 77")));
}

TEST_F(FilesTest, NamesTheNearestTensor) {
  InputOf({1, 77, 32}, "hidden_state");
  EXPECT_THAT(Violations(), ElementsAre(Wrong("input.file", "has no tensor hidden_states", "hidden_state")));
}

TEST_F(FilesTest, RefusesTypesThatAreNotNumbersOfOurs) {
  const std::string header = R"({"hidden_states":{"dtype":"I64","shape":[1,1,32],"data_offsets":[0,256]}})";
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  files_.Write("in.safetensors", bytes + header + std::string(256, '\0'));
  job_.mutable_input()->clear_tokens();
  job_.mutable_input()->set_file("in.safetensors");
  EXPECT_THAT(Violations(),
              ElementsAre(Wrong("input.file", "hidden_states is I64; must be F32, BF16 or F16", "")));
}

TEST_F(FilesTest, RefusesFilesThatAreNotThereOrNotSafetensors) {
  job_.mutable_input()->set_file("nowhere.safetensors");
  EXPECT_THAT(Violations(), ElementsAre(Wrong("input.file", "No such file", "")));
  files_.Write("text.safetensors", "this is not what it says");
  job_.mutable_input()->set_file("text.safetensors");
  EXPECT_THAT(Violations(), SizeIs(1));
}

TEST_F(FilesTest, RefusesANamedPipeWithoutWaitingForItsOtherEnd) {
  const std::string root = files_.Roots().roots()[0].path;
  ASSERT_EQ(mkfifo((root + "/pipe").c_str(), 0600), 0);
  job_.mutable_input()->clear_tokens();
  job_.mutable_input()->set_file("pipe");
  EXPECT_THAT(Violations(), ElementsAre(Wrong("input.file", "pipe: not a regular file", "")));
  job_ = GoodJob();
  for (const char* name : {"config.json", "model.safetensors.index.json", "model-1.safetensors"}) {
    SCOPED_TRACE(name);
    HuggingFaceFolder([](Json*) {});
    const std::string path = root + "/llama/" + name;
    ASSERT_EQ(unlink(path.c_str()), 0);
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    EXPECT_THAT(Violations(), ElementsAre(Wrong("weights.file", name, "")));
    ASSERT_EQ(unlink(path.c_str()), 0);
  }
}

TEST_F(FilesTest, GradOutputHasTheShapeOfHiddenStates) {
  InputOf({2, 77, 32});
  job_.set_pass(v1::PASS_FORWARD_BACKWARD);
  files_.WriteTensors("g.safetensors", {{"grad_output", DType::kF32, {1, 77, 32}}});
  job_.mutable_grad_output()->set_file("g.safetensors");
  EXPECT_THAT(Violations(),
              ElementsAre(Wrong("grad_output.file",
                                "grad_output is [1, 77, 32]; must be as hidden_states: [2, 77, 32]", "")));
}

TEST_F(FilesTest, IgnoresAndCountsTensorsOutsideTheLayers) {
  std::vector<NamedTensorShape> tensors = WeightsOf(job_);
  tensors.push_back({"model.layers.2.self_attn.q_proj.weight", DType::kF32, {1}});
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", DType::kF32, {4}});
  WeightsFrom(tensors);
  const auto validated = ValidateJob(job_, files_.Roots());
  ASSERT_TRUE(validated.ok()) << validated.status();
  EXPECT_EQ(validated->ignored_tensors, 4);  // embedding, last norm, layer 2, the buffer
}

TEST_F(FilesTest, NamesMissingMisshapenAndUnknownTensors) {
  std::vector<NamedTensorShape> tensors = WeightsOf(job_);
  for (NamedTensorShape& tensor : tensors) {
    if (tensor.name == "model.layers.0.mlp.up_proj.weight") tensor.shape = {47, 32};
    if (tensor.name == "model.layers.1.self_attn.o_proj.weight")
      tensor.name = "model.layers.1.self_attn.o_proj.weights";
  }
  WeightsFrom(tensors);
  EXPECT_THAT(
      Violations(),
      ElementsAre(Wrong("weights.file",
                        "model.layers.0.mlp.up_proj.weight is [47, 32]; the config makes it [48, 32]", ""),
                  Wrong("weights.file", "has no tensor model.layers.1.self_attn.o_proj.weight", ""),
                  Wrong("weights.file",
                        "has a tensor that this config does not use: model.layers.1.self_attn.o_proj.weights",
                        "model.layers.1.self_attn.o_proj.weight")));
}

TEST_F(FilesTest, RefusesBiasesThatTheConfigDoesNotUse) {
  std::vector<NamedTensorShape> tensors = WeightsOf(job_);
  tensors.push_back({"model.layers.1.self_attn.q_proj.bias", DType::kF32, {32}});
  WeightsFrom(tensors);
  EXPECT_THAT(Violations(),
              ElementsAre(Wrong("weights.file", "does not use: model.layers.1.self_attn.q_proj.bias",
                                "model.layers.1.self_attn.q_proj.weight")));
}

TEST_F(FilesTest, CountsTensorsBeyondTheFirstFew) {
  WeightsFrom({{"something", DType::kF32, {1}}});
  const std::vector<Violation> violations = Violations();
  ASSERT_THAT(violations, SizeIs(9));
  EXPECT_EQ(violations.back().description, "and 10 more tensors that are not there");
}

TEST_F(FilesTest, ReadsAHuggingFaceFolder) {
  HuggingFaceFolder([](Json*) {});
  const auto validated = ValidateJob(job_, files_.Roots());
  ASSERT_TRUE(validated.ok()) << validated.status();
  EXPECT_THAT(validated->inputs, SizeIs(4));  // two files, their index, config.json
  EXPECT_EQ(validated->ignored_tensors, 2);
}

struct BadConfig {
  const char* key;
  Json value;
  const char* field;
  const char* description;
  const char* nearest;
};

TEST_F(FilesTest, ComparesConfigJson) {
  const std::vector<BadConfig> cases = {
      {"hidden_size", 64, "config.hidden_size", "is 32; the checkpoint's config.json has hidden_size 64",
       "64"},
      {"num_attention_heads", 8, "config.num_attention_heads", "is 4", "8"},
      {"num_key_value_heads", 4, "config.num_key_value_heads", "is 2", "4"},
      {"head_dim", 16, "config.head_dim", "is 8", "16"},
      {"intermediate_size", 64, "config.intermediate_size", "is 48", "64"},
      {"num_hidden_layers", 1, "config.num_hidden_layers", "is 2; the checkpoint has fewer", "1"},
      {"rms_norm_eps", 1e-6, "config.norm_eps", "is 1e-05", "1e-06"},
      {"rope_theta", 500000.0, "config.rope_theta", "is 10000", "500000.0"},
      {"hidden_act", "gelu", "config.mlp", "hidden_act gelu", "gelu"},
      {"attention_bias", true, "config.qkv_bias", "is false", "true"},
      {"sliding_window", 50, "mask", "sliding_window 50", "{kind: window, left: 49, right: 0}"},
      {"sliding_window", 0, "weights.file", "sliding_window = 0", ""},
      {"sliding_window", std::numeric_limits<int64_t>::min(), "weights.file",
       "sliding_window = -9223372036854775808", ""},
      {"model_type", "gemma2", "weights.file", "model_type gemma2",
       "a checkpoint of llama, mistral or qwen2"},
      {"rope_scaling", Json{{"type", "linear"}, {"factor", 2.0}}, "weights.file",
       "config.json has rope_scaling = ", ""},
      {"rope_parameters", Json{{"rope_type", "yarn"}}, "weights.file", "rope_parameters", ""},
      {"rope_parameters", Json{{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}, "weights.file",
       "rope_parameters", ""},
      {"rope_parameters", Json{{"full_attention", {{"rope_type", "yarn"}}}}, "weights.file",
       "rope_parameters", ""},
      {"partial_rotary_factor", 0.5, "weights.file", "partial_rotary_factor = 0.5, which changes the result",
       ""},
      {"attn_logit_softcapping", 50.0, "weights.file", "attn_logit_softcapping = 50.0", ""},
      {"attention_dropout", 0.1, "weights.file", "attention_dropout = 0.1", ""},
      {"query_pre_attn_scalar", 64, "weights.file", "query_pre_attn_scalar = 64", ""},
      {"layer_types", Json{"full_attention", "sliding_attention"}, "weights.file", "layer_types", ""},
      {"quantization_config", Json{{"quant_method", "gptq"}}, "weights.file", "quantization_config", ""},
  };
  for (const BadConfig& bad : cases) {
    SCOPED_TRACE(bad.key);
    HuggingFaceFolder([&](Json* config) { (*config)[bad.key] = bad.value; });
    EXPECT_THAT(Violations(), ElementsAre(Wrong(bad.field, bad.description, bad.nearest)));
  }
}

TEST_F(FilesTest, AcceptsKeysThatChangeNothing) {
  const std::vector<std::pair<const char*, Json>> cases = {
      {"sliding_window", nullptr},
      {"sliding_window", 100},
      {"partial_rotary_factor", 1.0},
      {"rope_parameters",
       Json{{"rope_type", "default"}, {"rope_theta", 10000.0}, {"partial_rotary_factor", 1.0}}},
      {"head_dim", 8},
      {"layer_types", Json{"full_attention", "full_attention"}}};
  for (const auto& [key, value] : cases) {
    SCOPED_TRACE(key);
    const std::string name = key;
    const Json neutral = value;
    HuggingFaceFolder([&](Json* config) { (*config)[name] = neutral; });
    EXPECT_THAT(Violations(), SizeIs(0));
  }
}

TEST_F(FilesTest, SlidingWindowFitsAWindowMask) {
  HuggingFaceFolder([](Json* config) { (*config)["sliding_window"] = 50; });
  job_.mutable_mask()->set_kind(v1::MASK_KIND_WINDOW);
  job_.mutable_mask()->set_left(49);
  job_.mutable_mask()->set_right(0);
  EXPECT_THAT(Violations(), SizeIs(0));
}

TEST_F(FilesTest, OfQwen2OnlySomeLayersHaveTheWindow) {
  struct Case {
    Json use, whole_layers;  // null: the key is left out
    const char* complaint;   // "": accepted
  };
  // The job has two layers and a causal mask.
  const std::vector<Case> cases = {{nullptr, nullptr, ""},
                                   {false, 0, ""},
                                   {true, 2, ""},
                                   {true, 28, ""},
                                   {true, 0, "sliding_window 50"},
                                   {true, nullptr, "sliding_window 50"},
                                   {true, 1, "max_window_layers = 1"}};
  for (const Case& one : cases) {
    SCOPED_TRACE(one.use.dump() + " " + one.whole_layers.dump());
    HuggingFaceFolder([&](Json* config) {
      (*config)["model_type"] = "qwen2";
      (*config)["sliding_window"] = 50;
      if (!one.use.is_null()) (*config)["use_sliding_window"] = one.use;
      if (!one.whole_layers.is_null()) (*config)["max_window_layers"] = one.whole_layers;
    });
    const auto violations = Violations();
    ASSERT_THAT(violations, SizeIs(*one.complaint == 0 ? 0 : 1));
    if (!violations.empty()) {
      EXPECT_THAT(violations[0].description, HasSubstr(one.complaint));
    }
  }
}

TEST_F(FilesTest, AConfigJsonWithoutRopeThetaMeansTheDefault) {
  HuggingFaceFolder([](Json* config) { config->erase("rope_theta"); });
  EXPECT_THAT(Violations(), SizeIs(0));
  job_.mutable_config()->set_rope_theta(500000);
  EXPECT_THAT(Violations(), ElementsAre(Wrong("config.rope_theta", "has none, which means 10000", "10000")));
  job_.mutable_config()->clear_rope_theta();
  EXPECT_THAT(Violations(), ElementsAre(Wrong("config.rope_theta", "is not given", "10000")));
}

TEST_F(FilesTest, RefusesConfigJsonThatIsNone) {
  HuggingFaceFolder([](Json*) {});
  files_.Write("llama/config.json", "[1, 2");
  EXPECT_THAT(Violations(), ElementsAre(Wrong("weights.file", "config.json is not a JSON object", "")));
}

TEST_F(FilesTest, RefusesAnIndexThatLeavesTheFolder) {
  HuggingFaceFolder([](Json*) {});
  files_.Write("llama/model.safetensors.index.json", R"({"weight_map": {"a": "../secret.safetensors"}})");
  EXPECT_THAT(Violations(), ElementsAre(Wrong("weights.file", "leaves the folder", "")));
}

TEST_F(FilesTest, WeightsAreNotComparedWithAConfigThatIsWrong) {
  WeightsFrom(WeightsOf(job_));
  job_.mutable_config()->set_num_key_value_heads(3);
  EXPECT_THAT(Violations(), ElementsAre(Wrong("config.num_key_value_heads", "must divide", "2")));
}

TEST_F(FilesTest, OutputMayNotExistUnlessOverwritten) {
  files_.Write("out.safetensors", "old");
  job_.mutable_output()->set_file("out.safetensors");
  EXPECT_THAT(Violations(),
              ElementsAre(Wrong("output.file", "exists", "another name, or output.overwrite: true")));
  job_.mutable_output()->set_overwrite(true);
  EXPECT_THAT(Violations(), SizeIs(0));
}

TEST_F(FilesTest, OutputNeedsAFolder) {
  job_.mutable_output()->set_file("no/such/out.safetensors");
  EXPECT_THAT(Violations(), ElementsAre(Wrong("output.file", "/no/such does not exist", "")));
  std::filesystem::create_directories(files_.path() + "/dir");
  job_.mutable_output()->set_file("dir");
  EXPECT_THAT(Violations(), ElementsAre(Wrong("output.file", "exists and is not a file", "")));
}

TEST_F(FilesTest, OutputIsNoInputByAnyName) {
  InputOf({1, 77, 32});
  std::filesystem::create_hard_link(files_.path() + "/in.safetensors", files_.path() + "/alias.safetensors");
  for (const char* name : {"in.safetensors", "alias.safetensors"}) {
    job_.mutable_output()->set_file(name);
    job_.mutable_output()->set_overwrite(true);
    EXPECT_THAT(Violations(),
                ElementsAre(Wrong("output.file", "is one of the job's inputs", "another name")));
  }
}

TEST_F(FilesTest, FingerprintsChangeWithTheFile) {
  InputOf({1, 77, 32});
  const std::string path = files_.path() + "/in.safetensors";
  const FileFingerprint before = FingerprintFile(files_.Roots(), path).value();
  EXPECT_EQ(FingerprintFile(files_.Roots(), path).value(), before);
  std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::seconds(1));
  const FileFingerprint touched = FingerprintFile(files_.Roots(), path).value();
  EXPECT_NE(touched, before);
  std::filesystem::copy_file(path, path + ".new");
  std::filesystem::rename(path + ".new", path);
  EXPECT_NE(FingerprintFile(files_.Roots(), path).value().inode, touched.inode);
  std::filesystem::remove(path);
  EXPECT_TRUE(absl::IsNotFound(FingerprintFile(files_.Roots(), path).status()));
}

}  // namespace
}  // namespace seqpar
