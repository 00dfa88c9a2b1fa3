// Random operands in device memory: kernels run faster on zeros than on data.
#ifndef SEQPAR_TESTS_BENCH_RANDOM_FILL_H_
#define SEQPAR_TESTS_BENCH_RANDOM_FILL_H_

#include <algorithm>
#include <random>
#include <vector>

#include "common/base/check.h"
#include "common/device/device.h"

namespace seqpar {

// Fills m, which is contiguous, with normal numbers times `scale`. One block of them, repeated: making
// gigabytes would take longer than a bench.
inline void FillNormal(Device* device, Stream& stream, std::mt19937* random, float scale, const Matrix& m) {
  SEQPAR_CHECK(m.contiguous());
  std::normal_distribution<float> normal(0, scale);
  std::vector<char> block(std::min<int64_t>(m.bytes(), int64_t{1} << 24));
  const int64_t count = static_cast<int64_t>(block.size()) / SizeOf(m.dtype);
  for (int64_t i = 0; i < count; ++i) {
    const float value = normal(*random);
    if (m.dtype == DType::kF32) {
      reinterpret_cast<float*>(block.data())[i] = value;
    } else {
      reinterpret_cast<BF16*>(block.data())[i] = ToBF16(value);
    }
  }
  for (int64_t at = 0; at < m.bytes(); at += static_cast<int64_t>(block.size())) {
    device->CopyFromHost(stream, block.data(), static_cast<char*>(m.data) + at,
                         std::min<int64_t>(block.size(), m.bytes() - at));
  }
  SEQPAR_CHECK(stream.Synchronize().ok());
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_BENCH_RANDOM_FILL_H_
