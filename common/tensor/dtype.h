// Element types and their conversion.
#ifndef SEQPAR_COMMON_TENSOR_DTYPE_H_
#define SEQPAR_COMMON_TENSOR_DTYPE_H_

#include <bit>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace seqpar {

// kF16 occurs in files only: it is converted to the job's dtype on reading.
enum class DType { kF32, kBF16, kF16, kF64 };

// Bytes an element.
constexpr int64_t SizeOf(DType t) { return t == DType::kF64 ? 8 : t == DType::kF32 ? 4 : 2; }

// As in job files ("float32", "bfloat16"), and as in safetensors headers ("F32", "BF16", "F16", "F64").
const char* JobName(DType t);
const char* SafetensorsName(DType t);
absl::StatusOr<DType> ParseSafetensorsDType(const std::string& name);

// bfloat16 as its bits. Rounds to nearest even; NaN stays NaN (quiet), infinities stay.
struct BF16 {
  uint16_t bits;
};
inline BF16 ToBF16(float value) {
  uint32_t u = std::bit_cast<uint32_t>(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return BF16{static_cast<uint16_t>((u >> 16) | 0x40)};
  return BF16{static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16)};
}
inline float ToFloat(BF16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }

// IEEE binary16 as its bits. Rounds to nearest even, past 65504 to infinity; NaN stays NaN (quiet).
struct F16 {
  uint16_t bits;
};
F16 ToF16(float value);
float ToFloat(F16 value);

// n elements from one type to another, by way of float32 (float64 where either is kF64). Each element is
// rounded once, to nearest even. Neither side needs alignment; regions must not overlap.
void ConvertElements(const void* from, DType from_type, void* to, DType to_type, int64_t n);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_TENSOR_DTYPE_H_
