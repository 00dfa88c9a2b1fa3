#include "worker/device/cpu/packing.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace seqpar::cpu {
namespace {

// Rows [first, first + kGroup) of the view, zero from `rows` on; converted ones are in buffer.
void ReadGroup(const RowView& view, int64_t rows, int64_t first, float* buffer, const float** group) {
  for (int i = 0; i < kGroup; ++i) {
    float* copy = buffer + i * view.width;
    if (first + i < rows) {
      group[i] = view.Read(first + i, copy);
    } else {
      std::fill(copy, copy + view.width, 0.0f);
      group[i] = copy;
    }
  }
}

// Four floats, by the extension that GCC and Clang share: this file is compiled for the oldest processor.
using Quad = float __attribute__((vector_size(16)));
static_assert(kGroup == 4);

Quad LoadQuad(const float* from) {
  Quad quad;
  std::memcpy(&quad, from, sizeof quad);
  return quad;
}
void StoreQuad(Quad quad, float* to) { std::memcpy(to, &quad, sizeof quad); }

// Columns [col, col + 4) of four rows times `scale`, each side by side, w apart.
void PutTransposed(const float* const* rows, int col, float scale, int w, float* to) {
  const Quad a = LoadQuad(rows[0] + col), b = LoadQuad(rows[1] + col);
  const Quad c = LoadQuad(rows[2] + col), d = LoadQuad(rows[3] + col);
  const Quad ab01 = __builtin_shufflevector(a, b, 0, 4, 1, 5),
             cd01 = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Quad ab23 = __builtin_shufflevector(a, b, 2, 6, 3, 7),
             cd23 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  StoreQuad(scale * __builtin_shufflevector(ab01, cd01, 0, 1, 4, 5), to);
  StoreQuad(scale * __builtin_shufflevector(ab01, cd01, 2, 3, 6, 7), to + w);
  StoreQuad(scale * __builtin_shufflevector(ab23, cd23, 0, 1, 4, 5), to + 2 * w);
  StoreQuad(scale * __builtin_shufflevector(ab23, cd23, 2, 3, 6, 7), to + 3 * w);
}

// Copies of a length that the compiler knows are a few vectors each.
template <int kWidth>
void CopyPieces(const float* const* group, int count, int col, int, float* to) {
  for (int i = 0; i < count; ++i) std::memcpy(to + i * kWidth, group[i] + col, kWidth * sizeof(float));
}
void CopyPiecesOfAnyWidth(const float* const* group, int count, int col, int w, float* to) {
  for (int i = 0; i < count; ++i) std::memcpy(to + i * w, group[i] + col, w * sizeof(float));
}
auto* PieceCopier(int w) {
  switch (w) {
    case 4:
      return &CopyPieces<4>;
    case 8:
      return &CopyPieces<8>;
    case 12:
      return &CopyPieces<12>;
    case 16:
      return &CopyPieces<16>;
    case 24:
      return &CopyPieces<24>;
    case 32:
      return &CopyPieces<32>;
    case 48:
      return &CopyPieces<48>;
    default:
      return &CopyPiecesOfAnyWidth;
  }
}

}  // namespace

void PackAcross(const RowView& view, int64_t rows, int64_t first, int count, int w, float scale,
                float* buffer, float* to) {
  const int width = view.width, whole = width / kGroup * kGroup;
  for (int row = 0; row < count; row += kGroup) {
    const float* group[kGroup];
    ReadGroup(view, rows, first + row, buffer, group);
    float* target = to + int64_t{row / w} * w * width + row % w;
    for (int col = 0; col < whole; col += kGroup, target += kGroup * w) {
      PutTransposed(group, col, scale, w, target);
    }
    for (int col = whole; col < width; ++col, target += w) {
      for (int i = 0; i < kGroup; ++i) target[i] = group[i][col] * scale;
    }
  }
}

void PackAlong(const RowView& view, int64_t rows, int64_t first, int count, int w, float* buffer, float* to) {
  const int64_t block_stride = int64_t{count} * w;
  const int whole = view.width / w * w, rest = view.width - whole;
  auto* const copy = PieceCopier(w);
  // A few rows at once: neighbours in memory in each block, and blocks may be a power of two apart.
  for (int row = 0; row < count; row += kGroup) {
    const float* group[kGroup];
    ReadGroup(view, rows, first + row, buffer, group);
    const int n = std::min(kGroup, count - row);
    float* target = to + int64_t{row} * w;
    for (int col = 0; col < whole; col += w, target += block_stride) copy(group, n, col, w, target);
    for (int i = 0; i < n && rest > 0; ++i) {
      std::copy_n(group[i] + whole, rest, target + i * w);
      std::fill(target + i * w + rest, target + (i + 1) * w, 0.0f);
    }
  }
}

bool AllFinite(const float* values, int64_t count) {
  constexpr uint32_t kExponent = 0x7f800000;  // all ones: not finite
  uint32_t some = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof(bits));
    some |= static_cast<uint32_t>((bits & kExponent) == kExponent);
  }
  return some == 0;
}

}  // namespace seqpar::cpu
