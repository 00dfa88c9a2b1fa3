#include "common/tensor/dtype.h"

#include <cmath>
#include <cstring>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

// The float nearest to `value` whose last bit is set where the conversion is not exact. Rounding that once
// more to a type of at most 22 significant bits gives the same as rounding `value` straight to it.
float RoundToOdd(double value) {
  const float nearest = static_cast<float>(value);
  const uint32_t bits = std::bit_cast<uint32_t>(nearest);
  if (std::isnan(value) || static_cast<double>(nearest) == value || (bits & 1) != 0) return nearest;
  const bool rounded_up = std::fabs(static_cast<double>(nearest)) > std::fabs(value);
  return std::bit_cast<float>(rounded_up ? bits - 1 : bits + 1);
}

float Widen(float v) { return v; }
double Widen(double v) { return v; }
float Widen(BF16 v) { return ToFloat(v); }
float Widen(F16 v) { return ToFloat(v); }

template <typename To, typename Wide>
To Narrow(Wide wide) {
  if constexpr (std::is_floating_point_v<To>) {
    return static_cast<To>(wide);
  } else {
    float single;
    if constexpr (std::is_same_v<Wide, double>) {
      single = RoundToOdd(wide);
    } else {
      single = wide;
    }
    if constexpr (std::is_same_v<To, BF16>) {
      return ToBF16(single);
    } else {
      return ToF16(single);
    }
  }
}

// By memcpy: what comes out of a file need not be aligned.
template <typename From, typename To>
void ConvertAll(const void* from, void* to, int64_t n) {
  const char* source = static_cast<const char*>(from);
  char* target = static_cast<char*>(to);
  for (int64_t i = 0; i < n; ++i) {
    From value;
    std::memcpy(&value, source + i * static_cast<int64_t>(sizeof(From)), sizeof(From));
    const To converted = Narrow<To>(Widen(value));
    std::memcpy(target + i * static_cast<int64_t>(sizeof(To)), &converted, sizeof(To));
  }
}

template <typename From>
void ConvertFrom(const void* from, void* to, DType to_type, int64_t n) {
  switch (to_type) {
    case DType::kF32:
      return ConvertAll<From, float>(from, to, n);
    case DType::kBF16:
      return ConvertAll<From, BF16>(from, to, n);
    case DType::kF16:
      return ConvertAll<From, F16>(from, to, n);
    case DType::kF64:
      return ConvertAll<From, double>(from, to, n);
  }
}

}  // namespace

const char* JobName(DType t) {
  switch (t) {
    case DType::kF32:
      return "float32";
    case DType::kBF16:
      return "bfloat16";
    case DType::kF16:
      return "float16";
    case DType::kF64:
      return "float64";
  }
  return "";
}

const char* SafetensorsName(DType t) {
  switch (t) {
    case DType::kF32:
      return "F32";
    case DType::kBF16:
      return "BF16";
    case DType::kF16:
      return "F16";
    case DType::kF64:
      return "F64";
  }
  return "";
}

absl::StatusOr<DType> ParseSafetensorsDType(const std::string& name) {
  for (DType t : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64}) {
    if (name == SafetensorsName(t)) return t;
  }
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                   absl::StrCat("dtype \"", name, "\" is not one of F32, BF16, F16, F64"));
}

F16 ToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) {  // NaN: quiet, with the top of its payload
    return F16{static_cast<uint16_t>(sign | 0x7e00 | (magnitude >> 13 & 0x1ff))};
  }
  if (magnitude >= 0x47800000) return F16{static_cast<uint16_t>(sign | 0x7c00)};  // 65536 and more, infinity
  if (magnitude < 0x38800000) {
    // Below 2^-14 the result is subnormal, in units of 2^-24; adding 0.5 makes the hardware round at that
    // unit.
    const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
    return F16{static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(aligned) - 0x3f000000))};
  }
  // A carry out of the mantissa moves into the exponent, up to infinity, which is right.
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return F16{static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13))};
}

float ToFloat(F16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
  const uint32_t exponent = value.bits >> 10 & 0x1f;
  const uint32_t mantissa = value.bits & 0x3ff;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // zero or subnormal: exact in float32
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t wide_exponent = exponent == 0x1f ? 0xff : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide_exponent << 23 | mantissa << 13);
}

void ConvertElements(const void* from, DType from_type, void* to, DType to_type, int64_t n) {
  SEQPAR_CHECK(n >= 0);
  if (from_type == to_type) {
    if (n > 0) std::memcpy(to, from, static_cast<size_t>(n * SizeOf(from_type)));
    return;
  }
  switch (from_type) {
    case DType::kF32:
      return ConvertFrom<float>(from, to, to_type, n);
    case DType::kBF16:
      return ConvertFrom<BF16>(from, to, to_type, n);
    case DType::kF16:
      return ConvertFrom<F16>(from, to, to_type, n);
    case DType::kF64:
      return ConvertFrom<double>(from, to, to_type, n);
  }
}

}  // namespace seqpar
