// One bad job for each rule that needs no file: the field, what is said, and the nearest legal value.
#include "coordinator/validate/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "tests/coordinator/validate/job_files.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

struct BadJob {
  const char* name;
  std::function<void(v1::Job*)> spoil;
  const char* field;
  const char* description;
  std::string nearest;
};

void PrintTo(const BadJob& bad, std::ostream* out) { *out << bad.name; }

const double kNan = std::numeric_limits<double>::quiet_NaN();

const BadJob kBadJobs[] = {
    {"LongName", [](v1::Job* j) { j->set_name(std::string(129, 'x')); }, "name", "129 bytes; at most 128",
     ""},
    {"NameOnTwoLines", [](v1::Job* j) { j->set_name("a\nb\x1b[2J"); }, "name",
     "holds a control character, such as a line break", "ab[2J"},
    {"LabelOnTwoLines", [](v1::Job* j) { (*j->mutable_labels())["k"] = "v\tw"; }, "labels.k",
     "holds a control character", "k: vw"},
    {"OutputOnlyId", [](v1::Job* j) { j->set_id("j1"); }, "id", "set by the coordinator", "leave it out"},
    {"OutputOnlyState", [](v1::Job* j) { j->set_state(v1::JOB_STATE_FAILED); }, "state",
     "set by the coordinator", "leave it out"},
    {"OutputOnlyAttempts", [](v1::Job* j) { j->add_attempts(); }, "attempts", "set by the coordinator",
     "leave it out"},
    {"UnknownMaskKind", [](v1::Job* j) { j->mutable_mask()->set_kind(static_cast<v1::MaskKind>(9)); },
     "mask.kind", "must be one of full, causal, window", "full"},
    {"UnknownWorkload", [](v1::Job* j) { j->set_workload(static_cast<v1::Workload>(7)); }, "workload",
     "is 7, which has no meaning here", "layers"},
    {"UnknownField",
     [](v1::Job* j) {
       v1::ModelConfig* c = j->mutable_config();
       c->GetReflection()->MutableUnknownFields(c)->AddVarint(77, 1);
     },
     "config", "does not know (number 77)", ""},
    {"LabelKey", [](v1::Job* j) { (*j->mutable_labels())[std::string(64, 'k')] = "v"; }, "labels.kkk",
     "keys have 1 to 63 bytes", std::string(63, 'k') + ": v"},
    {"DeviceKind", [](v1::Job* j) { j->mutable_devices()->set_kind(static_cast<v1::DeviceKind>(9)); },
     "devices.kind", "must be one of auto, cpu, cuda", "auto"},
    {"SelectorKey",
     [](v1::Job* j) { (*j->mutable_devices()->mutable_selector())[std::string(64, 'k')] = "v"; },
     "devices.selector.kkk", "keys have 1 to 63 bytes", std::string(63, 'k') + ": v"},
    {"SelectorValue",
     [](v1::Job* j) { (*j->mutable_devices()->mutable_selector())["k"] = std::string(64, 'v'); },
     "devices.selector.k", "values at most 63", "k: " + std::string(63, 'v')},
    {"Priority", [](v1::Job* j) { j->set_priority(2000); }, "priority", "must be -1000 to 1000", "1000"},
    {"MaxAttempts", [](v1::Job* j) { j->set_max_attempts(-1); }, "max_attempts", "must be 0 to 100", "0"},
    {"Deadline", [](v1::Job* j) { j->set_deadline(-1); }, "deadline", "not negative", "0"},
    {"DeadlineNan", [](v1::Job* j) { j->set_deadline(kNan); }, "deadline", "not negative", "0"},
    {"HiddenSize", [](v1::Job* j) { j->mutable_config()->set_hidden_size(0); }, "config.hidden_size",
     "must be 1 to 1048576", "1"},
    {"Heads", [](v1::Job* j) { j->mutable_config()->set_num_attention_heads(5000); },
     "config.num_attention_heads", "must be 1 to 4096", "4096"},
    {"HeadsPast32Bits", [](v1::Job* j) { j->mutable_config()->set_num_attention_heads(int64_t{1} << 40); },
     "config.num_attention_heads", "must be 1 to 4096", "4096"},
    {"KvHeadsDivide", [](v1::Job* j) { j->mutable_config()->set_num_key_value_heads(3); },
     "config.num_key_value_heads", "must divide num_attention_heads 4", "2"},
    {"KvHeadsZero", [](v1::Job* j) { j->mutable_config()->set_num_key_value_heads(0); },
     "config.num_key_value_heads", "must divide", "1"},
    {"KvHeadsFarBelow",
     [](v1::Job* j) { j->mutable_config()->set_num_key_value_heads(std::numeric_limits<int64_t>::min()); },
     "config.num_key_value_heads", "must divide", "1"},
    {"HeadDimWithoutEnd",
     [](v1::Job* j) { j->mutable_config()->set_head_dim(std::numeric_limits<int64_t>::max()); },
     "config.head_dim", "must be 1 to 1024", "1024"},
    {"HeadDimNotGiven", [](v1::Job* j) { j->mutable_config()->set_hidden_size(33); }, "config.head_dim",
     "must be given: hidden_size 33 is no multiple of num_attention_heads 4", "8"},
    {"HeadDimNotGivenAndEven",
     [](v1::Job* j) {
       j->mutable_config()->set_hidden_size(31);
       j->mutable_config()->set_rope_theta(10000);
     },
     "config.head_dim", "must be given: hidden_size 31 is no multiple of num_attention_heads 4", "8"},
    {"HeadDimRange", [](v1::Job* j) { j->mutable_config()->set_head_dim(2000); }, "config.head_dim",
     "must be 1 to 1024", "1024"},
    {"HeadDimOdd", [](v1::Job* j) { j->mutable_config()->set_head_dim(7); }, "config.head_dim",
     "is 7; must be even with rope_theta", "8"},
    {"IntermediateSize", [](v1::Job* j) { j->mutable_config()->set_intermediate_size(0); },
     "config.intermediate_size", "must be 1", "1"},
    {"MlpBias",
     [](v1::Job* j) {
       j->mutable_config()->set_mlp(v1::MLP_NONE);
       j->mutable_config()->set_mlp_bias(true);
     },
     "config.mlp_bias", "there is no mlp", "false"},
    {"Layers", [](v1::Job* j) { j->mutable_config()->set_num_hidden_layers(0); }, "config.num_hidden_layers",
     "must be 1 to 10000", "1"},
    {"NormEps", [](v1::Job* j) { j->mutable_config()->set_norm_eps(0); }, "config.norm_eps", "above 0",
     "1e-5"},
    {"RopeTheta", [](v1::Job* j) { j->mutable_config()->set_rope_theta(-1); }, "config.rope_theta",
     "must be positive", "10000"},
    {"WindowOfCausal", [](v1::Job* j) { j->mutable_mask()->set_left(5); }, "mask.left",
     "belongs to kind window only", "kind: window"},
    {"WindowBelow",
     [](v1::Job* j) {
       j->mutable_mask()->set_kind(v1::MASK_KIND_WINDOW);
       j->mutable_mask()->set_right(-2);
     },
     "mask.right", "must be -1 (unlimited) or more", "-1"},
    {"DocumentEmpty",
     [](v1::Job* j) {
       j->mutable_mask()->add_documents(100);
       j->mutable_mask()->add_documents(0);
     },
     "mask.documents[1]", "must be at least 1", "1"},
    {"DocumentsSum",
     [](v1::Job* j) {
       j->mutable_mask()->add_documents(40);
       j->mutable_mask()->add_documents(50);
     },
     "mask.documents", "sum to 90; the input has 100 tokens", "a last document of 60"},
    {"DocumentsPastAllTokens",
     [](v1::Job* j) {
       j->mutable_input()->set_tokens(std::numeric_limits<int32_t>::max());
       j->mutable_mask()->add_documents(std::numeric_limits<int32_t>::max());
       j->mutable_mask()->add_documents(7);
     },
     "mask.documents", "sum to more than 2147483647; the input has 2147483647 tokens", ""},
    {"TooWide",
     [](v1::Job* j) {
       j->mutable_config()->set_hidden_size(1);
       j->mutable_config()->set_num_attention_heads(4096);
       j->mutable_config()->set_num_key_value_heads(1);
       j->mutable_config()->set_head_dim(1024);
       j->mutable_input()->set_tokens(2000000000);
     },
     "input.tokens", "batch * tokens * num_attention_heads * head_dim", "238418579"},
    {"NoWeights", [](v1::Job* j) { j->clear_weights(); }, "weights", "needs file or seed", "{seed: 0}"},
    {"NoInput", [](v1::Job* j) { j->clear_input(); }, "input", "needs file or seed",
     "{seed: 0, tokens: 4096}"},
    {"NoTokens", [](v1::Job* j) { j->mutable_input()->set_tokens(0); }, "input.tokens", "must be 1 to", "1"},
    {"TooManyTokens", [](v1::Job* j) { j->mutable_input()->set_tokens(int64_t{1} << 31); }, "input.tokens",
     "must be 1 to 2147483647", "2147483647"},
    {"Batch", [](v1::Job* j) { j->mutable_input()->set_batch(-1); }, "input.batch", "must be 0 to", "0"},
    {"TooLarge",
     [](v1::Job* j) {
       j->mutable_input()->set_batch(60000);
       j->mutable_input()->set_tokens(2000000000);
     },
     "input.tokens", "batch * tokens * intermediate_size", "347222222"},
    {"NoGradOutput", [](v1::Job* j) { j->set_pass(v1::PASS_FORWARD_BACKWARD); }, "grad_output",
     "needs file or seed where pass is forward_backward", "{seed: 0}"},
    {"UnusedGradOutput", [](v1::Job* j) { j->mutable_grad_output()->set_seed(1); }, "grad_output",
     "is not used by pass forward", "pass: forward_backward"},
    {"OutputTensorUnknown",
     [](v1::Job* j) {
       j->mutable_output()->set_file("out.safetensors");
       j->mutable_output()->add_tensors("hidden_state");
     },
     "output.tensors[0]", "is hidden_state; must be", "hidden_states"},
    {"OutputTensorOfBackward",
     [](v1::Job* j) {
       j->mutable_output()->set_file("out.safetensors");
       j->mutable_output()->add_tensors("weights.grad");
     },
     "output.tensors[0]", "needs pass forward_backward", "hidden_states"},
    {"OutputWithoutFile", [](v1::Job* j) { j->mutable_output()->add_tensors("hidden_states"); },
     "output.file", "is missing", ""},
    {"RecomputeWithoutBackward", [](v1::Job* j) { j->set_recompute(v1::RECOMPUTE_LAYER); }, "recompute",
     "is layer, but the pass has no backward", "none, or pass: forward_backward"},
    {"DegreeOfAuto", [](v1::Job* j) { j->mutable_parallelism()->set_ring(2); }, "parallelism.ring",
     "is not an axis of strategy auto", "a strategy, or no degrees"},
    {"DegreeOfAnotherAxis",
     [](v1::Job* j) {
       j->mutable_parallelism()->set_strategy(v1::STRATEGY_RING);
       j->mutable_parallelism()->set_ulysses(2);
     },
     "parallelism.ulysses", "is not an axis of strategy ring", "1, or strategy: hybrid"},
    {"DegreeZero",
     [](v1::Job* j) {
       j->mutable_parallelism()->set_strategy(v1::STRATEGY_RING);
       j->mutable_parallelism()->set_ring(0);
     },
     "parallelism.ring", "must be 1 to 65536", "1"},
    {"UlyssesAboveHeads",
     [](v1::Job* j) {
       j->mutable_parallelism()->set_strategy(v1::STRATEGY_ULYSSES);
       j->mutable_parallelism()->set_ulysses(5);
     },
     "parallelism.ulysses", "at most the number of heads: num_attention_heads is 4", "4"},
    {"TensorAboveHeads",
     [](v1::Job* j) {
       j->mutable_parallelism()->set_strategy(v1::STRATEGY_MEGATRON_SP);
       j->mutable_parallelism()->set_tensor(8);
     },
     "parallelism.tensor", "is 8; at most the number of heads", "4"},
    {"ProductAboveHeads",
     [](v1::Job* j) {
       j->mutable_parallelism()->set_strategy(v1::STRATEGY_HYBRID);
       j->mutable_parallelism()->set_tensor(2);
       j->mutable_parallelism()->set_ulysses(3);
     },
     "parallelism", "tensor * ulysses is 6; at most the number of heads",
     "tensor: 2, ulysses: 2 or tensor: 1, ulysses: 3"},
    {"HybridOfOneAxis",
     [](v1::Job* j) {
       j->mutable_parallelism()->set_strategy(v1::STRATEGY_HYBRID);
       j->mutable_parallelism()->set_tensor(1);
       j->mutable_parallelism()->set_ring(1);
     },
     "parallelism.strategy", "hybrid takes two axes above 1, and the degrees of 1 leave ulysses alone",
     "ulysses"},
    {"InnerDivides",
     [](v1::Job* j) {
       j->mutable_parallelism()->set_strategy(v1::STRATEGY_RING);
       j->mutable_parallelism()->set_ring(8);
       j->mutable_parallelism()->set_inner(3);
     },
     "parallelism.inner", "is 3; must divide ring 8", "2"},
    {"InnerWithoutRing",
     [](v1::Job* j) {
       j->mutable_parallelism()->set_strategy(v1::STRATEGY_RING);
       j->mutable_parallelism()->set_inner(2);
     },
     "parallelism.inner", "needs the degree of the ring", "ring: 2"},
    {"InnerOfUlysses",
     [](v1::Job* j) {
       j->mutable_parallelism()->set_strategy(v1::STRATEGY_ULYSSES);
       j->mutable_parallelism()->set_inner(2);
     },
     "parallelism.inner", "strategy ulysses has no ring to divide", "1"},
    {"InnerOfAuto", [](v1::Job* j) { j->mutable_parallelism()->set_inner(2); }, "parallelism.inner",
     "strategy auto has no ring to divide", "strategy: ring, with its degree"},
    {"InnerOfGather",
     [](v1::Job* j) {
       j->mutable_parallelism()->set_strategy(v1::STRATEGY_GATHER);
       j->mutable_parallelism()->set_ring(4);
       j->mutable_parallelism()->set_inner(2);
     },
     "parallelism.inner", "gather has no inner ring", "1"},
    {"CoreOfRing",
     [](v1::Job* j) {
       j->mutable_parallelism()->set_strategy(v1::STRATEGY_RING);
       j->mutable_parallelism()->set_core(v1::CORE_GATHER);
     },
     "parallelism.core", "strategy ring does not take it", "strategy: gather, or hybrid"},
    {"CoreOfAuto", [](v1::Job* j) { j->mutable_parallelism()->set_core(v1::CORE_GATHER); },
     "parallelism.core", "strategy auto does not take it", "strategy: gather, or hybrid"},
    {"WorkersMinAboveMax",
     [](v1::Job* j) {
       j->mutable_workers()->set_min(4);
       j->mutable_workers()->set_max(2);
     },
     "workers.max", "is 2, below workers.min 4", "4"},
    {"WorkersNegative", [](v1::Job* j) { j->mutable_workers()->set_min(-1); }, "workers.min",
     "must be 0 to 65536", "0"},
    {"DegreesAboveMax",
     [](v1::Job* j) {
       j->mutable_parallelism()->set_strategy(v1::STRATEGY_RING);
       j->mutable_parallelism()->set_ring(8);
       j->mutable_workers()->set_max(4);
     },
     "workers.max", "is 4; the degrees ask for 8", "8"},
    {"DegreesBelowMin",
     [](v1::Job* j) {
       j->mutable_parallelism()->set_strategy(v1::STRATEGY_RING);
       j->mutable_parallelism()->set_ring(2);
       j->mutable_workers()->set_min(4);
     },
     "workers.min", "is 4; the degrees make 2", "2"},
    {"MoreWorkersThanHeads",
     [](v1::Job* j) {
       j->mutable_parallelism()->set_strategy(v1::STRATEGY_ULYSSES);
       j->mutable_workers()->set_min(8);
     },
     "workers.min", "strategy ulysses takes at most as many ranks as heads", "4"},
    {"VerifyRows", [](v1::Job* j) { j->mutable_verify()->set_rows(-1); }, "verify.rows", "must be 0 to 4096",
     "0"},
    {"VerifyMaxError", [](v1::Job* j) { j->mutable_verify()->set_max_error(0); }, "verify.max_error",
     "must be positive", "1e-4"},
    {"InputOutsideRoots", [](v1::Job* j) { j->mutable_input()->set_file("/etc/passwd"); }, "input.file",
     "root", ""},
    {"WeightsLeaveRoot", [](v1::Job* j) { j->mutable_weights()->set_file("../x.safetensors"); },
     "weights.file", "..", ""},
    {"OutputOutsideRoots", [](v1::Job* j) { j->mutable_output()->set_file("/tmp/../etc/x"); }, "output.file",
     "..", ""},
};

