#include "coordinator/planner/memory.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "common/device/cuda_scratch.h"
#include "common/device/device_models.h"
#include "common/job/verification.h"
#include "common/layers/layer_scratch.h"
#include "common/layers/mlp_pieces.h"

namespace seqpar {
namespace {

constexpr double kFloat = 4;
// What the CPU's products (worker/device/cpu) copy of an operand at a time: columns, and their depth at most.
constexpr double kCopiedCols = 64, kCopiedDepth = 1024;
// Its sums over rows: blocks at most, rows of the smallest block, floats a column in each.
constexpr double kSumBlocks = 64, kSumRows = 64, kSumFloats = 3;

int64_t Part(int64_t whole, int parts, int index) { return whole / parts + (index < whole % parts ? 1 : 0); }

// The parts of a sum that a rank receives from the rest of its group.
double ReceivedParts(double elements, double group) { return elements / group * (group - 1); }

class Counter {
 public:
  Counter(const JobSpec& job, const Shape& shape, Recompute recompute, const MeshCoord& at,
          const HeadLayout& heads, const RingCost& ring)
      : job_(job),
        c_(job.config),
        mesh_(shape.mesh),
        recompute_(recompute),
        gather_(shape.core == CoreKind::kGather && shape.mesh.ring > 1),
        load_(ring.LoadOf(at.ring)),
        batch_(static_cast<double>(job.batch)),
        e_(static_cast<double>(SizeOf(job.dtype))),
        hidden_(static_cast<double>(job.config.hidden_size)),
        dim_(job.config.head_dim) {
    const int64_t group = Part(ring.tokens[at.ring], mesh_.ulysses, at.ulysses);
    group_tokens_ = static_cast<double>(group);
    share_ = batch_ * static_cast<double>(ring.tokens[at.ring]);
    group_ = batch_ * group_tokens_;
    own_ = batch_ * static_cast<double>(Part(group, mesh_.tensor, at.tensor));
    const int64_t least_own = group / mesh_.tensor;
    least_own_ = batch_ * static_cast<double>(least_own);
    const HeadRange& outer = heads.OfTensor(at.tensor);
    const HeadRange& inner = heads.Of(at.tensor, at.ulysses);
    q_ = outer.q_heads() * dim_;
    kv_ = 2.0 * outer.kv_heads() * dim_;
    inner_heads_ = inner.q_heads();
    inner_q_ = inner.q_heads() * dim_;
    inner_kv_ = 2.0 * inner.kv_heads() * dim_;
    for (int u = 0; u < mesh_.ulysses; ++u) {
      const HeadRange& theirs = heads.Of(at.tensor, u);
      if (u != at.ulysses) others_ += (theirs.q_heads() + 2.0 * theirs.kv_heads()) * dim_;
    }
    if (c_.mlp != MlpKind::kNone) {
      f_ = static_cast<double>(Part(c_.intermediate_size, mesh_.tensor, at.tensor));
    }
    up_matrices_ = c_.mlp == MlpKind::kNone ? 0 : c_.mlp == MlpKind::kSwiglu ? 2 : 1;
    for (int head = outer.kv_begin; head < outer.kv_end; ++head) {
      const std::pair<int, int> holders = heads.TensorHoldersOf(head);
      if (holders.second - holders.first > 1) copied_.push_back(holders.second - holders.first);
    }
  }

  RankMemory Count(const std::string& device_kind) const {
    RankMemory m;
    m.weights = c_.layers * (Sharded() + Everywhere()) * e_;
    if (job_.backward()) m.weight_gradients = (Sharded() + Everywhere()) * kFloat;
    m.hidden = own_ * hidden_ * e_ * (job_.backward() ? c_.layers + 1 + 1 : 2);
    const bool keeps_attention = job_.backward() && !RecomputesAttention(recompute_);
    // Where only what is between is made again, the MLP's input is kept all the same.
    const bool keeps_mlp_input = job_.backward() && recompute_ != Recompute::kLayer;
    m.kept = (keeps_attention ? c_.layers : 1) * KeptAttention() +
             (keeps_mlp_input ? c_.layers : 1) * KeptMlp(own_);
    m.layer = Layer();
    m.communication = ScatteredSums() + Sums();
    m.kernels = Kernels(device_kind);
    m.verification = Verification();
    return m;
  }

 private:
  bool KeepsMlp() const { return job_.backward() && !RecomputesMlp(recompute_); }
  bool has_mlp() const { return c_.mlp != MlpKind::kNone; }

  // Elements of a layer's weights (WeightTable): those that are cut over tensor, and those that every rank
  // holds.
  double Sharded() const {
    double elements = hidden_ * (2 * q_ + kv_ + (up_matrices_ + 1) * f_);
    if (!has_mlp()) elements = hidden_ * (2 * q_ + kv_);
    if (c_.qkv_bias) elements += q_ + kv_;
    if (c_.mlp_bias) elements += up_matrices_ * f_;
    return elements;
  }
  double Everywhere() const {
    const double vectors = c_.norm == NormKind::kNone ? 0 : c_.norm == NormKind::kLayerNorm ? 2 : 1;
    return hidden_ *
           (vectors * (has_mlp() ? 2 : 1) + (c_.attention_out_bias ? 1 : 0) + (c_.mlp_bias ? 1 : 0));
  }

