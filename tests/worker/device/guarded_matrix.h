// Matrices whose memory ends at a page that faults, and whose gaps between rows are watched.
#ifndef SEQPAR_TESTS_WORKER_DEVICE_GUARDED_MATRIX_H_
#define SEQPAR_TESTS_WORKER_DEVICE_GUARDED_MATRIX_H_

#include <functional>
#include <vector>

#include "common/device/device.h"

namespace seqpar {

// Which end of the memory touches the page that faults.
enum class Guard { kBefore, kAfter };

class GuardedMatrix {
 public:
  // Elements are value(row, col) rounded to the type; gap elements (ld - cols a row) hold a NaN pattern, so
  // that reading one shows in results and writing one shows in GapsIntact.
  GuardedMatrix(DType type, int64_t rows, int64_t cols, int64_t gap, Guard guard,
                const std::function<double(int64_t, int64_t)>& value);
  ~GuardedMatrix();
  GuardedMatrix(const GuardedMatrix&) = delete;
  GuardedMatrix& operator=(const GuardedMatrix&) = delete;

  const Matrix& matrix() const { return matrix_; }
  operator const Matrix&() const { return matrix_; }
  float* floats() const { return static_cast<float*>(matrix_.data); }
  // The elements as stored, row major without gaps.
  std::vector<double> Values() const;
  bool GapsIntact() const;

 private:
  void* mapping_ = nullptr;
  size_t mapped_bytes_ = 0;
  Matrix matrix_;
};

}  // namespace seqpar

#endif  // SEQPAR_TESTS_WORKER_DEVICE_GUARDED_MATRIX_H_
