// Operands of the vectorised products, laid out as simd.h says.
#ifndef SEQPAR_WORKER_DEVICE_CPU_PACKING_H_
#define SEQPAR_WORKER_DEVICE_CPU_PACKING_H_

#include <cstdint>

#include "common/device/device.h"
#include "worker/device/cpu/simd.h"
#include "worker/device/cpu/spans.h"

namespace seqpar::cpu {

// Every row_step-th row of a matrix from first_row on, and of these the columns [column, column + width).
struct RowView {
  Matrix x;
  int64_t first_row, row_step, column;
  int width;

  // Row i as float32, in the matrix itself or converted into buffer[width].
  const float* Read(int64_t i, float* buffer) const {
    return ReadSpan(x, first_row + i * row_step, column, width, buffer);
  }
  // REQUIRES: x is float32.
  float* Floats(int64_t i) const { return reinterpret_cast<float*>(x.At(first_row + i * row_step, column)); }
};

// Hands out pieces of a scratch block, each 64-byte aligned.
class Carver {
 public:
  explicit Carver(float* begin) : next_(begin) {}
  float* Take(int64_t floats) {
    float* piece = next_;
    next_ += Padded(floats);
    return piece;
  }
  static int64_t Padded(int64_t floats) { return (floats + 15) / 16 * 16; }

 private:
  float* next_;
};

// The view's rows [first, first + count) times `scale`, as items side by side: to[count / w][width][w]. Rows
// from `rows` on are zero. w divides count and kGroup divides w; buffer has kGroup * width floats.
void PackAcross(const RowView& view, int64_t rows, int64_t first, int count, int w, float scale,
                float* buffer, float* to);

// The same rows, with the view's columns as items side by side: to[ceil(width / w)][count][w]. Columns from
// width on and rows from `rows` on are zero. buffer has kGroup * width floats.
void PackAlong(const RowView& view, int64_t rows, int64_t first, int count, int w, float* buffer, float* to);

// No infinity and no NaN among them.
bool AllFinite(const float* values, int64_t count);

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_PACKING_H_
