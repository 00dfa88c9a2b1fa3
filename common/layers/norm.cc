#include "common/layers/norm.h"

namespace seqpar {

Matrix Norm::Forward(Device& device, Stream& s, const WeightSet& weights, const Matrix& x,
                     const Matrix& place, float* stats) const {
  if (kind == NormKind::kNone) return x;
  const Matrix shift = weights.Get(bias);
  device.NormForward(s, kind, x, weights.Get(weight), shift.empty() ? nullptr : &shift, eps, place, stats);
  return place;
}

void Norm::Backward(Device& device, Stream& s, const WeightSet& weights, const Matrix& x, const float* stats,
                    const Matrix& dy, const Matrix& residual, const Matrix& dx,
                    const WeightSet& gradients) const {
  if (kind == NormKind::kNone) {
    device.Add(s, dy, residual, dx);
    return;
  }
  device.NormBackward(s, kind, x, weights.Get(weight), stats, dy, &residual, dx, gradients.Floats(weight),
                      gradients.Floats(bias));
}

}  // namespace seqpar