class BadJobTest : public ::testing::TestWithParam<BadJob> {};

TEST_P(BadJobTest, IsRefusedByField) {
  const BadJob& bad = GetParam();
  const JobFiles files;
  v1::Job job = GoodJob();
  bad.spoil(&job);
  const auto validated = ValidateJob(job, files.Roots());
  ASSERT_TRUE(absl::IsInvalidArgument(validated.status())) << validated.status();
  EXPECT_EQ(ReasonOf(validated.status()), reason::kInvalidJob);
  const std::vector<Violation> violations = ViolationsOf(validated.status());
  ASSERT_EQ(violations.size(), 1u) << validated.status();
  EXPECT_THAT(violations[0].field, HasSubstr(bad.field));
  EXPECT_THAT(violations[0].description, HasSubstr(bad.description));
  EXPECT_EQ(violations[0].nearest, bad.nearest);
}

INSTANTIATE_TEST_SUITE_P(Rules, BadJobTest, ::testing::ValuesIn(kBadJobs),
                         [](const ::testing::TestParamInfo<BadJob>& info) {
                           return std::string(info.param.name);
                         });

TEST(ValidateJob, AcceptsAGoodJobAndKnowsItsDefaults) {
  const JobFiles files;
  const auto validated = ValidateJob(GoodJob(), files.Roots());
  ASSERT_TRUE(validated.ok()) << validated.status();
  EXPECT_EQ(validated->spec, JobFromProto(GoodJob()));
  EXPECT_EQ(validated->spec.config.head_dim, 8);
  EXPECT_TRUE(validated->inputs.empty());
}

