#include <gtest/gtest.h>

#include <random>
#include <string>

#include "common/job/proto.h"

namespace seqpar {
namespace {

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  int Int(int begin, int end) { return std::uniform_int_distribution<int>(begin, end - 1)(engine_); }
  bool Bool() { return Int(0, 2) == 1; }

 private:
  std::mt19937 engine_;
};

JobSpec RandomJob(Random& r) {
  JobSpec job;
  job.name = "job" + std::to_string(r.Int(0, 1000));
  job.config.kv_heads = r.Int(1, 5);
  job.config.heads = job.config.kv_heads * r.Int(1, 5);
  job.config.head_dim = 2 * r.Int(1, 65);
  job.config.hidden_size = r.Int(1, 5000);
  job.config.layers = r.Int(1, 9);
  job.config.norm = static_cast<NormKind>(r.Int(0, 3));
  job.config.norm_eps = 1.0 / r.Int(1, 1000);
  job.config.mlp = static_cast<MlpKind>(r.Int(0, 4));
  job.config.intermediate_size = job.config.mlp == MlpKind::kNone ? 0 : r.Int(1, 5000);
  if (r.Bool()) job.config.rope_theta = r.Int(1, 100000);
  job.config.qkv_bias = r.Bool();
  job.config.attention_out_bias = r.Bool();
  job.config.mlp_bias = r.Bool();
  job.dtype = r.Bool() ? DType::kBF16 : DType::kF32;
  job.mask.kind = static_cast<MaskKind>(r.Int(0, 3));
  job.mask.left = r.Int(-1, 9);
  job.mask.right = r.Int(-1, 9);
  for (int i = r.Int(0, 4); i > 0; --i) job.mask.documents.push_back(r.Int(1, 100));
  job.pass = static_cast<JobPass>(r.Int(0, 2));
  if (r.Bool()) job.weights.file = "w";
  if (!job.weights.given()) job.weights.seed = r.Int(0, 100);
  if (r.Bool()) job.input.file = "x";
  if (!job.input.given()) job.input.seed = 0;
  job.batch = r.Int(1, 4);
  job.tokens = r.Int(1, 100);
  if (r.Bool()) job.grad_output.seed = r.Int(0, 100);
  if (r.Bool()) {
    job.output_file = "y";
    job.output_hidden_grad = r.Bool();
    job.output_weight_grads = r.Bool();
    job.output_hidden_states = r.Bool() || !(job.output_hidden_grad || job.output_weight_grads);
  }
  job.overwrite = r.Bool();
  job.parallelism.strategy = static_cast<StrategyKind>(r.Int(0, 6));
  job.parallelism.tensor = r.Int(0, 3);
  job.parallelism.ulysses = r.Int(0, 3);
  job.parallelism.ring = r.Int(0, 3);
  job.parallelism.inner = r.Int(0, 3);
  job.parallelism.core = static_cast<CoreKind>(r.Int(0, 2));
  if (r.Bool()) job.parallelism.layout = static_cast<LayoutKind>(r.Int(0, 3));
  job.min_workers = r.Int(1, 5);
  job.max_workers = r.Int(0, 9);
  job.verify_rows = r.Int(0, 9);
  job.verify_max_error = 1.0 / r.Int(1, 100);
  for (int i = r.Int(0, 3); i > 0; --i) job.labels["l" + std::to_string(i)] = std::to_string(r.Int(0, 9));
  job.devices.kind = static_cast<DeviceKind>(r.Int(0, 3));
  for (int i = r.Int(0, 3); i > 0; --i) job.devices.selector["s" + std::to_string(i)] = "v";
  job.priority = r.Int(-5, 5);
  job.deadline_seconds = r.Int(0, 100) / 4.0;
  job.max_attempts = r.Int(0, 5);
  job.deterministic = r.Int(0, 1) == 1;
  return job;
}

TEST(JobProto, RoundTripsRandomJobs) {
  Random random(1);
  for (int i = 0; i < 500; ++i) {
    const JobSpec job = RandomJob(random);
    v1::Job proto = JobToProto(job);
    ASSERT_EQ(JobFromProto(proto), job) << proto.DebugString();
    ASSERT_TRUE(proto.ParseFromString(proto.SerializeAsString()));
    ASSERT_EQ(JobFromProto(proto), job);
  }
}

TEST(JobProto, FillsInTheDefaults) {
  v1::Job proto;
  proto.mutable_config()->set_hidden_size(96);
  proto.mutable_config()->set_num_attention_heads(8);
  proto.mutable_output()->set_file("out");
  JobSpec job = JobFromProto(proto);
  EXPECT_EQ(job.config.kv_heads, 8);
  EXPECT_EQ(job.config.head_dim, 12);
  EXPECT_EQ(job.config.norm, NormKind::kRmsNorm);
  EXPECT_EQ(job.config.norm_eps, 1e-5);
  EXPECT_EQ(job.config.mlp, MlpKind::kSwiglu);
  EXPECT_FALSE(job.config.rope_theta.has_value());
  EXPECT_EQ(job.dtype, DType::kF32);
  EXPECT_EQ(job.mask, MaskSpec());
  EXPECT_EQ(job.mask.kind, MaskKind::kCausal);
  EXPECT_EQ(job.batch, 1);
  EXPECT_TRUE(job.output_hidden_states);
  EXPECT_FALSE(job.output_hidden_grad);
  EXPECT_EQ(job.parallelism.strategy, StrategyKind::kAuto);
  EXPECT_FALSE(job.parallelism.layout.has_value());
  EXPECT_EQ(job.min_workers, 1);
  EXPECT_EQ(job.verify_max_error, 1e-4);

  proto.set_pass(v1::PASS_FORWARD_BACKWARD);
  proto.set_dtype(v1::DATA_TYPE_BFLOAT16);
  job = JobFromProto(proto);
  EXPECT_TRUE(job.output_hidden_grad);
  EXPECT_TRUE(job.output_weight_grads);
  EXPECT_EQ(job.verify_max_error, 5e-2);
}

TEST(JobProto, WithoutAnOutputFileNothingIsWritten) {
  v1::Job proto;
  proto.set_pass(v1::PASS_FORWARD_BACKWARD);
  const JobSpec job = JobFromProto(proto);
  EXPECT_FALSE(job.output_hidden_states || job.output_hidden_grad || job.output_weight_grads);
}

TEST(JobProto, AJobWithoutHeadsDoesNotDivideByThem) {
  v1::Job proto;
  proto.mutable_config()->set_hidden_size(96);
  EXPECT_EQ(JobFromProto(proto).config.head_dim, 0);
}

}  // namespace
}  // namespace seqpar
