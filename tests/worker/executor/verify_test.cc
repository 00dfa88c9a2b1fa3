#include "worker/executor/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <thread>

#include "common/base/status.h"
#include "common/comm/in_process.h"
#include "tests/support/sharded_plan.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/executor/shard.h"

namespace seqpar {
namespace {

JobSpec MakeJob() {
  JobSpec job;
  job.config.hidden_size = 20;
  job.config.heads = 5;
  job.config.kv_heads = 1;
  job.config.head_dim = 4;
  job.config.intermediate_size = 18;
  job.config.layers = 2;
  job.config.rope_theta = 10000;
  job.config.qkv_bias = job.config.attention_out_bias = job.config.mlp_bias = true;
  job.mask.documents = {20, 23};
  job.pass = JobPass::kForwardBackward;
  job.weights.seed = 1;
  job.input.seed = 2;
  job.grad_output.seed = 3;
  job.batch = 2;
  job.tokens = 43;
  job.verify_rows = 9;
  return job;
}

// Spoils what a layer has made, before it is verified.
using Spoil = std::function<void(const LayerStep&)>;

void Scale(const Matrix& matrix, float factor) {
  for (int64_t row = 0; row < matrix.rows; ++row) {
    for (int64_t col = 0; col < matrix.cols; ++col) {
      ASSERT_EQ(matrix.dtype, DType::kF32);
      *reinterpret_cast<float*>(matrix.At(row, col)) *= factor;
    }
  }
}

absl::StatusOr<v1::Verification> RunRank(const JobSpec& job, const Plan& plan,
                                         std::shared_ptr<Endpoint> endpoint, const Spoil& spoil,
                                         int64_t bytes_at_once, int64_t* verify_bytes) {
  const int rank = endpoint->world_rank();
  SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, MakeCpuDevice({}));
  const auto compute = device->CreateStream("compute"), comm = device->CreateStream("comm");
  const RankStreams streams{device.get(), compute.get(), comm.get()};
  const auto world = MakeExchangeCommunicator(std::move(endpoint), device.get(), nullptr);
  const HeadLayout heads(plan.mesh, job.config.heads, job.config.kv_heads);
  SEQPAR_ASSIGN_OR_RETURN(const RankGroups groups, RankGroups::Create(world.get(), plan.mesh, heads));
  Transfers transfers(device.get(), compute.get(), [] {});
  SEQPAR_ASSIGN_OR_RETURN(ShardedModel model, LoadShard(job, plan, rank, DataRoots(), streams, &groups,
                                                        v1::Checkpoints(), &transfers));
  Verifier verifier(
      job, plan, rank, "j-1", world.get(), streams, [] {}, bytes_at_once);
  const auto check = [&](const LayerStep& step) {
    spoil(step);
    const int64_t before = device->memory().used_bytes;
    device->ResetPeak();
    SEQPAR_RETURN_IF_ERROR(verifier.Check(step));
    *verify_bytes = std::max(*verify_bytes, device->memory().peak_bytes - before);
    return absl::OkStatus();
  };
  SEQPAR_RETURN_IF_ERROR(model.stack->Forward(check));
  if (job.backward()) SEQPAR_RETURN_IF_ERROR(model.stack->Backward(check));
  // The in-process endpoint of a rank that leaves counts as dead for those that still wait.
  world->Barrier(*comm);
  SEQPAR_RETURN_IF_ERROR(comm->Synchronize());
  return verifier.result();
}

// The result of every rank, which must be the same.
v1::Verification RunAll(
    const JobSpec& job, const Plan& plan, const Spoil& spoil = [](const LayerStep&) {},
    int64_t bytes_at_once = kVerifyBytes, int64_t verify_bytes_max = kVerifyBytes) {
  const auto endpoints = MakeInProcessWorld(plan.mesh.size());
  std::vector<v1::Verification> results(endpoints.size());
  std::vector<std::thread> ranks;
  for (size_t rank = 0; rank < endpoints.size(); ++rank) {
    ranks.emplace_back([&, rank] {
      int64_t verify_bytes = 0;
      const auto result = RunRank(job, plan, endpoints[rank], spoil, bytes_at_once, &verify_bytes);
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_LE(verify_bytes, verify_bytes_max);
      results[rank] = *result;
    });
  }
  for (std::thread& rank : ranks) rank.join();
  for (const v1::Verification& result : results) {
    EXPECT_EQ(result.SerializeAsString(), results[0].SerializeAsString());
  }
  return results[0];
}

TEST(SampleRowsTest, AreSpreadInOrderAndTheSameForTheSameJob) {
  const auto rows = SampleRows("j-1", 10, 1000, 3);
  ASSERT_EQ(rows.size(), 10u);
  std::set<int64_t> batches;
  for (int64_t i = 0; i < 10; ++i) {
    EXPECT_GE(rows[i].token, i * 100);
    EXPECT_LT(rows[i].token, (i + 1) * 100);
    batches.insert(rows[i].batch);
  }
  EXPECT_GT(batches.size(), 1u);
  EXPECT_LT(*batches.rbegin(), 3);
  const auto again = SampleRows("j-1", 10, 1000, 3), other = SampleRows("j-2", 10, 1000, 3);
  bool differs = false;
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(rows[i].token, again[i].token);
    differs |= rows[i].token != other[i].token;
  }
  EXPECT_TRUE(differs);
  EXPECT_EQ(SampleRows("j-1", 10, 4, 1).size(), 4u);
}

