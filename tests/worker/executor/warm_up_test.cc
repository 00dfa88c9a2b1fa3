#include "worker/executor/warm_up.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/comm/in_process.h"
#include "common/device/host_stream.h"
#include "tests/common/attention/kernel_hooks.h"
#include "tests/support/sharded_plan.h"
#include "worker/executor/shard.h"

namespace seqpar {
namespace {

// Of each product what a library chooses by, but for addresses.
class ProductsDevice : public HookedDevice {
 public:
  ProductsDevice() : HookedDevice(MakeHostStream, [](Stream&, const AttentionTile&, const Matrix*) {}) {}

  void Gemm(Stream& s, const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b, const Matrix& c,
            bool accumulate, const Matrix* bias) override {
    products.insert(absl::StrCat(c.rows, " x ", c.cols, " x ", transpose_a ? a.rows : a.cols,
                                 transpose_a ? ", a'" : ", a", transpose_b ? " b'" : " b", " ld ", a.ld, " ",
                                 b.ld, " ", c.ld, a.dtype == DType::kF32 ? " f32" : " bf16",
                                 c.dtype == DType::kF32 ? " to f32" : " to bf16", accumulate ? ", added" : "",
                                 bias == nullptr ? "" : ", biased"));
  }

  std::set<std::string> products;
};

JobSpec MakeJob(int64_t tokens, DType dtype) {
  JobSpec job;
  job.config.hidden_size = 8;
  job.config.heads = 2;
  job.config.kv_heads = 1;
  job.config.head_dim = 4;
  job.config.intermediate_size = 12;
  job.config.layers = 2;
  job.dtype = dtype;
  job.pass = JobPass::kForwardBackward;
  job.weights.seed = 1;
  job.input.seed = 2;
  job.grad_output.seed = 3;
  job.tokens = tokens;
  return job;
}

// The products that a step of rank 0 of one runs.
std::set<std::string> ProductsOfStep(const JobSpec& job, const Plan& plan) {
  ProductsDevice device;
  const auto compute = device.CreateStream("compute"), comm = device.CreateStream("comm");
  const RankStreams streams{&device, compute.get(), comm.get()};
  const auto world = MakeExchangeCommunicator(MakeInProcessWorld(1)[0], &device, nullptr);
  const auto groups = RankGroups::Create(world.get(), plan.mesh,
                                         HeadLayout(plan.mesh, job.config.heads, job.config.kv_heads));
  EXPECT_TRUE(groups.ok()) << groups.status();
  Transfers transfers(&device, compute.get(), [] {});
  const auto model = LoadShard(job, plan, 0, DataRoots(), streams, &*groups, v1::Checkpoints(), &transfers);
  EXPECT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(model->stack->Forward({}).ok());
  EXPECT_TRUE(model->stack->Backward({}).ok());
  return device.products;
}

// Rows of one piece, of even and of uneven pieces of an MLP.
TEST(WarmUpTest, RunsEveryProductOfAStepAndNoOther) {
  for (const int64_t tokens :
       {int64_t{100}, 2 * kMlpPieceRows, kMlpPieceRows + 1001, 2 * kMlpPieceRows + 1}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const Recompute recompute : {Recompute::kNone, Recompute::kLayer}) {
        for (const bool biased : {false, true}) {
          SCOPED_TRACE(absl::StrCat(tokens, " tokens, ", RecomputeName(recompute), biased ? ", biased" : ""));
          JobSpec job = MakeJob(tokens, dtype);
          job.config.qkv_bias = job.config.attention_out_bias = job.config.mlp_bias = biased;
          Plan plan = ShardedPlan(job, Mesh{1, 1, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing);
          plan.recompute = recompute;
          ProductsDevice device;
          const auto compute = device.CreateStream("compute");
          ASSERT_TRUE(WarmUpProducts(job, plan, 0, device, *compute).ok());
          EXPECT_EQ(device.products, ProductsOfStep(job, plan));
        }
      }
    }
  }
}

}  // namespace
}  // namespace seqpar
