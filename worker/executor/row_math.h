// A transformer layer's arithmetic on a few rows, in float64, straight from the definitions
// (docs/formulas.md): what verification recomputes with. Shares no code with the kernels that it checks.
#ifndef SEQPAR_WORKER_EXECUTOR_ROW_MATH_H_
#define SEQPAR_WORKER_EXECUTOR_ROW_MATH_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "common/job/job.h"

namespace seqpar {

// `rows` rows of `cols` float64 values, row major.
struct Rows {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<double> values;

  Rows() = default;
  Rows(int64_t r, int64_t c) : rows(r), cols(c), values(r * c, 0.0) {}
  double* At(int64_t row) { return values.data() + row * cols; }
  const double* At(int64_t row) const { return values.data() + row * cols; }
};

// Rows [begin, end) of device memory as float64. Waits for the stream.
absl::StatusOr<Rows> ReadRows(Device* device, Stream* stream, const Matrix& from, int64_t begin, int64_t end);

// y = x w^T: x [n, k], w [m, k] in device memory, read in pieces. y [n, m].
absl::StatusOr<Rows> TimesTransposed(Device* device, Stream* stream, const Rows& x, const Matrix& w);

// weight and bias [1, cols]; bias may have no rows.
Rows NormRows(NormKind kind, double eps, const Rows& x, const Rows& weight, const Rows& bias);

// Adds bias [1, cols] (none where it has no rows) to every row.
void AddBias(const Rows& bias, Rows* x);

// Rotates every head of x's rows by the angles of `position`s (one a row).
void RotateRows(double theta, int head_dim, const std::vector<int64_t>& positions, Rows* x);

// act(up) or silu(gate) * up. gate has no rows unless kSwiglu.
Rows ActivateRows(MlpKind kind, const Rows& gate, const Rows& up);

// Softmax-weighted values of one query and head over part of the keys: sum exp(score - max) v, its weight and
// max.
struct PartialAttention {
  double max = 0;  // meaningless where weight is 0
  double weight = 0;
  std::vector<double> sum;  // [head_dim]
  explicit PartialAttention(int head_dim = 0) : sum(head_dim, 0.0) {}
  void Add(double score, const double* value);
  void Merge(const PartialAttention& other);
  double Lse() const;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_ROW_MATH_H_
