#include "coordinator/planner/work.h"

#include <algorithm>

namespace seqpar {
namespace {

// What a layer costs beside its work where nothing was measured: enqueuing, waking threads, small kernels.
constexpr double kLayerOverheadSeconds = 2e-4;
// Operations of a layer: enqueued one by one, the layer's end is waited for.
constexpr double kForwardOperations = 24, kBackwardOperations = 47;

double Or(double rate, double other) { return std::max(1.0, rate > 0 ? rate : other); }

}  // namespace

LayerWork::LayerWork(const JobSpec& job, const RankShare& share, const DeviceRates& rates)
    : c_(job.config),
      rates_(RatesFor(rates, job.dtype)),
      s_(share),
      attention_(AttentionRatesAt(rates_, job.config.head_dim)),
      batch_(static_cast<double>(job.batch)),
      e_(static_cast<double>(SizeOf(job.dtype))),
      hidden_(static_cast<double>(job.config.hidden_size)),
      q_cols_(share.q_heads * job.config.head_dim),
      kv_cols_(share.kv_heads * job.config.head_dim),
      gates_(job.config.mlp == MlpKind::kSwiglu ? 2 : 1),
      has_mlp_(job.config.mlp != MlpKind::kNone) {}

// Reading (and packing) the weights, or adding to their gradients, takes time beside the flops.
double LayerWork::Products(Product pass, double in, double out) const {
  const double rate = pass == Product::kForward ? rates_.gemm_flops
                      : pass == Product::kInputGradient
                          ? Or(rates_.gemm_input_gradient_flops, rates_.gemm_flops)
                          : Or(rates_.gemm_weight_gradient_flops, rates_.gemm_flops);
  const double flops = 2 * s_.rows * in * out / std::max(1.0, rate);
  const double bytes = in * out * (pass == Product::kWeightGradient ? 4 : e_);
  if (rates_.weight_bytes > 0) return flops + bytes / rates_.weight_bytes;
  return std::max(flops, bytes / Or(rates_.copy_bytes, 0));
}

double LayerWork::Bytes(double values, double bytes_each) const {
  return values * bytes_each / Or(rates_.pointwise_bytes, rates_.copy_bytes);
}

double LayerWork::Attention(double flops_a_pair, double rate, double row, double edge) const {
  const double heads = batch_ * s_.attention_heads;
  return heads * s_.pairs * flops_a_pair * c_.head_dim / std::max(1.0, rate) +
         row * (heads * s_.query_rows + batch_ * s_.attention_kv * s_.key_rows) + edge * heads * s_.edges;
}

double LayerWork::Norms() const {
  if (c_.norm == NormKind::kNone) return 0;
  return Bytes((has_mlp_ ? 2 : 1) * 2 * s_.own_rows * hidden_, e_);
}

double LayerWork::Rotary() const { return c_.rope_theta ? Bytes(2 * s_.rows * (q_cols_ + kv_cols_), e_) : 0; }

double LayerWork::Activations(double matrices) const {
  return has_mlp_ ? Bytes(matrices * s_.rows * s_.width, e_) : 0;
}

double LayerWork::Repacking(double columns) const {
  return s_.repacked ? Bytes(2 * s_.rows * columns, e_) : 0;
}

ComputeSeconds LayerWork::Forward() const {
  ComputeSeconds t;
  t.attention = Attention(4, attention_.forward_flops, attention_.forward_row, attention_.forward_edge);
  t.products = Projections(Product::kForward) + Products(Product::kForward, q_cols_, hidden_);
  if (has_mlp_) {
    t.products += Products(Product::kForward, hidden_, gates_ * s_.width) +
                  Products(Product::kForward, s_.width, hidden_);
  }
  const double residuals = Bytes((has_mlp_ ? 2 : 1) * 3 * s_.own_rows * hidden_, e_);
  t.pointwise =
      Norms() + Rotary() + Activations(gates_ + 1) + residuals + Repacking(2 * q_cols_ + 2 * kv_cols_);
  if (e_ < 4) t.pointwise += Bytes(s_.share_rows * s_.attention_heads * c_.head_dim, 4 + e_);
  t.pointwise +=
      rates_.operation_seconds > 0 ? kForwardOperations * rates_.operation_seconds : kLayerOverheadSeconds;
  return t;
}

ComputeSeconds LayerWork::Backward() const {
  ComputeSeconds t;
  const double q = s_.share_rows * s_.attention_heads * c_.head_dim;
  const double kv = 2 * s_.share_rows * s_.attention_kv * c_.head_dim;
  // Beside the kernel: delta reads out and dout, the sums are cleared.
  t.attention = Attention(10, attention_.backward_flops, attention_.backward_row, attention_.backward_edge);
  t.pointwise = Bytes(2 * q, e_) + Bytes(q + kv, 4);
  if (e_ < 4) t.pointwise += Bytes(q + kv, 4 + e_);
  for (const Product pass : {Product::kInputGradient, Product::kWeightGradient}) {
    t.products += Projections(pass) + Products(pass, q_cols_, hidden_);
    if (!has_mlp_) continue;
    t.products += Products(pass, hidden_, gates_ * s_.width) + Products(pass, s_.width, hidden_);
  }
  // Norms run again for the input of the products, then backward: x, dy and what went around are read.
  t.pointwise += Norms() + 2 * Norms() + Rotary();
  t.pointwise += Activations(2 * (gates_ + 1));  // gate, up and the gradient; theirs, and what was activated
  t.pointwise += Repacking(2 * q_cols_ + 2 * kv_cols_);
  const double weights = hidden_ * (2 * q_cols_ + 2 * kv_cols_ + (has_mlp_ ? (gates_ + 1) * s_.width : 0));
  t.pointwise += Bytes(weights, 4);  // cleared
  t.pointwise +=
      rates_.operation_seconds > 0 ? kBackwardOperations * rates_.operation_seconds : kLayerOverheadSeconds;
  return t;
}

ComputeSeconds LayerWork::Again(Recompute recompute) const {
  ComputeSeconds t;
  if (RecomputesMlp(recompute) && has_mlp_) {
    t.products += Products(Product::kForward, hidden_, gates_ * s_.width);
  }
  if (!RecomputesAttention(recompute)) return t;
  const ComputeSeconds forward = Forward();
  t.attention = forward.attention;
  t.products += Projections(Product::kForward);
  t.pointwise = Norms() / (has_mlp_ ? 2 : 1) + Rotary();
  if (recompute == Recompute::kLayer && has_mlp_) {
    t.products += Products(Product::kForward, q_cols_, hidden_);  // the MLP's input comes after it
    t.pointwise += Bytes(3 * s_.own_rows * hidden_, e_);
  }
  return t;
}

}  // namespace seqpar
