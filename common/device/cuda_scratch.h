// What a GPU's kernels (worker/device/cuda) take of its memory beside their operands. They keep to it, and
// the planner predicts by it (coordinator/planner/memory.cc). Pure sizes, in bytes.
//
// The library of products has its workspace from the first to the last. Of the rest a stream has one block,
// as large as the largest that a kernel on it needed.
#ifndef SEQPAR_COMMON_DEVICE_CUDA_SCRATCH_H_
#define SEQPAR_COMMON_DEVICE_CUDA_SCRATCH_H_

#include <algorithm>
#include <cstdint>

namespace seqpar {

// What NVIDIA recommends for Hopper's products.
inline constexpr int64_t kCudaProductWorkspaceBytes = int64_t{32} << 20;

// A norm's backward pass: each block of threads sums the gradients of weight and bias over its own rows.
inline constexpr int kCudaNormBlocks = 264;
constexpr int64_t CudaNormScratchBytes(int64_t rows, int64_t cols) {
  return 2 * std::min<int64_t>(rows, kCudaNormBlocks) * cols * 4;
}

// Sums of columns: so many rows a block of threads.
inline constexpr int64_t kCudaColumnSumRows = 256;
constexpr int64_t CudaColumnSumScratchBytes(int64_t rows, int64_t cols) {
  return (rows + kCudaColumnSumRows - 1) / kCudaColumnSumRows * cols * 4;
}

// A product with a bias that is stored in 16 bits is summed in float32 and rounded once: so many rows at a
// time.
inline constexpr int64_t kCudaRoundedProductBytes = int64_t{256} << 20;
constexpr int64_t CudaRoundedProductRows(int64_t rows, int64_t cols) {
  return std::min(rows, std::max<int64_t>(1, kCudaRoundedProductBytes / std::max<int64_t>(1, cols * 4)));
}

// Attention's backward pass on tensor cores: float32 sums of dQ, log-sum-exps and deltas of the heads that
// one launch takes, in whole tiles of queries.
inline constexpr int64_t kCudaAttentionBytes = int64_t{544} << 20;
inline constexpr int kCudaAttentionTileMin = 64, kCudaAttentionTileMax = 128;
constexpr int64_t CudaAttentionHeads(int64_t queries, int head_dim) {
  return std::max<int64_t>(1, kCudaAttentionBytes / ((queries + kCudaAttentionTileMax) * head_dim * 4));
}
// Where query heads that share a KV head take turns to add to its gradients: a counter a head and 128 keys.
inline constexpr int64_t kCudaAttentionTurnsBytes = int64_t{1} << 20;
// Of one launch, without those turns; tiles of `tile` queries.
constexpr int64_t CudaAttentionScratchBytes(int64_t queries, int64_t heads, int head_dim, int tile) {
  const int64_t tiles = (queries + tile - 1) / tile;
  return heads * tiles * (int64_t{tile} * (head_dim + 2) + 1) * 4;
}

// What any attention kernel on tensor cores computes in, for a tile of `heads` heads (of all batch indices),
// at most: some want so much also where they add nothing up, to merge what they computed.
inline constexpr int64_t kCudaAttentionLeastBytes = int64_t{64} << 20;
constexpr int64_t CudaAttentionBudget(bool backward, int64_t queries, int64_t heads, int head_dim) {
  if (!backward || queries == 0 || heads == 0) return kCudaAttentionLeastBytes;
  const int64_t launches = (heads - 1) / CudaAttentionHeads(queries, head_dim) + 1;
  return std::max(kCudaAttentionLeastBytes,
                  CudaAttentionScratchBytes(queries + kCudaAttentionTileMax, (heads - 1) / launches + 1,
                                            head_dim, kCudaAttentionTileMin) +
                      kCudaAttentionTurnsBytes);
}

}  // namespace seqpar

#endif  // SEQPAR_COMMON_DEVICE_CUDA_SCRATCH_H_
