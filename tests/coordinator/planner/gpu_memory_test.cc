// What is predicted of a GPU's memory: its kernels' scratch against what the plug-in cuts its launches into,
// and that what does not fit is refused when it is planned.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/device/cuda_scratch.h"
#include "coordinator/planner/memory.h"
#include "coordinator/planner/planner.h"
#include "tests/coordinator/planner/clusters.h"
#include "worker/device/cuda/head_grid.h"

namespace seqpar {
namespace {

constexpr double kMiB = 1 << 20;

JobSpec LayerJob(int64_t tokens, int heads, int kv_heads, int head_dim) {
  JobSpec job;
  job.config = {.hidden_size = heads * head_dim,
                .heads = heads,
                .kv_heads = kv_heads,
                .head_dim = head_dim,
                .intermediate_size = 14336,
                .layers = 1};
  job.config.rope_theta = 500'000;
  job.dtype = DType::kBF16;
  job.pass = JobPass::kForwardBackward;
  job.tokens = tokens;
  return job;
}

double Kernels(const JobSpec& job, const Mesh& mesh, const std::string& kind) {
  const RingCost ring = MakeRingCost(job.mask.Make(job.tokens), LayoutKind::kContiguous, CoreKind::kRing,
                                     mesh.inner, std::vector<int>(mesh.ring, 0));
  const HeadLayout heads(mesh, job.config.heads, job.config.kv_heads);
  return PredictRankMemory(job, {mesh}, Recompute::kNone, mesh.CoordOf(0), heads, ring, kind).kernels;
}

// The largest launch of attention's backward pass, as worker/device/cuda/fa4_attention.cc cuts it.
int64_t LargestLaunch(const JobSpec& job, int64_t queries, const HeadRange& heads, int tile) {
  int64_t most = 0;
  const int group = job.config.heads / job.config.kv_heads;
  for (const auto& whole : cuda::HeadGrids(job.batch, heads, group, /*shared_kv=*/true)) {
    for (const auto& grid : cuda::SplitGrid(whole, CudaAttentionHeads(queries, job.config.head_dim))) {
      most = std::max(most,
                      CudaAttentionScratchBytes(queries, grid.outer * grid.inner, job.config.head_dim, tile));
    }
  }
  return most;
}

TEST(GpuMemoryTest, PredictsTheScratchOfAttentionsLargestLaunch) {
  for (const auto& [heads, kv_heads, head_dim] :
       {std::array{32, 32, 128}, {32, 8, 128}, {32, 8, 64}, {24, 3, 96}, {1, 1, 128}, {14, 2, 64}}) {
    for (const int64_t tokens : {1000, 8192, 10'007, 32'768, 131'072, 600'000, 2'000'000}) {
      const JobSpec job = LayerJob(tokens, heads, kv_heads, head_dim);
      const HeadRange all = MakeHeadRange(0, heads, heads / kv_heads);
      int64_t launch = 0;
      for (const int tile : {64, 80, 128}) launch = std::max(launch, LargestLaunch(job, tokens, all, tile));
      const double predicted = Kernels(job, Mesh(), "cuda") - static_cast<double>(kCudaProductWorkspaceBytes);
      EXPECT_GE(predicted, launch) << heads << "/" << kv_heads << " " << head_dim << " " << tokens;
      // Of few long heads a launch may take one less than there is room for; where it takes less, others take
      // kCudaAttentionLeastBytes.
      const double head = static_cast<double>(CudaAttentionScratchBytes(tokens, 1, head_dim, 128));
      EXPECT_LE(predicted, std::max(1.1 * static_cast<double>(launch) + head + 20 * kMiB, 64 * kMiB))
          << heads << "/" << kv_heads << " " << head_dim << " " << tokens;
    }
  }
}

TEST(GpuMemoryTest, ScratchIsOfARanksOwnPart) {
  const JobSpec job = LayerJob(1'000'000, 32, 8, 128);
  // A quarter of the queries: four times the heads in a launch. An eighth of the heads: no more than those.
  const double whole = Kernels(job, Mesh(), "cuda");
  EXPECT_LT(whole, static_cast<double>(kCudaProductWorkspaceBytes + kCudaAttentionBytes) * 1.05);
  EXPECT_LT(Kernels(job, {1, 1, 64, 64}, "cuda"), 0.6 * whole);
}

TEST(GpuMemoryTest, Float32AndForwardTakeNoSums) {
  JobSpec job = LayerJob(131'072, 32, 8, 128);
  job.dtype = DType::kF32;
  EXPECT_LT(Kernels(job, Mesh(), "cuda"), 64 * kMiB);
  job.dtype = DType::kBF16;
  job.pass = JobPass::kForward;
  EXPECT_LE(Kernels(job, Mesh(), "cuda"), (32 + 64) * kMiB);
}

TEST(GpuMemoryTest, AProductWithABiasIsRoundedInPartsOfRows) {
  JobSpec job = LayerJob(8192, 32, 8, 128);
  job.pass = JobPass::kForward;
  job.config.mlp_bias = true;
  for (const int64_t tokens : {8192, 1'000'000}) {
    job.tokens = tokens;
    const double kernels = Kernels(job, Mesh(), "cuda");
    EXPECT_GT(kernels, 280 * kMiB);
    EXPECT_LE(kernels, 288 * kMiB);
  }
  EXPECT_EQ(CudaRoundedProductRows(100, 14336), 100);
  EXPECT_LE(CudaRoundedProductRows(1 << 20, 14336) * 14336 * 4, kCudaRoundedProductBytes);
  EXPECT_EQ(CudaRoundedProductRows(5, int64_t{1} << 40), 1);
}

TEST(GpuMemoryTest, CpuSlotsKeepTheirOwnWorkspace) {
  const JobSpec job = LayerJob(32'768, 32, 8, 128);
  EXPECT_NE(Kernels(job, Mesh(), "cpu"), Kernels(job, Mesh(), "cuda"));
}

// Half of the 23.16 GiB of the same layer in PyTorch (docs/gpu-results.md).
TEST(GpuMemoryTest, ALongLayerTakesHalfOfPyTorchsMemory) {
  const JobSpec job = LayerJob(131'072, 32, 8, 128);
  const RingCost ring =
      MakeRingCost(job.mask.Make(job.tokens), LayoutKind::kContiguous, CoreKind::kRing, 1, {0});
  const HeadLayout heads(Mesh(), job.config.heads, job.config.kv_heads);
  const auto gib = [&](Recompute recompute) {
    return PredictRankMemory(job, {Mesh()}, recompute, {}, heads, ring, "cuda").total() / (1024 * kMiB);
  };
  std::printf("one layer of 131072 tokens: %.2f GiB, the MLP made again %.2f\n", gib(Recompute::kNone),
              gib(Recompute::kMlp));
  EXPECT_LT(gib(Recompute::kMlp), 23.16 / 2);
  EXPECT_LT(gib(Recompute::kNone), 23.16);
}

// The longest sequence that is planned, and a tenth more.
TEST(GpuMemoryTest, WhatDoesNotFitIsRefusedWhenItIsPlanned) {
  const DeviceSpec gpu = H200();
  const ClusterSnapshot cluster = MakeCluster(1, 1, gpu, {20e-6, 5e9}, {100e-6, 1e9});
  const auto plan = [&](int64_t tokens) {
    JobSpec job = LayerJob(tokens, 32, 8, 128);
    job.max_workers = 1;
    return PlanJob(job, cluster, Calibration(), {});
  };
  int64_t fits = 1024, over = 1 << 24;
  while (over - fits > 1) {
    const int64_t middle = (fits + over) / 2;
    (plan(middle).ok() ? fits : over) = middle;
  }
  const auto longest = plan(fits);
  ASSERT_TRUE(longest.ok()) << longest.status();
  const double used =
      static_cast<double>(longest->plan.prediction.peak_bytes) / static_cast<double>(gpu.memory_bytes);
  EXPECT_GT(used, 0.949);
  EXPECT_LE(used, 0.95);
  const absl::Status refused = plan(fits + fits / 10).status();
  EXPECT_EQ(ReasonOf(refused), reason::kInfeasible) << refused;
}

}  // namespace
}  // namespace seqpar
