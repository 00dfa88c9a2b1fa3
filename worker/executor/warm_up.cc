#include "worker/executor/warm_up.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "common/layers/weight_table.h"

namespace seqpar {
namespace {

// A weight, or two that are one matrix, as this rank holds it: [out, in].
struct Weight {
  int64_t out = 0, in = 0;
  bool biased = false;
};

std::vector<Weight> WeightsOf(const WeightTable& table) {
  std::vector<Weight> weights;
  const auto add = [&](WeightId id, WeightId bias, WeightId second) {
    const WeightSlice* first = table.Find(id);
    if (first == nullptr) return;
    const WeightSlice* other = second == id ? nullptr : table.Find(second);
    const int64_t out = first->rows.size() + (other == nullptr ? 0 : other->rows.size());
    if (out > 0 && first->cols.size() > 0) {
      weights.push_back({out, first->cols.size(), table.Find(bias) != nullptr});
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

absl::Status WarmUpProducts(const JobSpec& job, const Plan& plan, int rank, Device& device, Stream& compute) {
  int64_t rows = 0;
  for (const int peer : plan.mesh.TensorGroup(rank)) rows += plan.ranks[peer].tokens.size() * job.batch;
  const HeadLayout heads(plan.mesh, job.config.heads, job.config.kv_heads);
  const std::vector<Weight> weights = WeightsOf(WeightTable(job.config, plan.mesh, heads, rank));
  if (rows == 0 || weights.empty()) return absl::OkStatus();
  int64_t widest = 0, largest = 0;
  for (const Weight& w : weights) {
    widest = std::max({widest, w.in, w.out});
    largest = std::max(largest, w.in * w.out);
  }
  const auto zeros = [&](int64_t elements, DType type) -> absl::StatusOr<Buffer> {
    SEQPAR_ASSIGN_OR_RETURN(Buffer buffer, device.Allocate(elements * SizeOf(type), "warming up"));
    device.Zero(compute, buffer.data(), elements * SizeOf(type));
    return buffer;
  };
  SEQPAR_ASSIGN_OR_RETURN(const Buffer inputs, zeros(rows * widest, job.dtype));
  SEQPAR_ASSIGN_OR_RETURN(const Buffer outputs, zeros(rows * widest, job.dtype));
  SEQPAR_ASSIGN_OR_RETURN(const Buffer weight, zeros(largest, job.dtype));
  SEQPAR_ASSIGN_OR_RETURN(const Buffer gradient, zeros(job.backward() ? largest : 1, DType::kF32));
  SEQPAR_ASSIGN_OR_RETURN(const Buffer bias, zeros(widest, job.dtype));
  for (const Weight& w : weights) {
    const Matrix x(inputs.data(), job.dtype, rows, w.in), y(outputs.data(), job.dtype, rows, w.out);
    const Matrix matrix(weight.data(), job.dtype, w.out, w.in), b(bias.data(), job.dtype, 1, w.out);
    device.Gemm(compute, x, false, matrix, true, y, false, w.biased ? &b : nullptr);
    if (!job.backward()) continue;
    device.Gemm(compute, y, false, matrix, false, x, false, nullptr);
    device.Gemm(compute, y, true, x, false, Matrix(gradient.data(), DType::kF32, w.out, w.in), true, nullptr);
  }
  return compute.Synchronize();
}

}  // namespace seqpar
