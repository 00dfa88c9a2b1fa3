// Predicted memory against what ranks really allocate: layers run over in-process threads, and the peak of
// each rank's device is compared with the prediction for that rank.
#include "coordinator/planner/memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/attention/strategies.h"
#include "common/base/status.h"
#include "common/job/verification.h"
#include "common/layers/layer_stack.h"
#include "coordinator/planner/cost.h"
#include "tests/coordinator/planner/clusters.h"
#include "tests/oracle/run_ranks.h"

namespace seqpar {
namespace {

struct MemoryCase {
  const char* name;
  Mesh mesh;
  CoreKind core = CoreKind::kRing;
  LayoutKind layout = LayoutKind::kContiguous;
  Recompute recompute = Recompute::kNone;
  DType dtype = DType::kF32;
  JobPass pass = JobPass::kForwardBackward;
  int kv_heads = 8;
  MaskKind mask = MaskKind::kCausal;
  MlpKind mlp = MlpKind::kSwiglu;
  int64_t tokens = 2045;
  bool inspect = false;
};

void PrintTo(const MemoryCase& c, std::ostream* out) { *out << c.name; }

JobSpec JobOf(const MemoryCase& c) {
  JobSpec job;
  job.config = {.hidden_size = 256,
                .heads = 8,
                .kv_heads = c.kv_heads,
                .head_dim = 32,
                .intermediate_size = c.mlp == MlpKind::kNone ? 0 : 704,
                .layers = c.tokens > kMlpPieceRows ? 1 : 3,
                .mlp = c.mlp};
  job.config.rope_theta = 10000;
  job.dtype = c.dtype;
  job.pass = c.pass;
  job.mask.kind = c.mask;
  job.mask.left = c.mask == MaskKind::kWindow ? 300 : -1;
  job.mask.right = c.mask == MaskKind::kWindow ? 0 : -1;
  job.tokens = c.tokens;
  job.verify_rows = c.inspect ? 1 : 0;
  return job;
}

LayerPlan PlanOf(const MemoryCase& c, const JobSpec& job, int rank) {
  LayerPlan plan;
  plan.config = job.config;
  plan.dtype = job.dtype;
  plan.mask = job.mask.Make(job.tokens);
  plan.tokens = TokenLayout(c.mesh, c.layout, job.tokens);
  plan.strategy = StrategyOfMesh(c.mesh, c.core);
  plan.core = c.core;
  plan.backward = job.backward();
  plan.recompute = c.recompute;
  plan.inspect = c.inspect;
  plan.rank = rank;
  return plan;
}

// Runs the layers on zeros, which take as much memory as anything else.
absl::Status MeasurePeak(const MemoryCase& c, const JobSpec& job, TestRank& self, int64_t* peak) {
  const LayerPlan plan = PlanOf(c, job, self.rank);
  const RankStreams streams{self.device, self.compute, self.comm};
  SEQPAR_ASSIGN_OR_RETURN(const RankGroups groups, RankGroups::Create(self.world, plan.mesh(), plan.Heads()));
  SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<TransformerLayer> layer,
                          TransformerLayer::Create(plan, streams, &groups));
  std::vector<std::unique_ptr<WeightSet>> weights;
  std::vector<const WeightSet*> pointers;
  for (int l = 0; l < job.config.layers; ++l) {
    SEQPAR_ASSIGN_OR_RETURN(WeightSet set,
                            WeightSet::Create(&layer->table(), self.device, job.dtype, "weights"));
    std::memset(set.All().data, 0, set.All().bytes());
    weights.push_back(std::make_unique<WeightSet>(std::move(set)));
    pointers.push_back(weights.back().get());
  }
  SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<LayerStack> stack,
                          LayerStack::Create(layer.get(), streams, &groups, pointers));
  std::memset(stack->input().data, 0, stack->input().bytes());
  SEQPAR_RETURN_IF_ERROR(stack->Forward(nullptr));
  if (plan.backward) {
    std::memset(stack->output_gradient().data, 0, stack->output_gradient().bytes());
    SEQPAR_RETURN_IF_ERROR(stack->Backward(nullptr));
  }
  *peak = self.device->memory().peak_bytes;
  return absl::OkStatus();
}

