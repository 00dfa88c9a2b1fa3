// Where the tokens and heads of one launch lie in the matrices of common/device/device.h.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_HEAD_PART_H_
#define SEQPAR_WORKER_DEVICE_CUDA_HEAD_PART_H_

#include "common/device/device.h"
#include "worker/device/cuda/head_grid.h"

namespace seqpar::cuda {

// Tokens [first, first + count) of a matrix of heads `width` columns wide, for the heads of a grid; strides
// in elements.
struct HeadPart {
  const HeadGrid& grid;
  int64_t batch, first, count, width;
  bool kv;

  char* Data(const Matrix& m) const {
    return m.At(first * batch + grid.row, (kv ? grid.kv_head : grid.q_head) * width);
  }
  int64_t OuterStride(const Matrix& m) const {
    return grid.outer_rows * m.ld + (kv ? grid.outer_kv : grid.outer_q) * width;
  }
  int64_t InnerStride() const { return (kv ? 1 : grid.inner_q) * width; }
  int64_t TokenStride(const Matrix& m) const { return batch * m.ld; }
};

// Kernels on tensor cores read and write vectors of 16 bytes, and copy by tensor maps, whose strides are
// multiples of them.
inline bool AlignedForTensorCores(const Matrix& m) {
  return reinterpret_cast<uintptr_t>(m.data) % 16 == 0 && m.ld * SizeOf(m.dtype) % 16 == 0;
}

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_HEAD_PART_H_
