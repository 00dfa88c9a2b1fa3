#include "client/cli/yaml_proto.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/job_file.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ParseJob, ReadsEveryKindOfField) {
  const auto job = ParseJob(R"(
name: demo
workload: layers
config: {hidden_size: 256, num_attention_heads: 4, norm: rmsnorm, norm_eps: 1e-6, mlp: gelu_tanh, qkv_bias: true}
dtype: bfloat16
mask:
  kind: window
  left: 5
  right: -1
  documents: [10, 21]
pass: forward_backward
weights: {seed: 18446744073709551615}
input: {file: in.safetensors, batch: 2}
parallelism: {strategy: megatron_sp, tensor: 4, core: gather, layout: zigzag}
verify: {rows: 8, max_error: 0.5}
labels: {team: search, run: 7}
deadline: 90
)",
                            {});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->name(), "demo");
  EXPECT_EQ(job->config().hidden_size(), 256);
  EXPECT_EQ(job->config().norm_eps(), 1e-6);
  EXPECT_EQ(job->config().mlp(), v1::MLP_GELU_TANH);
  EXPECT_TRUE(job->config().qkv_bias());
  EXPECT_FALSE(job->config().has_head_dim());
  EXPECT_EQ(job->dtype(), v1::DATA_TYPE_BFLOAT16);
  EXPECT_EQ(job->mask().right(), -1);
  EXPECT_THAT(job->mask().documents(), ElementsAre(10, 21));
  EXPECT_EQ(job->weights().seed(), 18446744073709551615u);
  EXPECT_EQ(job->input().file(), "in.safetensors");
  EXPECT_EQ(job->parallelism().strategy(), v1::STRATEGY_MEGATRON_SP);
  EXPECT_EQ(job->parallelism().tensor(), 4);
  EXPECT_EQ(job->parallelism().layout(), v1::LAYOUT_ZIGZAG);
  EXPECT_EQ(job->labels().at("run"), "7");
  EXPECT_EQ(job->deadline(), 90);
}

TEST(ParseJob, JsonIsYaml) {
  const auto job = ParseJob(R"({"name": "a", "parallelism": "auto", "input": {"seed": 2, "tokens": 131},
                                "mask": {"kind": "MASK_KIND_FULL"}})",
                            {});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->parallelism().strategy(), v1::STRATEGY_AUTO);
  EXPECT_EQ(job->mask().kind(), v1::MASK_KIND_FULL);
  EXPECT_EQ(job->input().tokens(), 131);
}

TEST(ParseJob, WholeNumbersMayHaveAnExponent) {
  const auto job = ParseJob("input: {seed: 1e3, tokens: 2.0}", {});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->input().seed(), 1000u);
  EXPECT_EQ(job->input().tokens(), 2);
}

struct BadInput {
  const char* text;
  const char* field;
  const char* description;
  const char* nearest;
};

void PrintTo(const BadInput& bad, std::ostream* os) { *os << bad.text; }

class ParseJobRefuses : public ::testing::TestWithParam<BadInput> {};

TEST_P(ParseJobRefuses, ByFieldAndLine) {
  const BadInput& bad = GetParam();
  const absl::Status status = ParseJob(bad.text, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), reason::kInvalidJob);
  const std::vector<Violation> violations = ViolationsOf(status);
  ASSERT_EQ(violations.size(), 1u) << status;
  EXPECT_EQ(violations[0].field, bad.field);
  EXPECT_THAT(violations[0].description, HasSubstr(bad.description));
  EXPECT_EQ(violations[0].nearest, bad.nearest);
}

