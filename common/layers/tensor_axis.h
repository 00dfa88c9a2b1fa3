// The tensor axis of a layer (Korthikanti et al., "Reducing Activation Recomputation in Large Transformer
// Models", 2022): rows are sharded along the sequence outside the blocks and whole inside them.
//
// Nomenclature: own rows are the rank's tokens * batch, group rows those of the whole tensor group; both are
// D wide. Before a block own rows are all-gathered to group rows; after it every rank's group rows, which are
// a part of the sum, are reduce-scattered to own rows. Bytes a rank sends, even: (T - 1) / T b M D e each.
#ifndef SEQPAR_COMMON_LAYERS_TENSOR_AXIS_H_
#define SEQPAR_COMMON_LAYERS_TENSOR_AXIS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/attention/core.h"
#include "common/comm/communicator.h"
#include "common/device/carve.h"
#include "common/layers/layer_plan.h"

namespace seqpar {

// Calls enqueue on the rank's streams: what a call gives may be used on compute. With one tensor rank nothing
// moves and nothing is copied.
class TensorAxis {
 public:
  // `group` is null where the axis has one rank.
  TensorAxis(const LayerPlan& plan, const RankStreams& streams, Communicator* group);

  // Where gathered rows and parts of sums are to be; before the first call. The axis stays where it is.
  void AddScratch(Carver* carver);

  int64_t own_rows() const { return own_rows_; }
  int64_t group_rows() const { return group_rows_; }
  // Own rows of the rank that has fewest.
  int64_t least_rows() const { return *std::min_element(rows_.begin(), rows_.end()); }
  // Whether a block's part of the sum is the sum, where it is to be.
  bool alone() const { return group_ == nullptr; }
  // Exactly one rank of the group adds what is to be added once (row-parallel biases).
  bool first() const { return alone() || group_->rank() == 0; }

  // Own rows -> group rows, valid until the next Gather into the same place: forward inputs and output
  // gradients have places of their own, because backward needs both at once.
  enum class Place { kInput, kGradient };
  Matrix Gather(Place place, TrafficKey key, const Matrix& own);
  // Where a block writes its part of the sum that goes to `own`: `own` itself where the axis has one rank.
  Matrix PartialOf(const Matrix& own) const;
  // Sums the parts written to PartialOf(own) into `own`.
  void Scatter(TrafficKey key, const Matrix& own);

 private:
  const RankStreams streams_;
  Communicator* const group_;
  const DType dtype_;
  const int64_t hidden_;
  const bool backward_;
  int64_t own_rows_ = 0, group_rows_ = 0;
  std::vector<int64_t> rows_;          // by tensor rank
  Matrix input_, gradient_, partial_;  // [group rows, D]
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_LAYERS_TENSOR_AXIS_H_
