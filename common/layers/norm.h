// The norm before a block, as a layer uses it: the identity where the configuration has none.
#ifndef SEQPAR_COMMON_LAYERS_NORM_H_
#define SEQPAR_COMMON_LAYERS_NORM_H_

#include "common/device/device.h"
#include "common/job/job.h"
#include "common/layers/weight_table.h"

namespace seqpar {

// Where the norm of whichever block runs has its output, and later the gradient of that: [own rows, D], one
// memory where there is a norm.
struct NormRows {
  Matrix output, gradient;
};

struct Norm {
  NormKind kind = NormKind::kNone;
  float eps = 0;
  WeightId weight = WeightId::kInputNorm;
  WeightId bias = WeightId::kInputNormBias;

  // norm(x), written to `place`, or x itself where there is no norm. stats: float32 [rows, 2].
  Matrix Forward(Device& device, Stream& s, const WeightSet& weights, const Matrix& x, const Matrix& place,
                 float* stats) const;
  // dx = gradient of dy through the norm + residual. Adds to the gradients of weight and bias.
  void Backward(Device& device, Stream& s, const WeightSet& weights, const Matrix& x, const float* stats,
                const Matrix& dy, const Matrix& residual, const Matrix& dx, const WeightSet& gradients) const;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_LAYERS_NORM_H_