INSTANTIATE_TEST_SUITE_P(
    Table, ParseJobRefuses,
    ::testing::Values(
        BadInput{"maks: {kind: causal}", "maks", "unknown field (line 1)", "mask"},
        BadInput{"name: a\nconfig:\n  hidden_sise: 3", "config.hidden_sise", "unknown field (line 3)",
                 "hidden_size"},
        BadInput{"hidden_size: 3", "hidden_size", "unknown field (line 1)", "config.hidden_size"},
        BadInput{"state: running", "state", "is set by the service", ""},
        BadInput{"id: j-1", "id", "is set by the service", ""},
        BadInput{"name: a\nname: b", "name", "is given twice (line 2)", ""},
        BadInput{"labels: {a: b, a: c}", "labels.a", "is given twice (line 1)", ""},
        BadInput{"weights: {seed: 1, file: x}", "weights.file",
                 "cannot be given together with weights.seed (line 1)", ""},
        BadInput{"mask:", "mask", "has no value", ""},
        BadInput{"mask: causal", "mask", "must be a mapping, is 'causal' (line 1)", ""},
        BadInput{"mask: [causal]", "mask", "must be a mapping, is a list (line 1)", ""},
        BadInput{"labels: [a]", "labels", "must be a mapping, is a list", ""},
        BadInput{"labels: {[a]: b}", "labels", "must have words as keys, not a list", ""},
        BadInput{"mask: {documents: 10}", "mask.documents", "must be a list, is '10'", ""},
        BadInput{"mask: {documents: [1, 2, x]}", "mask.documents[2]", "must be a whole number, is 'x'", ""},
        BadInput{"mask: {documents: [[1]]}", "mask.documents[0]", "must be a whole number, is a list", ""},
        BadInput{"mask: {kind: casual}", "mask.kind", "must be one of full, causal, window, is 'casual'",
                 "causal"},
        BadInput{"mask: {kind: unspecified}", "mask.kind", "must be one of full, causal, window", "full"},
        BadInput{"parallelism: rings", "parallelism.strategy",
                 "must be one of auto, megatron_sp, ulysses, ring, gather, hybrid, is 'rings'", "ring"},
        BadInput{"dtype: [float32]", "dtype", "must be one of float32, bfloat16, is a list", ""},
        BadInput{"priority: 2.5", "priority", "must be a whole number, is 2.5", "3"},
        BadInput{"priority: \"5\"", "priority", "must be a whole number, is the text '5'", ""},
        BadInput{"priority: 3000000000", "priority", "must be at most 2147483647, is 3000000000",
                 "2147483647"},
        BadInput{"priority: -3000000000", "priority", "must be at least -2147483648", "-2147483648"},
        BadInput{"weights: {seed: -1}", "weights.seed", "must be at least 0, is -1", "0"},
        BadInput{"weights: {seed: 1e30}", "weights.seed", "must be at most 18446744073709551615",
                 "18446744073709551615"},
        BadInput{"input: {tokens: 9223372036854775808}", "input.tokens",
                 "must be at most 9223372036854775807", "9223372036854775807"},
        BadInput{"input: {tokens: .inf}", "input.tokens", "must be a whole number, is '.inf'", ""},
        BadInput{"deadline: soon", "deadline", "must be a number, is 'soon'", ""},
        BadInput{"deadline: nan", "deadline", "must be a number, is 'nan'", ""},
        BadInput{"output: {overwrite: yes}", "output.overwrite", "must be true or false, is 'yes'", "true"},
        BadInput{"output: {overwrite: 'true'}", "output.overwrite",
                 "must be true or false, is the text 'true'", ""},
        BadInput{"name: [a]", "name", "must be text, is a list", ""},
        BadInput{"[a, b]", "", "must be a mapping, is a list", ""},
        BadInput{"", "", "must hold one YAML document, holds 0", ""},
        BadInput{",a: b", "", "must hold one YAML document, holds 2 or more",
                 ""},  // LoadAll finds no end of them
        BadInput{"name: a\n---\nname: b", "", "must hold one YAML document, holds 2", ""},
        BadInput{"name: a\nmask: {", "", "is not YAML: ", ""}));

TEST(ParseJob, NamesEveryViolationAtOnce) {
  const absl::Status status =
      ParseJob("maks: 1\nconfig: {hidden_size: x}\npass: back\n", {"verify.rows=many", "a=1"}).status();
  std::vector<std::string> fields;
  for (const Violation& violation : ViolationsOf(status)) fields.push_back(violation.field);
  EXPECT_THAT(fields, ElementsAre("maks", "config.hidden_size", "pass", "verify.rows", "a"));
}

