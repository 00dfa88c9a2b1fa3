#include "worker/executor/float64.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/check.h"
#include "common/base/status.h"

namespace seqpar {

Rows64 Rows64::Cols(int64_t begin, int64_t end) const {
  Rows64 part(rows, end - begin);
  for (int64_t row = 0; row < rows; ++row) std::copy(Row(row) + begin, Row(row) + end, part.Row(row));
  return part;
}

absl::StatusOr<std::vector<float>> HostCopier::Copy(const Matrix& matrix) const {
  std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.cols));
  if (matrix.empty()) return values;
  const int64_t row_bytes = matrix.cols * SizeOf(matrix.dtype);
  std::vector<char> raw(static_cast<size_t>(matrix.bytes()));
  if (matrix.contiguous()) {
    device_->CopyToHost(*stream_, matrix.data, raw.data(), matrix.bytes());
  } else {
    for (int64_t row = 0; row < matrix.rows; ++row) {
      device_->CopyToHost(*stream_, matrix.At(row, 0), raw.data() + row * row_bytes, row_bytes);
    }
  }
  SEQPAR_RETURN_IF_ERROR(stream_->Synchronize());
  ConvertElements(raw.data(), matrix.dtype, values.data(), DType::kF32, matrix.rows * matrix.cols);
  return values;
}

absl::Status HostCopier::ForEachPiece(const Matrix& matrix, int64_t rows_at_once,
                                      const std::function<void(int64_t, int64_t, const float*)>& use) const {
  for (int64_t begin = 0; begin < matrix.rows; begin += rows_at_once) {
    const int64_t end = std::min(matrix.rows, begin + rows_at_once);
    SEQPAR_ASSIGN_OR_RETURN(const std::vector<float> values, Copy(matrix.Rows(begin, end)));
    use(begin, end - begin, values.data());
  }
  return absl::OkStatus();
}

absl::StatusOr<Rows64> Linear64(const HostCopier& copier, const Rows64& a, const Matrix& weight,
                                const Matrix& bias) {
  SEQPAR_CHECK(a.cols == weight.cols);
  Rows64 out(a.rows, weight.rows);
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<float> offsets, copier.Copy(bias));
  SEQPAR_RETURN_IF_ERROR(
      copier.ForEachPiece(weight, 256, [&](int64_t first, int64_t rows, const float* values) {
        for (int64_t n = 0; n < rows; ++n) {
          const double offset = offsets.empty() ? 0 : offsets[first + n];
          for (int64_t row = 0; row < a.rows; ++row) {
            out.Row(row)[first + n] = Dot64(a.Row(row), values + n * weight.cols, weight.cols) + offset;
          }
        }
      }));
  return out;
}

absl::StatusOr<Rows64> Norm64(const HostCopier& copier, NormKind kind, double eps, const Rows64& x,
                              const Matrix& weight, const Matrix& bias) {
  if (kind == NormKind::kNone) return x;
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<float> scale, copier.Copy(weight));
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<float> offset, copier.Copy(bias));
  Rows64 y(x.rows, x.cols);
  const double n = static_cast<double>(x.cols);
  for (int64_t row = 0; row < x.rows; ++row) {
    const double* from = x.Row(row);
    double mean = 0, squares = 0;
    if (kind == NormKind::kLayerNorm) {
      for (int64_t i = 0; i < x.cols; ++i) mean += from[i] / n;
    }
    for (int64_t i = 0; i < x.cols; ++i) squares += (from[i] - mean) * (from[i] - mean) / n;
    const double inverse = 1 / std::sqrt(squares + eps);
    for (int64_t i = 0; i < x.cols; ++i) {
      y.Row(row)[i] = (from[i] - mean) * inverse * scale[i] + (offset.empty() ? 0 : offset[i]);
    }
  }
  return y;
}

double Activation64(MlpKind kind, double gate, double up) {
  constexpr double kSqrtHalf = 0.70710678118654752440, kSqrtTwoOverPi = 0.79788456080286535588;
  switch (kind) {
    case MlpKind::kSwiglu:
      return gate / (1 + std::exp(-gate)) * up;
    case MlpKind::kGelu:
      return 0.5 * up * (1 + std::erf(up * kSqrtHalf));
    case MlpKind::kGeluTanh:
      return 0.5 * up * (1 + std::tanh(kSqrtTwoOverPi * (up + 0.044715 * up * up * up)));
    case MlpKind::kNone:
      break;
  }
  return 0;
}

void Rotate64(double* head, int head_dim, int64_t position, double theta) {
  const int half = head_dim / 2;
  for (int i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * std::pow(theta, -2.0 * i / head_dim);
    const double cosine = std::cos(angle), sine = std::sin(angle);
    const double first = head[i], second = head[i + half];
    head[i] = first * cosine - second * sine;
    head[i + half] = second * cosine + first * sine;
  }
}

Partial64::Partial64(int head_dim)
    : max(-std::numeric_limits<double>::infinity()), out(static_cast<size_t>(head_dim), 0.0) {}

void Partial64::Add(double score, const float* v) {
  if (score > max) {
    const double shrink = std::exp(max - score);  // 0 where this is the first key
    sum *= shrink;
    for (double& o : out) o *= shrink;
    max = score;
  }
  const double weight = std::exp(score - max);
  sum += weight;
  for (size_t i = 0; i < out.size(); ++i) out[i] += weight * v[i];
}

void Partial64::Pack(double* to) const {
  to[0] = max;
  to[1] = sum;
  std::copy(out.begin(), out.end(), to + 2);
}

void Partial64::Merge(const double* packed) {
  if (packed[1] == 0) return;
  const double top = std::max(max, packed[0]);
  const double mine = sum == 0 ? 0 : std::exp(max - top), its = std::exp(packed[0] - top);
  for (size_t i = 0; i < out.size(); ++i) out[i] = out[i] * mine + packed[2 + i] * its;
  sum = sum * mine + packed[1] * its;
  max = top;
}

double Partial64::LogSumExp() const { return max + std::log(sum); }

void Partial64::Finish(double* to) const {
  for (size_t i = 0; i < out.size(); ++i) to[i] = sum == 0 ? 0 : out[i] / sum;
}

}  // namespace seqpar