struct MeshCase {
  Mesh mesh;
  LayoutKind layout;
  CoreKind core;
};
const MeshCase kMeshes[] = {{{1, 1, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing},
                            {{1, 1, 3, 3}, LayoutKind::kZigzag, CoreKind::kRing},
                            {{1, 1, 4, 2}, LayoutKind::kStriped, CoreKind::kRing},
                            {{1, 1, 2, 2}, LayoutKind::kZigzag, CoreKind::kGather},
                            {{1, 3, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing},
                            {{3, 1, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing},
                            {{2, 2, 2, 2}, LayoutKind::kZigzag, CoreKind::kRing}};

TEST(VerifierTest, RightLayersHaveSmallErrorsOnEveryMesh) {
  for (const MeshCase& c : kMeshes) {
    const JobSpec job = MakeJob();
    const v1::Verification result = RunAll(job, ShardedPlan(job, c.mesh, c.layout, c.core));
    EXPECT_EQ(result.layers_size(), job.config.layers * 6);
    EXPECT_GT(result.worst_error(), 0) << c.mesh.ToString();
    EXPECT_LT(result.worst_error(), 3e-6) << c.mesh.ToString() << ": " << result.ShortDebugString();
  }
}

// Fewer tokens than ranks: some hold none of a layer's rows, and under ulysses attend with all of them.
TEST(VerifierTest, RanksWithoutTokensTakePart) {
  const MeshCase kFew[] = {{{1, 4, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing},
                           {{4, 1, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing},
                           {{1, 1, 4, 2}, LayoutKind::kZigzag, CoreKind::kRing},
                           {{1, 1, 4, 4}, LayoutKind::kStriped, CoreKind::kGather},
                           {{2, 2, 2, 2}, LayoutKind::kContiguous, CoreKind::kRing}};
  for (const MeshCase& c : kFew) {
    JobSpec job = MakeJob();
    job.mask.documents = {};
    job.tokens = 3;
    const v1::Verification result = RunAll(job, ShardedPlan(job, c.mesh, c.layout, c.core));
    EXPECT_EQ(result.layers_size(), job.config.layers * 6) << c.mesh.ToString();
    EXPECT_EQ(result.rows(), 3);
    EXPECT_LT(result.worst_error(), 1e-5) << c.mesh.ToString() << ": " << result.ShortDebugString();
  }
}

TEST(VerifierTest, EveryKindOfLayerIsRecomputedRight) {
  for (const NormKind norm : {NormKind::kNone, NormKind::kLayerNorm, NormKind::kRmsNorm}) {
    for (const MlpKind mlp : {MlpKind::kNone, MlpKind::kGelu, MlpKind::kGeluTanh, MlpKind::kSwiglu}) {
      for (const MaskKind mask : {MaskKind::kFull, MaskKind::kCausal, MaskKind::kWindow}) {
        JobSpec job = MakeJob();
        job.config.norm = norm;
        job.config.mlp = mlp;
        if (mlp == MlpKind::kNone) job.config.intermediate_size = 0;
        job.mask = {mask, 5, 2, {}};
        const v1::Verification result =
            RunAll(job, ShardedPlan(job, {1, 1, 2, 2}, LayoutKind::kZigzag, CoreKind::kRing));
        EXPECT_LT(result.worst_error(), 1e-5) << result.ShortDebugString();
      }
    }
  }
}

TEST(VerifierTest, Bfloat16IsWithinItsOwnBound) {
  JobSpec job = MakeJob();
  job.dtype = DType::kBF16;
  const v1::Verification result =
      RunAll(job, ShardedPlan(job, {1, 2, 2, 2}, LayoutKind::kZigzag, CoreKind::kRing));
  EXPECT_GT(result.worst_error(), 1e-4);
  EXPECT_LT(result.worst_error(), 5e-2) << result.ShortDebugString();
}

// The memory that it takes grows neither with the ranks nor with the rows, and no sum comes out otherwise.
TEST(VerifierTest, PiecesOfWhatGoesBetweenRanksChangeNoBit) {
  const JobSpec job = MakeJob();
  for (const MeshCase& c : kMeshes) {
    SCOPED_TRACE(c.mesh.ToString());
    const Plan plan = ShardedPlan(job, c.mesh, c.layout, c.core);
    const auto none = [](const LayerStep&) {};
    const std::string whole = RunAll(job, plan, none).SerializeAsString();
    for (const int64_t bytes : {1, 3000}) {
      // One head of one row is the least, of every rank and once more to be sent.
      const int64_t most = std::max<int64_t>(bytes, (c.mesh.size() + 1) * (job.config.head_dim + 2) * 8);
      EXPECT_EQ(RunAll(job, plan, none, bytes, most).SerializeAsString(), whole) << bytes;
    }
  }
}

// What was spoiled in layer 1 is found, named, and of the right size.
TEST(VerifierTest, WhatIsWrongIsFoundByName) {
  const auto columns = [](const Matrix& kv, int half) {
    return kv.Cols(half * kv.cols / 2, (half + 1) * kv.cols / 2);
  };
  const std::map<std::string, Spoil> spoils = {
      {"hidden_states", [](const LayerStep& step) { Scale(step.y, 1.01f); }},
      {"k", [&](const LayerStep& step) { Scale(columns(step.attention().kv, 0), 1.01f); }},
      {"v", [&](const LayerStep& step) { Scale(columns(step.attention().kv, 1), 1.01f); }},
      {"dq", [](const LayerStep& step) { Scale(step.attention().dq, 1.01f); }},
      {"dk", [&](const LayerStep& step) { Scale(columns(step.attention().dkv, 0), 1.01f); }},
      {"dv", [&](const LayerStep& step) { Scale(columns(step.attention().dkv, 1), 1.01f); }}};
  const JobSpec job = MakeJob();
  for (const MeshCase& c : {kMeshes[0], kMeshes[6]}) {
    for (const auto& [tensor, spoil] : spoils) {
      SCOPED_TRACE(tensor + " on " + c.mesh.ToString());
      const bool gradient = tensor[0] == 'd';
      const auto wrong = spoil;
      const v1::Verification result =
          RunAll(job, ShardedPlan(job, c.mesh, c.layout, c.core), [&](const LayerStep& step) {
            if (step.layer == 1 && (step.pass == Pass::kBackward) == gradient) wrong(step);
          });
      double error = 0;
      for (const v1::LayerError& layer : result.layers()) {
        if (layer.layer() == 1 && layer.tensor() == tensor) error = layer.error();
        if (layer.layer() == 0 && !gradient) {
          EXPECT_LT(layer.error(), 1e-2) << layer.tensor();
        }
      }
      EXPECT_NEAR(error, 0.01, 1e-3);
      EXPECT_GE(result.worst_error(), error);
    }
  }
}

TEST(VerifierTest, NotANumberIsTheWorstWhateverComesAfterIt) {
  const JobSpec job = MakeJob();
  const v1::Verification result = RunAll(
      job, ShardedPlan(job, {1, 1, 2, 2}, LayoutKind::kZigzag, CoreKind::kRing), [](const LayerStep& step) {
        if (step.layer != 1 || step.pass != Pass::kBackward) return;
        Scale(step.attention().dq, std::numeric_limits<float>::quiet_NaN());
      });
  EXPECT_TRUE(std::isnan(result.worst_error())) << result.ShortDebugString();
  EXPECT_EQ(result.worst_tensor(), "dq");
  EXPECT_EQ(result.worst_layer(), 1);
}

}  // namespace
}  // namespace seqpar
