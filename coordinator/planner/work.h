// What a rank computes in one layer, and how long that takes by the calibration: attention by pairs, rows and
// edges of its kernel's calls, products by pass, and the rest by the bytes that it reads and writes
// (common/layers).
#ifndef SEQPAR_COORDINATOR_PLANNER_WORK_H_
#define SEQPAR_COORDINATOR_PLANNER_WORK_H_

#include "common/job/cluster.h"
#include "common/job/job.h"

namespace seqpar {

// A rank's part of a layer. Fractions are means over ranks.
struct RankShare {
  double rows = 0;                               // batch * tokens of its tensor group: what its products see
  double own_rows = 0;                           // batch * its own tokens: what norms and residuals see
  double width = 0;                              // of its MLP
  double q_heads = 0, kv_heads = 0;              // of its projections
  double attention_heads = 0, attention_kv = 0;  // of its attention core
  double share_rows = 0;                         // batch * tokens of its ring share: what its core sees
  // Of the calls of the attention kernel, for one batch row and head.
  double pairs = 0, query_rows = 0, key_rows = 0, edges = 0;
  bool repacked = false;  // ulysses: q, k, v and the output are copied around each trade
};

struct ComputeSeconds {
  double attention = 0, products = 0, pointwise = 0;
  double total() const { return attention + products + pointwise; }
  ComputeSeconds& operator+=(const ComputeSeconds& other) {
    attention += other.attention;
    products += other.products;
    pointwise += other.pointwise;
    return *this;
  }
  friend ComputeSeconds operator*(double factor, const ComputeSeconds& s) {
    return {factor * s.attention, factor * s.products, factor * s.pointwise};
  }
};

class LayerWork {
 public:
  LayerWork(const JobSpec& job, const RankShare& share, const DeviceRates& rates);

  ComputeSeconds Forward() const;
  ComputeSeconds Backward() const;
  // What backward runs again: attention up to its core, the MLP up to its activation, or with kLayer all but
  // the last product. Norms of the MLP's input run again whatever is kept.
  ComputeSeconds Again(Recompute recompute) const;

 private:
  enum class Product { kForward, kInputGradient, kWeightGradient };
  double Products(Product pass, double in, double out) const;  // [rows, in] x [in, out]
  double Projections(Product pass) const { return Products(pass, hidden_, q_cols_ + 2 * kv_cols_); }
  double Bytes(double values, double bytes_each) const;  // seconds
  double Attention(double flops_a_pair, double rate, double row, double edge) const;
  double Norms() const;
  double Rotary() const;
  double Activations(double matrices) const;
  double Repacking(double columns) const;

  const ModelConfig& c_;
  const DeviceRates rates_;  // of the job's storage type
  const RankShare s_;
  const AttentionRates attention_;
  const double batch_, e_, hidden_, q_cols_, kv_cols_, gates_;
  const bool has_mlp_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_WORK_H_
