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
    Insert(a, transpose_a, b, transpose_b, c,
           absl::StrCat(accumulate ? ", added" : "", bias == nullptr ? "" : ", biased"));
  }
  void GemmPlus(Stream& s, const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b,
                const Matrix& addend, const Matrix& c) override {
    EXPECT_NE(addend.data, c.data);
    Insert(a, transpose_a, b, transpose_b, c, absl::StrCat(", plus another of ld ", addend.ld));
  }

  std::set<std::string> products;

 private:
  void Insert(const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b, const Matrix& c,
              const std::string& rest) {
    products.insert(absl::StrCat(c.rows, " x ", c.cols, " x ", transpose_a ? a.rows : a.cols,
                                 transpose_a ? ", a'" : ", a", transpose_b ? " b'" : " b", " ld ", a.ld, " ",
                                 b.ld, " ", c.ld, a.dtype == DType::kF32 ? " f32" : " bf16",
                                 c.dtype == DType::kF32 ? " to f32" : " to bf16", rest));
  }
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
          int steps = 0;
          ASSERT_TRUE(WarmUpProducts(job, plan, 0, device, *compute, [&] { ++steps; }).ok());
          EXPECT_EQ(device.products, ProductsOfStep(job, plan));
          EXPECT_GE(steps, 5);  // q, k and v, o, gate and up, down
        }
      }
    }
  }
}

JobSpec SmallJob(JobPass pass) {
  JobSpec job;
  job.config.hidden_size = 32;
  job.config.heads = 4;
  job.config.kv_heads = 2;
  job.config.head_dim = 8;
  job.config.intermediate_size = 48;
  job.config.layers = 3;
  job.dtype = DType::kBF16;
  job.pass = pass;
  job.weights.seed = 1;
  job.input.seed = 2;
  job.batch = 2;
  job.tokens = 61;
  return job;
}

struct Prepared {
  int64_t queries, keys;
  int q_heads;
  bool backward;
  friend bool operator==(const Prepared&, const Prepared&) = default;
};

std::vector<Prepared> PreparedBy(const JobSpec& job, const Plan& plan, int rank) {
  std::vector<Prepared> prepared;
  int ran = 0;
  HookedDevice device([](const std::string&) { return nullptr; },
                      [&](Stream&, const AttentionTile&, const Matrix*) { ++ran; },
                      [&](const AttentionTile& tile, bool backward) {
                        EXPECT_EQ(tile.batch, job.batch);
                        EXPECT_EQ(tile.head_dim, job.config.head_dim);
                        EXPECT_EQ(tile.q.dtype, job.dtype);
                        prepared.push_back({tile.queries, tile.keys, tile.heads.q_heads(), backward});
                      });
  size_t steps = 0;
  const absl::Status status = WarmUpAttention(job, plan, rank, device, [&] {
    ++steps;
    EXPECT_EQ(steps, prepared.size());
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(steps, prepared.size());
  EXPECT_EQ(ran, 0);
  return prepared;
}

TEST(WarmUpAttentionTest, PreparesEachTileOfTheScheduleForThePassesOfTheJob) {
  for (const JobPass pass : {JobPass::kForward, JobPass::kForwardBackward}) {
    const JobSpec job = SmallJob(pass);
    const auto expected = [&](std::vector<Prepared> forward, const std::vector<Prepared>& backward) {
      if (job.backward()) forward.insert(forward.end(), backward.begin(), backward.end());
      return forward;
    };
    const Plan one = ShardedPlan(job, Mesh{1, 1, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing);
    EXPECT_EQ(PreparedBy(job, one, 0),
              expected({{61, 61, 4, false}}, {{61, 61, 4, true}}));  // for all layers
    // Two ranks of two heads each over a causal ring of two: 31 and 30 tokens; backward keeps half of the own
    // keys for the last slot.
    const Plan four = ShardedPlan(job, Mesh{1, 2, 2, 2}, LayoutKind::kContiguous, CoreKind::kRing);
    for (int rank = 0; rank < 4; ++rank) {
      const bool early = four.mesh.CoordOf(rank).ring == 0;
      EXPECT_EQ(PreparedBy(job, four, rank),
                early ? expected({{31, 31, 2, false}}, {{31, 16, 2, true}, {31, 15, 2, true}})
                      : expected({{30, 30, 2, false}, {30, 31, 2, false}},
                                 {{30, 15, 2, true}, {30, 31, 2, true}, {30, 15, 2, true}}))
          << "rank " << rank;
    }
  }
}

TEST(WarmUpAttentionTest, AMeshThatIsNoneIsAnError) {
  const JobSpec job = SmallJob(JobPass::kForward);
  Plan plan = ShardedPlan(job, Mesh{1, 2, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing);
  plan.strategy = StrategyKind::kRing;  // which has no such axis
  HookedDevice device([](const std::string&) { return nullptr; },
                      [](Stream&, const AttentionTile&, const Matrix*) {});
  EXPECT_EQ(WarmUpAttention(job, plan, 0, device, [] {}).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace seqpar