// Of the rank that sends most. Predictions take the first rank of each axis and even groups: near, not equal.
void ExpectBytesSent(const MemoryCase& c, const JobSpec& job,
                     const std::vector<std::map<TrafficKey, Traffic>>& traffic) {
  int64_t most = 0;
  for (const auto& rank : traffic) {
    int64_t bytes = 0;
    for (const auto& entry : rank)
      bytes += entry.first.operation == Operation::kControl ? 0 : entry.second.bytes;
    most = std::max(most, bytes);
  }
  const ClusterSnapshot cluster = MakeCluster(1, c.mesh.size(), CpuSlot(), {20e-6, 5e9}, {100e-6, 1e9});
  CostModel model(job, Calibration());
  const Prediction p =
      model.Predict({c.mesh, c.core, c.layout}, c.recompute, 0, *PlaceGang(cluster, c.mesh.size(), {}));
  EXPECT_NEAR(static_cast<double>(p.bytes_sent), static_cast<double>(most), 0.02 * static_cast<double>(most));
}

class MemoryTest : public ::testing::TestWithParam<MemoryCase> {};

TEST_P(MemoryTest, PredictsThePeakOfEveryRank) {
  const MemoryCase& c = GetParam();
  const JobSpec job = JobOf(c);
  std::vector<int64_t> peaks(c.mesh.size());
  std::vector<std::map<TrafficKey, Traffic>> traffic;
  const absl::Status status = RunRanks(
      c.mesh.size(), [&](TestRank& self) { return MeasurePeak(c, job, self, &peaks[self.rank]); }, {},
      &traffic);
  ASSERT_TRUE(status.ok()) << status;
  ExpectBytesSent(c, job, traffic);
  const RingCost ring = MakeRingCost(job.mask.Make(job.tokens), c.layout, c.core, c.mesh.inner,
                                     std::vector<int>(c.mesh.ring, 0));
  const HeadLayout heads(c.mesh, job.config.heads, job.config.kv_heads);
  std::string ratios;
  for (int rank = 0; rank < c.mesh.size(); ++rank) {
    const RankMemory m = PredictRankMemory(job, {c.mesh, c.core, c.layout}, c.recompute, c.mesh.CoordOf(rank),
                                           heads, ring, "cpu");
    const double ratio = m.total() / static_cast<double>(peaks[rank]);
    absl::StrAppend(&ratios, rank > 0 ? " " : "", static_cast<int>(ratio * 1000 + 0.5) / 1000.0);
    EXPECT_NEAR(ratio, 1, 0.1) << "rank " << rank << ": measured " << peaks[rank] << ", weights " << m.weights
                               << " weight gradients " << m.weight_gradients << " hidden " << m.hidden
                               << " kept " << m.kept << " layer " << m.layer << " communication "
                               << m.communication << " kernels " << m.kernels;
  }
  RecordProperty("predicted_over_measured", ratios);
  std::printf("%-28s predicted / measured: %s\n", c.name, ratios.c_str());
}

// What tests/worker/executor/verify_test.cc measures of the verifier: one exchange of all ranks' values of
// the widest matrix, and of many rows or ranks no more than a bound.
TEST(VerificationMemoryTest, IsThatOfTheWidestExchangeWithinItsBound) {
  const auto predicted = [](JobSpec job, const Mesh& mesh) {
    const RingCost ring = MakeRingCost(job.mask.Make(job.tokens), LayoutKind::kContiguous, CoreKind::kRing,
                                       mesh.inner, std::vector<int>(mesh.ring, 0));
    const HeadLayout heads(mesh, job.config.heads, job.config.kv_heads);
    return PredictRankMemory(job, {mesh}, Recompute::kNone, mesh.CoordOf(0), heads, ring, "cpu").verification;
  };
  JobSpec job = JobOf({});
  EXPECT_EQ(predicted(job, {1, 1, 4, 4}), 0);
  job.verify_rows = 9;
  EXPECT_EQ(predicted(job, {1, 1, 4, 4}), (4 + 1) * 9 * 2 * 8 * 32 * 8);  // K and V of 8 heads
  job.pass = JobPass::kForward;
  EXPECT_EQ(predicted(job, {1, 1, 4, 4}), (4 + 1) * 9 * 8 * (32 + 2) * 8);  // partial attention of 8 heads
  EXPECT_EQ(predicted(job, {1, 4, 1, 1}), (4 + 1) * 9 * 256 * 8);           // hidden states
  job.verify_rows = 4096;
  job.tokens = 1 << 16;
  const double most = predicted(job, {1, 1, 64, 64});
  EXPECT_LE(most, kVerifyBytes);
  EXPECT_GT(most, 0.99 * kVerifyBytes);
}

