// Seeded values: the same on every mesh, device and machine.
#ifndef SEQPAR_COMMON_TENSOR_SEEDED_H_
#define SEQPAR_COMMON_TENSOR_SEEDED_H_

#include <cstdint>
#include <string>

namespace seqpar {

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC'11).
// out[4] <- counter[4], key[2].
void Philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

// 64-bit FNV-1a of the bytes of `text`.
uint64_t Fnv1a64(const std::string& text);

// Fills out[0, n) with the values of flat indices [begin, begin + n) of tensor `name`: uniform on
// [-sqrt(3 variance), sqrt(3 variance)). Key: the seed's low and high words. Counter: low and high word of
// index / 4, low and high word of the name's FNV-1a; word index % 4 of the output, its upper 24 bits as a
// fraction. Computed in float64, and for float32 rounded once; what another type is to hold is rounded from
// the float64 values, since rounding twice is not always rounding to the nearest.
void SeededUniform(uint64_t seed, const std::string& name, double variance, int64_t begin, int64_t n,
                   float* out);
void SeededUniform(uint64_t seed, const std::string& name, double variance, int64_t begin, int64_t n,
                   double* out);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_TENSOR_SEEDED_H_