// What their number is held against could not even be counted.
TEST(ValidateJob, DocumentsOfMoreTokensThanThereCanBeAreNotSummed) {
  const JobFiles files;
  v1::Job job = GoodJob();
  job.mutable_input()->set_tokens(std::numeric_limits<int64_t>::max());
  job.mutable_mask()->add_documents(7);
  const auto validated = ValidateJob(job, files.Roots());
  ASSERT_FALSE(validated.ok());
  for (const Violation& violation : ViolationsOf(validated.status())) {
    EXPECT_EQ(violation.field, "input.tokens") << violation.description;
  }
}

// What the service hands out as a job, every default written out, may be submitted again.
TEST(ValidateJob, AcceptsAJobThatWasWrittenOut) {
  const JobFiles files;
  v1::Job backward = GoodJob();
  backward.set_pass(v1::PASS_FORWARD_BACKWARD);
  backward.mutable_grad_output()->set_seed(3);
  backward.mutable_output()->set_file("out.safetensors");
  v1::Job gather = GoodJob();
  gather.mutable_parallelism()->set_strategy(v1::STRATEGY_GATHER);
  v1::Job without_mlp = GoodJob();
  without_mlp.mutable_config()->set_mlp(v1::MLP_NONE);
  for (const v1::Job& job : {GoodJob(), backward, gather, without_mlp}) {
    const auto first = ValidateJob(job, files.Roots());
    ASSERT_TRUE(first.ok()) << first.status();
    const auto again = ValidateJob(JobToProto(first->spec), files.Roots());
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->spec, first->spec);
  }
}

