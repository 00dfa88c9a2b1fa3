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

void TensorErrors::Add(const std::vector<double>& x, const std::vector<float>& one_device,
                       const std::vector<double>& reference, const ErrorScale& sibling) {
  ErrorScale scale = ScaleOf(reference);
  if (scale.norm <= 1e-10 * sibling.norm) scale = sibling;
  const auto pool = [](const ErrorPair& error, ErrorPair* total) {
    total->norm += error.norm * error.norm;
    total->largest += error.largest * error.largest;
  };
  pool(ErrorOf(x, reference, scale), &error_);
  pool(ErrorOf({one_device.begin(), one_device.end()}, reference, scale), &plain_);
  ++runs_;
}

testing::AssertionResult TensorErrors::WithinRule(DType dtype) const {
  const double norm = std::sqrt(error_.norm / runs_), plain_norm = std::sqrt(plain_.norm / runs_);
  const double largest = std::sqrt(error_.largest / runs_), plain_largest = std::sqrt(plain_.largest / runs_);
  const auto bound = [&](double plain) {
    return dtype == DType::kF32 ? 4 * plain + 1e-6 : std::max(2 * plain, 1e-6);
  };
  if (norm <= bound(plain_norm) && largest <= bound(plain_largest)) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "error " << norm << " (worst element " << largest << "), one device "
                                     << plain_norm << " (" << plain_largest << ") over " << runs_ << " runs";
}

testing::AssertionResult WithinRule(const std::vector<double>& x, const std::vector<float>& one_device,
                                    const std::vector<double>& reference, DType dtype,
                                    const ErrorScale& sibling) {
  TensorErrors errors;
  errors.Add(x, one_device, reference, sibling);
  return errors.WithinRule(dtype);
}

}  // namespace seqpar