  // AttentionActivations and the states of the cores.
  double KeptAttention() const {
    double bytes = own_ * 2 * kFloat + group_ * (q_ + (keeps_inputs() ? q_ + kv_ : 0)) * e_;
    bytes += share_ * inner_heads_ * kFloat;
    if (mesh_.ulysses > 1) bytes += share_ * (2 * inner_q_ + inner_kv_) * e_;
    if (gather_) bytes += Keys(load_.buffer_keys) * e_;
    return bytes;
  }
  double KeptMlp(double own) const {
    if (!has_mlp()) return 0;
    return own * (hidden_ * e_ + 2 * kFloat) + (KeepsMlp() ? group_ * up_matrices_ * f_ * e_ : 0);
  }

  // Elements of K and V of so many keys.
  double Keys(int64_t keys) const { return batch_ * static_cast<double>(keys) * inner_kv_; }

  // What one layer computes in, which its parts share (common/layers/layer_scratch.h), and the rotary table.
  double Layer() const {
    const auto bytes = [](double b) { return static_cast<int64_t>(b); };
    const LayerScratchSizes sizes{bytes(Attention()), bytes(has_mlp() ? Pieces() : 0), bytes(Rows()),
                                  bytes(Core())};
    const double table = c_.rope_theta ? group_tokens_ * dim_ * kFloat : 0;
    return static_cast<double>(PlaceLayerScratch(sizes, inspected()).bytes) + table;
  }
  bool inspected() const { return job_.backward() && job_.verify_rows > 0; }
  // Gradients of the q, K and V that a core reads again lie apart from them.
  bool apart() const { return job_.dtype == DType::kF32 || inspected(); }

  // UlyssesAttention has its own q, K and V, which it traded those of the layer for.
  bool keeps_inputs() const { return mesh_.ulysses == 1; }

  // AttentionHalf: q, K and V where they are not kept; the gradient of the output takes the place of what the
  // MLP kept, where that has room on every rank.
  double Attention() const {
    const double inputs = keeps_inputs() ? 0 : group_ * (q_ + kv_) * e_;
    if (!job_.backward()) return inputs;
    const bool elsewhere = has_mlp() && group_ * q_ * e_ <= KeptMlp(least_own_);
    const bool back = inspected() && c_.rope_theta.has_value();
    const double apart_from_inputs = keeps_inputs() ? ((apart() ? 1 : 0) + (back ? 1 : 0)) * (q_ + kv_) : 0;
    return inputs + group_ * ((elsewhere ? 0 : q_) + apart_from_inputs) * e_;
  }

  // TensorAxis, and what a norm gave.
  double Rows() const {
    const double gathered = mesh_.tensor == 1 ? 0 : group_ * (job_.backward() ? 3 : 2);
    const bool normed = c_.norm != NormKind::kNone || job_.backward();
    return (gathered + (normed ? own_ : 0)) * hidden_ * e_;
  }

  // UlyssesAttention, if any, around ScheduledAttention: gradients of the inner side; what goes to peers is
  // where the inner core computes.
  double Core() const {
    if (mesh_.ulysses == 1) return Scheduled();
    const double gradients =
        job_.backward() ? share_ * (inner_q_ + (apart() ? inner_q_ + inner_kv_ : 0)) * e_ : 0;
    return gradients + std::max(group_ * others_ * e_, Scheduled());
  }

  // Received K/V, and where storage has 16 bits, float32 sums.
  double Scheduled() const {
    const bool sums_apart = job_.dtype != DType::kF32;
    double bytes = gather_ ? 0 : Keys(load_.buffer_keys) * e_;
    if (sums_apart) bytes += share_ * inner_q_ * kFloat;
    if (!job_.backward()) return bytes;
    bytes += share_ * inner_heads_ * kFloat + (Keys(load_.grad_keys) + Keys(load_.grad_recv_keys)) * kFloat;
    if (sums_apart) bytes += share_ * inner_kv_ * kFloat;  // dQ's sum is where the output's was
    return bytes;
  }

  // MlpHalf: of one piece of the rows at a time, what is activated, and where none is kept what it is made
  // of.
  double Pieces() const {
    const auto rows = static_cast<double>(MlpPieceRows(static_cast<int64_t>(group_)));
    return rows * (KeepsMlp() ? 1 : 1 + up_matrices_) * f_ * e_;
  }

