#include "worker/device/cpu/packing.h"

#include <algorithm>

namespace seqpar::cpu {

void PackAcross(const RowView& view, int64_t rows, int64_t first, int count, int w, float scale,
                float* buffer, float* to) {
  const int width = view.width;
  for (int row = 0; row < count; row += kGroup) {
    // Four rows at once, so that each store is a vector.
    const float* group[kGroup];
    for (int i = 0; i < kGroup; ++i) {
      float* copy = buffer + i * width;
      if (first + row + i < rows) {
        group[i] = view.Read(first + row + i, copy);
      } else {
        std::fill(copy, copy + width, 0.0f);
        group[i] = copy;
      }
    }
    const float *r0 = group[0], *r1 = group[1], *r2 = group[2], *r3 = group[3];
    float* target = to + int64_t{row / w} * w * width + row % w;
    for (int col = 0; col < width; ++col, target += w) {
      target[0] = r0[col] * scale;
      target[1] = r1[col] * scale;
      target[2] = r2[col] * scale;
      target[3] = r3[col] * scale;
    }
  }
}

void PackAlong(const RowView& view, int64_t rows, int64_t first, int count, int w, float* buffer, float* to) {
  const int64_t block_stride = int64_t{count} * w;
  const int whole = view.width / w * w;
  const int64_t blocks = (view.width + w - 1) / w;
  for (int row = 0; row < count; ++row) {
    float* target = to + int64_t{row} * w;
    if (first + row >= rows) {
      for (int64_t b = 0; b < blocks; ++b) std::fill_n(target + b * block_stride, w, 0.0f);
      continue;
    }
    const float* values = view.Read(first + row, buffer);
    for (int col = 0; col < whole; col += w, target += block_stride) std::copy_n(values + col, w, target);
    if (whole < view.width) {
      std::copy(values + whole, values + view.width, target);
      std::fill(target + view.width - whole, target + w, 0.0f);
    }
  }
}

}  // namespace seqpar::cpu
