// The pieces of a layer in float64, row by row, straight from their definitions: what verification computes
// with.
#ifndef SEQPAR_WORKER_EXECUTOR_FLOAT64_H_
#define SEQPAR_WORKER_EXECUTOR_FLOAT64_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/device/device.h"

namespace seqpar {

// A dense row-major matrix on the host.
struct Rows64 {
  int64_t rows = 0, cols = 0;
  std::vector<double> data;

  Rows64() = default;
  Rows64(int64_t r, int64_t c) : rows(r), cols(c), data(static_cast<size_t>(r * c), 0.0) {}
  double* Row(int64_t row) { return data.data() + row * cols; }
  const double* Row(int64_t row) const { return data.data() + row * cols; }
  Rows64 Cols(int64_t begin, int64_t end) const;
};

// Brings parts of device matrices to the host as float32, which holds every value of the storage types.
class HostCopier {
 public:
  HostCopier(Device* device, Stream* stream) : device_(device), stream_(stream) {}
  // Rows one after the other; blocks.
  absl::StatusOr<std::vector<float>> Copy(const Matrix& matrix) const;
  // Calls use(first row, rows, their values) for pieces of about `rows_at_once` rows of `matrix`.
  absl::Status ForEachPiece(const Matrix& matrix, int64_t rows_at_once,
                            const std::function<void(int64_t, int64_t, const float*)>& use) const;

 private:
  Device* const device_;
  Stream* const stream_;
};

// a W' [+ bias]: W is [n, a.cols] on the device, the bias [1, n] or empty.
absl::StatusOr<Rows64> Linear64(const HostCopier& copier, const Rows64& a, const Matrix& weight,
                                const Matrix& bias);

// Each row normalised; kNone gives it back. weight and bias [1, cols], the bias empty for RMSNorm.
absl::StatusOr<Rows64> Norm64(const HostCopier& copier, NormKind kind, double eps, const Rows64& x,
                              const Matrix& weight, const Matrix& bias);

// gelu(up), gelu_tanh(up), or silu(gate) * up.
double Activation64(MlpKind kind, double gate, double up);

// Rotates one head (head_dim values) to `position` (rotate_half).
void Rotate64(double* head, int head_dim, int64_t position, double theta);

// Attention of one query and head over some of its keys: merged like log-sum-exp.
struct Partial64 {
  double max;  // of the scores; -infinity: no key yet
  double sum = 0;
  std::vector<double> out;  // sum of exp(score - max) v

  explicit Partial64(int head_dim);
  void Add(double score, const float* v);
  void Merge(const double* packed);  // another, as Pack wrote it
  // max, sum, out: head_dim + 2 values.
  void Pack(double* to) const;
  double LogSumExp() const;
  // The attention's output: out / sum; 0 where no key was seen.
  void Finish(double* to) const;
};

template <typename A, typename B>
double Dot64(const A* a, const B* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_FLOAT64_H_
