#include "worker/executor/row_math.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/check.h"
#include "common/base/status.h"
#include "common/tensor/dtype.h"

namespace seqpar {
namespace {

constexpr int64_t kPieceRows = 256;  // of a matrix read at a time

}  // namespace

absl::StatusOr<Rows> ReadRows(Device* device, Stream* stream, const Matrix& from, int64_t begin,
                              int64_t end) {
  Rows rows(end - begin, from.cols);
  if (rows.values.empty()) return rows;
  const int64_t row_bytes = from.cols * SizeOf(from.dtype);
  std::vector<char> raw(rows.rows * row_bytes);
  if (from.contiguous()) {
    device->CopyToHost(*stream, from.At(begin, 0), raw.data(), rows.rows * row_bytes);
  } else {
    for (int64_t r = 0; r < rows.rows; ++r) {
      device->CopyToHost(*stream, from.At(begin + r, 0), raw.data() + r * row_bytes, row_bytes);
    }
  }
  SEQPAR_RETURN_IF_ERROR(stream->Synchronize());
  ConvertElements(raw.data(), from.dtype, rows.values.data(), DType::kF64, rows.rows * rows.cols);
  return rows;
}

absl::StatusOr<Rows> TimesTransposed(Device* device, Stream* stream, const Rows& x, const Matrix& w) {
  SEQPAR_CHECK(x.cols == w.cols);
  Rows y(x.rows, w.rows);
  for (int64_t begin = 0; begin < w.rows; begin += kPieceRows) {
    const int64_t end = std::min(w.rows, begin + kPieceRows);
    SEQPAR_ASSIGN_OR_RETURN(const Rows piece, ReadRows(device, stream, w, begin, end));
    for (int64_t i = 0; i < x.rows; ++i) {
      for (int64_t j = 0; j < piece.rows; ++j) {
        double dot = 0;
        for (int64_t k = 0; k < x.cols; ++k) dot += x.At(i)[k] * piece.At(j)[k];
        y.At(i)[begin + j] = dot;
      }
    }
  }
  return y;
}

Rows NormRows(NormKind kind, double eps, const Rows& x, const Rows& weight, const Rows& bias) {
  if (kind == NormKind::kNone) return x;
  Rows y(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    double mean = 0, square = 0;
    if (kind == NormKind::kLayerNorm) {
      for (int64_t c = 0; c < x.cols; ++c) mean += x.At(r)[c];
      mean /= static_cast<double>(x.cols);
    }
    for (int64_t c = 0; c < x.cols; ++c) square += (x.At(r)[c] - mean) * (x.At(r)[c] - mean);
    const double scale = 1 / std::sqrt(square / static_cast<double>(x.cols) + eps);
    for (int64_t c = 0; c < x.cols; ++c) {
      y.At(r)[c] = (x.At(r)[c] - mean) * scale * weight.At(0)[c] + (bias.rows > 0 ? bias.At(0)[c] : 0);
    }
  }
  return y;
}

void AddBias(const Rows& bias, Rows* x) {
  if (bias.rows == 0) return;
  for (int64_t r = 0; r < x->rows; ++r) {
    for (int64_t c = 0; c < x->cols; ++c) x->At(r)[c] += bias.At(0)[c];
  }
}

void RotateRows(double theta, int head_dim, const std::vector<int64_t>& positions, Rows* x) {
  const int half = head_dim / 2;
  for (int64_t r = 0; r < x->rows; ++r) {
    for (int i = 0; i < half; ++i) {
      const double angle = static_cast<double>(positions[r]) * std::pow(theta, -2.0 * i / head_dim);
      const double cosine = std::cos(angle), sine = std::sin(angle);
      for (double* head = x->At(r); head < x->At(r) + x->cols; head += head_dim) {
        const double a = head[i], b = head[i + half];
        head[i] = a * cosine - b * sine;
        head[i + half] = b * cosine + a * sine;
      }
    }
  }
}

Rows ActivateRows(MlpKind kind, const Rows& gate, const Rows& up) {
  Rows y(up.rows, up.cols);
  for (size_t i = 0; i < y.values.size(); ++i) {
    const double u = up.values[i];
    switch (kind) {
      case MlpKind::kSwiglu:
        y.values[i] = gate.values[i] / (1 + std::exp(-gate.values[i])) * u;
        break;
      case MlpKind::kGelu:
        y.values[i] = 0.5 * u * (1 + std::erf(u / std::sqrt(2.0)));
        break;
      case MlpKind::kGeluTanh:
        y.values[i] = 0.5 * u * (1 + std::tanh(std::sqrt(2 / M_PI) * (u + 0.044715 * u * u * u)));
        break;
      case MlpKind::kNone:
        y.values[i] = u;
        break;
    }
  }
  return y;
}

void PartialAttention::Add(double score, const double* value) {
  PartialAttention one;
  one.max = score;
  one.weight = 1;
  one.sum.assign(value, value + sum.size());
  Merge(one);
}

void PartialAttention::Merge(const PartialAttention& other) {
  if (other.weight == 0) return;
  if (weight == 0) {
    *this = other;
    return;
  }
  const double top = std::max(max, other.max);
  const double mine = std::exp(max - top), theirs = std::exp(other.max - top);
  weight = weight * mine + other.weight * theirs;
  for (size_t i = 0; i < sum.size(); ++i) sum[i] = sum[i] * mine + other.sum[i] * theirs;
  max = top;
}

double PartialAttention::Lse() const {
  return weight == 0 ? -std::numeric_limits<double>::infinity() : max + std::log(weight);
}

}  // namespace seqpar
