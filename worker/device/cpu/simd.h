// Which vector instruction sets there are, and words that their kernels share.
#ifndef SEQPAR_WORKER_DEVICE_CPU_SIMD_H_
#define SEQPAR_WORKER_DEVICE_CPU_SIMD_H_

#include <string>
#include <vector>

namespace seqpar::cpu {

// Vectorised products compute a few rows of a *panel* at a time: a panel is some vectors side by side. Rows
// come in groups; kGroup divides every group. Operands are float32, 64-byte aligned and packed:
//   across (w)  [item / w][depth][w]    w items side by side, for operands whose items are rows in memory
//   along (w)   [item / w][depth][w]    the same, for operands whose items are columns in memory
inline constexpr int kGroup = 4;

inline constexpr int RoundUp(int value, int to) { return (value + to - 1) / to * to; }

// The instruction sets that this build has kernels for and this processor can run, widest first: "AVX3",
// "AVX2", "SSE4", "NEON". Empty where there is none.
std::vector<std::string> SimdNames();

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_SIMD_H_