TEST(ValidateJob, OneAnswerHoldsEverything) {
  const JobFiles files;
  v1::Job job = GoodJob();
  job.mutable_config()->set_num_attention_heads(0);
  job.mutable_config()->set_num_hidden_layers(-3);
  job.mutable_mask()->set_right(4);
  job.mutable_parallelism()->set_strategy(v1::STRATEGY_RING);
  job.mutable_parallelism()->set_ring(6);
  job.mutable_parallelism()->set_inner(4);
  job.mutable_workers()->set_max(2);
  job.mutable_verify()->set_rows(5000);
  job.mutable_input()->set_file("nowhere.safetensors");
  job.mutable_output()->set_file("no/such/folder/out.safetensors");
  const std::vector<Violation> violations = ViolationsOf(ValidateJob(job, files.Roots()).status());
  std::vector<std::string> fields;
  for (const Violation& violation : violations) fields.push_back(violation.field);
  EXPECT_THAT(fields, ::testing::UnorderedElementsAre(
                          "config.num_attention_heads", "config.num_hidden_layers", "mask.right",
                          "parallelism.inner", "verify.rows", "input.file", "output.file"));
}

TEST(ValidateJob, CountsWhatDoesNotFitInAnAnswer) {
  const JobFiles files;
  v1::Job job = GoodJob();
  job.mutable_output()->set_file("out.safetensors");
  for (int i = 0; i < 100; ++i) job.mutable_output()->add_tensors("x");
  const std::vector<Violation> violations = ViolationsOf(ValidateJob(job, files.Roots()).status());
  ASSERT_EQ(violations.size(), 65u);
  EXPECT_EQ(violations.back().description, "and 36 more");
}

}  // namespace
}  // namespace seqpar