  // Communicators receive the parts of a sum before they add them: of rows over the tensor group,
  double ScatteredSums() const { return own_ * hidden_ * e_ * (mesh_.tensor - 1); }
  // and of weight gradients.
  double Sums() const {
    if (!job_.backward()) return 0;
    const double shard = mesh_.ulysses * mesh_.ring;
    if (mesh_.tensor == 1) return ReceivedParts(Sharded() + Everywhere(), shard) * kFloat;
    double elements = ReceivedParts(Everywhere(), mesh_.size()) + ReceivedParts(Sharded(), shard);
    for (int holders : copied_) {
      const double head = dim_ * hidden_;
      elements += ReceivedParts(head, holders * shard) - 2 * ReceivedParts(head, shard);
    }
    return elements * kFloat;
  }

  // Verifier: what a rank sends of its float64 values, and what it receives of all.
  double Verification() const {
    if (job_.verify_rows == 0) return 0;
    const auto rows = static_cast<double>(std::min<int64_t>(job_.verify_rows, job_.tokens));
    const auto exchange = [&](double columns, int64_t unit) {
      const auto most = static_cast<double>(VerifyValuesAtOnce(mesh_.size(), unit));
      return std::min(rows * columns, most) * (mesh_.size() + 1) * static_cast<double>(sizeof(double));
    };
    const double forward =
        std::max(exchange(hidden_, 1), exchange(inner_q_ + 2 * inner_heads_, c_.head_dim + 2));
    return job_.backward() ? std::max({forward, exchange(inner_kv_, 1)}) : forward;
  }

  double Kernels(const std::string& device_kind) const {
    const DeviceModel* model = FindDeviceModel(device_kind);
    switch (model != nullptr ? model->kernel_memory : KernelMemory::kHostWorkspace) {
      case KernelMemory::kHostWorkspace:
        return Workspace();
      case KernelMemory::kGpuScratch:
        return GpuScratch();
    }
    return 0;
  }

  // One block, as large as the largest kernel needs: a product's copies, a norm's sums of weight gradients,
  // or one KV head of an attention tile.
  double Workspace() const {
    const double product = std::min(std::max({hidden_, q_, f_}), kCopiedDepth) * kCopiedCols;
    const double blocks = std::min(kSumBlocks, std::ceil(own_ / kSumRows));
    const double sums = job_.backward() ? blocks * kSumFloats * hidden_ : 0;
    const double attention = share_ / batch_ * dim_ * (job_.backward() ? 8 : 2);
    return std::max({product, sums, attention}) * kFloat;
  }

  // common/device/cuda_scratch.h: what products have for themselves, and the most of what the rest takes.
  double GpuScratch() const {
    const auto own = static_cast<int64_t>(own_), group = static_cast<int64_t>(group_);
    const auto hidden = static_cast<int64_t>(hidden_), inner = static_cast<int64_t>(f_);
    int64_t most = 0;
    const auto take = [&](int64_t bytes) { most = std::max(most, bytes); };
    const auto biased = [&](int64_t rows, int64_t cols) {
      if (job_.dtype != DType::kF32) take(CudaRoundedProductRows(rows, cols) * cols * 4);
      if (job_.backward()) take(CudaColumnSumScratchBytes(rows, cols));
    };
    if (c_.qkv_bias) biased(group, static_cast<int64_t>(q_));
    if (c_.attention_out_bias || c_.mlp_bias) biased(group, hidden);
    if (c_.mlp_bias) biased(group, inner);
    if (job_.backward() && c_.norm != NormKind::kNone) take(CudaNormScratchBytes(own, hidden));
    take(GpuAttentionScratch());
    return static_cast<double>(kCudaProductWorkspaceBytes + most);
  }
  // Of kernels on tensor cores, which take 16 bits; where a card or mask has none of them it is too much.
  int64_t GpuAttentionScratch() const {
    if (job_.dtype == DType::kF32) return 0;
    return CudaAttentionBudget(job_.backward(), static_cast<int64_t>(share_ / batch_),
                               static_cast<int64_t>(inner_heads_ * batch_), c_.head_dim);
  }

  const JobSpec& job_;
  const ModelConfig& c_;
  const Mesh& mesh_;
  const Recompute recompute_;
  const bool gather_;
  const RingLoad& load_;
  const double batch_, e_, hidden_, dim_;
  // Rows: of the rank, the rank of its tensor group that has fewest, the group, its ring share; tokens of the
  // tensor group.
  double own_ = 0, least_own_ = 0, group_ = 0, share_ = 0, group_tokens_ = 0;
  // Columns: of the projections, of the innermost attention, of what goes to Ulysses peers, of the MLP.
  double q_ = 0, kv_ = 0, inner_q_ = 0, inner_kv_ = 0, inner_heads_ = 0, others_ = 0, f_ = 0,
         up_matrices_ = 0;
  std::vector<int> copied_;  // tensor holders of each KV head that several have
};

}  // namespace

RankMemory PredictRankMemory(const JobSpec& job, const Shape& shape, Recompute recompute, const MeshCoord& at,
                             const HeadLayout& heads, const RingCost& ring, const std::string& device_kind) {
  return Counter(job, shape, recompute, at, heads, ring).Count(device_kind);
}

}  // namespace seqpar
