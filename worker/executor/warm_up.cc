#include "worker/executor/warm_up.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/attention/strategies.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/layers/mlp_pieces.h"
#include "common/layers/weight_table.h"
#include "worker/executor/shard.h"

namespace seqpar {
namespace {

// A weight, or two that are one matrix, as this rank holds it: [out, in].
struct Weight {
  int64_t out = 0, in = 0;
  bool biased = false;
  bool mlp = false;     // multiplied with rows in pieces
  bool second = false;  // the gradient of what it multiplies is added to another weight's
  bool last = false;    // of a half of the layer: its product is added to the half's input
};

// What libraries choose by, beside the weight's shape.
struct Rows {
  int64_t count = 0;
  bool first = true;  // gradients of weights are written, not added to
};

std::vector<Weight> WeightsOf(const WeightTable& table) {
  std::vector<Weight> weights;
  const auto add = [&](WeightId id, WeightId bias, WeightId second) {
    const WeightSlice* first = table.Find(id);
    if (first == nullptr) return;
    const WeightSlice* other = second == id ? nullptr : table.Find(second);
    const int64_t out = first->rows.size() + (other == nullptr ? 0 : other->rows.size());
    if (out > 0 && first->cols.size() > 0) {
      const bool mlp = id == WeightId::kGate || id == WeightId::kUp || id == WeightId::kDown;
      const bool last = id == WeightId::kO || id == WeightId::kDown;
      weights.push_back(
          {out, first->cols.size(), table.Find(bias) != nullptr, mlp, id == WeightId::kK, last});
    }
  };
  add(WeightId::kQ, WeightId::kQBias, WeightId::kQ);
  add(WeightId::kK, WeightId::kKBias, WeightId::kV);
  add(WeightId::kO, WeightId::kOBias, WeightId::kO);
  add(table.Find(WeightId::kGate) != nullptr ? WeightId::kGate : WeightId::kUp, WeightId::kUpBias,
      WeightId::kUp);
  add(WeightId::kDown, WeightId::kDownBias, WeightId::kDown);
  return weights;
}

}  // namespace

absl::Status WarmUpProducts(const JobSpec& job, const Plan& plan, int rank, Device& device, Stream& compute,
                            const std::function<void()>& step) {
  int64_t rows = 0;
  for (const int peer : plan.mesh.TensorGroup(rank)) rows += plan.ranks[peer].tokens.size() * job.batch;
  const HeadLayout heads(plan.mesh, job.config.heads, job.config.kv_heads);
  const std::vector<Weight> weights = WeightsOf(WeightTable(job.config, plan.mesh, heads, rank));
  if (rows == 0 || weights.empty()) return absl::OkStatus();
  std::vector<std::pair<Weight, Rows>> products;
  const int64_t piece = MlpPieceRows(rows), last = rows - (rows - 1) / piece * piece;
  for (const Weight& w : weights) {
    products.emplace_back(w, Rows{w.mlp ? piece : rows});
    if (!w.mlp || piece == rows) continue;
    if (last != piece) products.emplace_back(w, Rows{last, false});
    if (rows > 2 * piece || last == piece) products.emplace_back(w, Rows{piece, false});
  }
  const auto adds = [&](const Weight& w) { return w.last && !w.biased && plan.mesh.tensor == 1; };
  int64_t largest_input = 0, largest_output = 0, largest_weight = 0, widest = 0, largest_addend = 1;
  for (const auto& [w, n] : products) {
    largest_input = std::max(largest_input, n.count * w.in);
    largest_output = std::max(largest_output, n.count * w.out);
    largest_weight = std::max(largest_weight, w.in * w.out);
    widest = std::max(widest, w.out);
    if (adds(w)) largest_addend = std::max(largest_addend, n.count * w.out);
  }
  const auto zeros = [&](int64_t elements, DType type) -> absl::StatusOr<Buffer> {
    SEQPAR_ASSIGN_OR_RETURN(Buffer buffer, device.Allocate(elements * SizeOf(type), "warming up"));
    device.Zero(compute, buffer.data(), elements * SizeOf(type));
    return buffer;
  };
  SEQPAR_ASSIGN_OR_RETURN(const Buffer inputs, zeros(largest_input, job.dtype));
  SEQPAR_ASSIGN_OR_RETURN(const Buffer outputs, zeros(largest_output, job.dtype));
  SEQPAR_ASSIGN_OR_RETURN(const Buffer weight, zeros(largest_weight, job.dtype));
  SEQPAR_ASSIGN_OR_RETURN(const Buffer gradient, zeros(job.backward() ? largest_weight : 1, DType::kF32));
  SEQPAR_ASSIGN_OR_RETURN(const Buffer bias, zeros(widest, job.dtype));
  SEQPAR_ASSIGN_OR_RETURN(const Buffer addends, zeros(largest_addend, job.dtype));
  for (const auto& [w, n] : products) {
    const Matrix x(inputs.data(), job.dtype, n.count, w.in), y(outputs.data(), job.dtype, n.count, w.out);
    const Matrix matrix(weight.data(), job.dtype, w.out, w.in), b(bias.data(), job.dtype, 1, w.out);
    const Matrix sums(gradient.data(), DType::kF32, w.out, w.in);
    if (n.first || n.count != piece) {  // once for all pieces of as many rows
      if (adds(w)) {
        device.GemmPlus(compute, x, false, matrix, true, Matrix(addends.data(), job.dtype, n.count, w.out),
                        y);
      } else {
        device.Gemm(compute, x, false, matrix, true, y, false, w.biased ? &b : nullptr);
      }
      if (job.backward()) device.Gemm(compute, y, false, matrix, false, x, w.second, nullptr);
    }
    if (job.backward()) device.Gemm(compute, y, true, x, false, sums, !n.first, nullptr);
    step();
  }
  return compute.Synchronize();
}

absl::Status WarmUpAttention(const JobSpec& job, const Plan& plan, int rank, Device& device,
                             const std::function<void()>& step) {
  const AttentionPlan attention = MakeLayerPlan(job, plan, rank).Attention();
  SEQPAR_ASSIGN_OR_RETURN(const AttentionCalls calls, AttentionTiles(attention));
  const auto prepare = [&](const std::vector<AttentionTile>& tiles, bool backward) {
    for (const AttentionTile& tile : tiles) {
      device.PrepareAttention(tile, backward);
      step();
    }
  };
  prepare(calls.forward, false);
  if (job.backward()) prepare(calls.backward, true);
  const AttentionUse use = device.attention_use();
  if (use.made_ahead > 0) {
    LogInfo("attention prepared", {{"kernels", use.made_ahead}, {"seconds", use.ahead_seconds}});
  }
  return absl::OkStatus();
}

}  // namespace seqpar