constexpr JobPass kForwardOnly = JobPass::kForward;
constexpr Recompute kNone = Recompute::kNone, kMlp = Recompute::kMlp, kAttention = Recompute::kAttention,
                    kLayer = Recompute::kLayer;

INSTANTIATE_TEST_SUITE_P(
    Meshes, MemoryTest,
    ::testing::Values(
        MemoryCase{"OneRank", {1, 1, 1, 1}},
        MemoryCase{"OneRankForward",
                   {1, 1, 1, 1},
                   CoreKind::kRing,
                   LayoutKind::kContiguous,
                   kNone,
                   DType::kF32,
                   kForwardOnly},
        MemoryCase{"Tensor", {4, 1, 1, 1}},
        MemoryCase{"TensorForward",
                   {4, 1, 1, 1},
                   CoreKind::kRing,
                   LayoutKind::kContiguous,
                   kNone,
                   DType::kF32,
                   kForwardOnly},
        MemoryCase{"TensorCopiesKvHeads",
                   {4, 1, 1, 1},
                   CoreKind::kRing,
                   LayoutKind::kContiguous,
                   kNone,
                   DType::kF32,
                   JobPass::kForwardBackward,
                   2},
        MemoryCase{"TensorBf16", {2, 1, 1, 1}, CoreKind::kRing, LayoutKind::kContiguous, kNone, DType::kBF16},
        MemoryCase{"Ulysses", {1, 4, 1, 1}},
        MemoryCase{"UlyssesForward",
                   {1, 4, 1, 1},
                   CoreKind::kRing,
                   LayoutKind::kContiguous,
                   kNone,
                   DType::kF32,
                   kForwardOnly},
        MemoryCase{"UlyssesUneven",
                   {1, 3, 1, 1},
                   CoreKind::kRing,
                   LayoutKind::kContiguous,
                   kNone,
                   DType::kF32,
                   JobPass::kForwardBackward,
                   2},
        MemoryCase{"UlyssesAttention", {1, 4, 1, 1}, CoreKind::kRing, LayoutKind::kContiguous, kAttention},
        MemoryCase{"UlyssesMlp", {1, 4, 1, 1}, CoreKind::kRing, LayoutKind::kContiguous, kMlp},
        MemoryCase{"UlyssesLayer", {1, 4, 1, 1}, CoreKind::kRing, LayoutKind::kContiguous, kLayer},
        MemoryCase{
            "UlyssesBf16", {1, 4, 1, 1}, CoreKind::kRing, LayoutKind::kContiguous, kNone, DType::kBF16},
        MemoryCase{"RingZigzag", {1, 1, 4, 4}, CoreKind::kRing, LayoutKind::kZigzag},
        MemoryCase{"RingForward",
                   {1, 1, 4, 4},
                   CoreKind::kRing,
                   LayoutKind::kZigzag,
                   kNone,
                   DType::kF32,
                   kForwardOnly},
        MemoryCase{
            "RingStripedBf16", {1, 1, 4, 4}, CoreKind::kRing, LayoutKind::kStriped, kNone, DType::kBF16},
        MemoryCase{"RingContiguous", {1, 1, 4, 4}},
        MemoryCase{"RingAttention", {1, 1, 4, 4}, CoreKind::kRing, LayoutKind::kZigzag, kAttention},
        MemoryCase{"RingLayer", {1, 1, 4, 4}, CoreKind::kRing, LayoutKind::kZigzag, kLayer},
        MemoryCase{"RingWindow",
                   {1, 1, 4, 4},
                   CoreKind::kRing,
                   LayoutKind::kContiguous,
                   kNone,
                   DType::kF32,
                   JobPass::kForwardBackward,
                   8,
                   MaskKind::kWindow},
        MemoryCase{"RingFull",
                   {1, 1, 5, 5},
                   CoreKind::kRing,
                   LayoutKind::kContiguous,
                   kNone,
                   DType::kF32,
                   JobPass::kForwardBackward,
                   8,
                   MaskKind::kFull},
        MemoryCase{"DoubleRing", {1, 1, 6, 3}, CoreKind::kRing, LayoutKind::kZigzag},
        MemoryCase{"Gather", {1, 1, 4, 4}, CoreKind::kGather, LayoutKind::kZigzag},
        MemoryCase{"GatherForward",
                   {1, 1, 4, 4},
                   CoreKind::kGather,
                   LayoutKind::kContiguous,
                   kNone,
                   DType::kF32,
                   kForwardOnly},
        MemoryCase{"GatherLayer", {1, 1, 4, 4}, CoreKind::kGather, LayoutKind::kZigzag, kLayer},
        MemoryCase{"GatherAttentionBf16",
                   {1, 1, 4, 4},
                   CoreKind::kGather,
                   LayoutKind::kZigzag,
                   kAttention,
                   DType::kBF16},
        MemoryCase{"UlyssesRing", {1, 2, 2, 2}, CoreKind::kRing, LayoutKind::kZigzag},
        MemoryCase{"TensorUlysses", {2, 2, 1, 1}},
        MemoryCase{"TensorRingLayer", {2, 1, 2, 2}, CoreKind::kRing, LayoutKind::kZigzag, kLayer},
        MemoryCase{
            "TensorRingMlpBf16", {2, 1, 2, 2}, CoreKind::kRing, LayoutKind::kZigzag, kMlp, DType::kBF16},
        MemoryCase{"SeveralPieces",
                   {1, 1, 1, 1},
                   CoreKind::kRing,
                   LayoutKind::kContiguous,
                   kMlp,
                   DType::kF32,
                   JobPass::kForwardBackward,
                   8,
                   MaskKind::kWindow,
                   MlpKind::kSwiglu,
                   2 * kMlpPieceRows + 3},
        MemoryCase{"SeveralPiecesForward",
                   {1, 1, 1, 1},
                   CoreKind::kRing,
                   LayoutKind::kContiguous,
                   kNone,
                   DType::kF32,
                   kForwardOnly,
                   8,
                   MaskKind::kWindow,
                   MlpKind::kSwiglu,
                   2 * kMlpPieceRows + 3},
        MemoryCase{"TensorUlyssesRing", {2, 2, 2, 2}, CoreKind::kRing, LayoutKind::kZigzag},
        MemoryCase{
            "TensorGatherBf16", {2, 1, 2, 2}, CoreKind::kGather, LayoutKind::kZigzag, kNone, DType::kBF16},
        MemoryCase{"NoMlpLayer",
                   {1, 2, 2, 2},
                   CoreKind::kRing,
                   LayoutKind::kZigzag,
                   kLayer,
                   DType::kF32,
                   JobPass::kForwardBackward,
                   8,
                   MaskKind::kCausal,
                   MlpKind::kNone},
        MemoryCase{.name = "UlyssesInspected", .mesh = {1, 4, 1, 1}, .inspect = true},
        MemoryCase{
            .name = "UlyssesBf16Inspected", .mesh = {1, 4, 1, 1}, .dtype = DType::kBF16, .inspect = true},
        MemoryCase{.name = "TensorRingBf16Inspected",
                   .mesh = {2, 1, 2, 2},
                   .layout = LayoutKind::kZigzag,
                   .dtype = DType::kBF16,
                   .inspect = true},
        MemoryCase{.name = "UnevenTensorBf16", .mesh = {3, 1, 1, 1}, .dtype = DType::kBF16},
        MemoryCase{
            .name = "UnevenTensorMlpBf16", .mesh = {3, 1, 1, 1}, .recompute = kMlp, .dtype = DType::kBF16},
        MemoryCase{"GeluTensor",
                   {2, 1, 1, 1},
                   CoreKind::kRing,
                   LayoutKind::kContiguous,
                   kNone,
                   DType::kF32,
                   JobPass::kForwardBackward,
                   8,
                   MaskKind::kCausal,
                   MlpKind::kGelu}),
    [](const ::testing::TestParamInfo<MemoryCase>& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace seqpar
