#include "tests/oracle/error_rule.h"

#include <algorithm>
#include <cmath>

namespace seqpar {

ErrorScale ScaleOf(const std::vector<double>& reference) {
  ErrorScale scale;
  for (const double value : reference) {
    scale.norm += value * value;
    scale.largest = std::max(scale.largest, std::abs(value));
  }
  scale.norm = std::sqrt(scale.norm);
  return scale;
}

ErrorPair ErrorOf(const std::vector<double>& x, const std::vector<double>& reference,
                  const ErrorScale& scale) {
  ErrorPair error;
  bool finite = x.size() == reference.size();
  for (size_t i = 0; finite && i < x.size(); ++i) {
    const double difference = x[i] - reference[i];
    error.norm += difference * difference;
    error.largest = std::max(error.largest, std::abs(difference));
    finite = std::isfinite(x[i]);
  }
  if (!finite) return {INFINITY, INFINITY};
  error.norm = scale.norm > 0 ? std::sqrt(error.norm) / scale.norm : std::sqrt(error.norm);
  if (scale.largest > 0) error.largest /= scale.largest;
  return error;
}

testing::AssertionResult WithinRule(const std::vector<double>& x, const std::vector<float>& one_device,
                                    const std::vector<double>& reference, DType dtype,
                                    const ErrorScale& sibling) {
  ErrorScale scale = ScaleOf(reference);
  if (scale.norm <= 1e-10 * sibling.norm) scale = sibling;
  const ErrorPair error = ErrorOf(x, reference, scale);
  const ErrorPair plain = ErrorOf({one_device.begin(), one_device.end()}, reference, scale);
  const double factor = dtype == DType::kF32 ? 4 : 2, slack = dtype == DType::kF32 ? 1e-6 : 0;
  if (error.norm <= factor * plain.norm + slack && error.largest <= factor * plain.largest + slack) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure() << "error " << error.norm << " (worst element " << error.largest
                                     << "), one device " << plain.norm << " (" << plain.largest << ")";
}

}  // namespace seqpar
