// Movement and elementwise arithmetic on rows. Shapes are the caller's to check; see common/device/device.h
// for meaning.
#ifndef SEQPAR_WORKER_DEVICE_CPU_ELEMENTWISE_H_
#define SEQPAR_WORKER_DEVICE_CPU_ELEMENTWISE_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/device/device.h"
#include "worker/device/cpu/row_simd.h"
#include "worker/device/cpu/scratch.h"

namespace seqpar::cpu {

void CopyRows(const RowSimd& simd, ThreadPool& pool, const Matrix& from, const Matrix& to);

// to = terms[0] + terms[1] + ... in float32, rounded once. terms not empty.
void SumInOrder(const RowSimd& simd, ThreadPool& pool, const std::vector<Matrix>& terms, const Matrix& to);

// sums[0, x.cols) += column sums of x, as SumOverRows.
absl::Status AddColumnSums(const RowSimd& simd, const CpuContext& cpu, const Matrix& x, float* sums);

// Calls fn(begin, end) for pieces of [0, rows), each about as much work as is worth another thread.
template <typename Fn>
void ParallelRows(ThreadPool& pool, int64_t rows, int64_t cols, const Fn& fn) {
  constexpr int64_t kElementsPerTask = 32768;
  const int64_t rows_per_task = std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, cols));
  pool.ParallelFor((rows + rows_per_task - 1) / rows_per_task, [&](int64_t task, int) {
    fn(task * rows_per_task, std::min(rows, (task + 1) * rows_per_task));
  });
}

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_ELEMENTWISE_H_