TEST(ParseJobSet, ReplacesWhatTheFileSays) {
  const auto job = ParseJob(
      "config: {num_hidden_layers: 4, hidden_size: 8}\nmask: {documents: [1, 2]}\n"
      "weights: {seed: 1}\nlabels: {a: x, b: y}\nparallelism: auto\nname: n\n",
      {"config.num_hidden_layers=2", "mask.documents=[10,21]", "weights.file=w", "labels.a=z", "labels.c.d=e",
       "parallelism.strategy=ring", "parallelism.ring=4", "verify={rows: 3}", "name=", "devices=cuda",
       "devices.selector.gpu.product=H200"});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->config().num_hidden_layers(), 2);
  EXPECT_EQ(job->config().hidden_size(), 8);
  EXPECT_THAT(job->mask().documents(), ElementsAre(10, 21));
  EXPECT_EQ(job->weights().file(), "w");
  EXPECT_EQ(job->labels().size(), 3u);
  EXPECT_EQ(job->labels().at("a"), "z");
  EXPECT_EQ(job->labels().at("c.d"), "e");
  EXPECT_EQ(job->parallelism().strategy(), v1::STRATEGY_RING);
  EXPECT_EQ(job->verify().rows(), 3);
  EXPECT_EQ(job->devices().kind(), v1::DEVICE_KIND_CUDA);
  EXPECT_EQ(job->devices().selector().at("gpu.product"), "H200");
  EXPECT_EQ(job->name(), "");
}

TEST(ParseJobSet, RefusesByPath) {
  const BadInput cases[] = {
      {"nothing", "--set", "must be key=value, is 'nothing'", ""},
      {"=1", "--set", "must be key=value, is '=1'", ""},
      {"config.layers=2", "config.layers", "unknown field (--set)", "num_hidden_layers"},
      {"name.first=a", "name.first", "name has no fields of its own (--set)", ""},
      {"mask.documents.0=3", "mask.documents.0", "mask.documents has no fields of its own", ""},
      {"config.hidden_size=big", "config.hidden_size", "must be a whole number, is 'big' (--set)", ""},
      {"state=RUNNING", "state", "is set by the service", ""},
      {"mask={", "mask", "is not YAML", ""},
      {"devices=gpu", "devices.kind", "must be one of auto, cpu, cuda, is 'gpu'", "cpu"},
      {"devices.select.pool=a", "devices.select", "unknown field", "selector"},
      {"parallelism=round", "parallelism.strategy", "must be one of auto", "ring"},
  };
  for (const BadInput& bad : cases) {
    SCOPED_TRACE(bad.text);
    const std::vector<Violation> violations = ViolationsOf(ParseJob("name: a", {bad.text}).status());
    ASSERT_EQ(violations.size(), 1u);
    EXPECT_EQ(violations[0].field, bad.field);
    EXPECT_THAT(violations[0].description, HasSubstr(bad.description));
    EXPECT_EQ(violations[0].nearest, bad.nearest);
  }
}

TEST(ParseCluster, ReadsRatesAndRefusesUnknownFields) {
  const auto cluster = ParseCluster(
      "nodes: [{name: n, devices: [{kind: cpu, memory_bytes: 8e9}]}]\n"
      "network: {latency: 1e-6, bandwidth: 1e9}");
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  EXPECT_EQ(cluster->nodes(0).devices(0).memory_bytes(), 8'000'000'000);
  EXPECT_EQ(cluster->network().latency(), 1e-6);
  const absl::Status bad = ParseCluster("nodes: [{name: n, device: []}]").status();
  EXPECT_THAT(std::string(bad.message()),
              HasSubstr("nodes[0].device: unknown field (line 1) (nearest: devices)"));
  EXPECT_EQ(ReasonOf(bad), reason::kInvalidArgument);
}

}  // namespace
}  // namespace seqpar
