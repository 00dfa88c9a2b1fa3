// A run of queries (mask_runs.h) as pieces whose masks cuDNN's attention has exactly, and what a piece takes
// to compute in. Pure values, no CUDA.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_CUDNN_PIECES_H_
#define SEQPAR_WORKER_DEVICE_CUDA_CUDNN_PIECES_H_

#include <cstdint>
#include <vector>

#include "worker/device/cuda/mask_runs.h"

namespace seqpar::cuda {

enum class CudnnMask { kFull, kCausal, kAfter, kBand };

// Queries [first, first + count) against keys [first_key, first_key + keys). Query i of the piece sees its
// keys j: kFull all of them; kCausal j <= i; kAfter j >= i (both square); kBand i <= j <= i + keys - count.
struct CudnnPiece {
  CudnnMask mask = CudnnMask::kFull;
  int64_t first = 0, count = 0;
  int64_t first_key = 0, keys = 0;
  friend bool operator==(const CudnnPiece&, const CudnnPiece&) = default;
};

// Pieces that together hold every (query, key) of a run once: of at most `block` queries, and of as many keys
// but for kBand, whose width is the mask's. What is cut is cut alike, so that few shapes come of it. Nothing
// for kEmpty. A causal mask that is aligned at the end becomes a full and a square piece, though cuDNN has
// it: backward it skips no tiles there.
std::vector<CudnnPiece> CutIntoPieces(const QueryRun& run, int64_t block);

// Whether a run is left to our own kernel: where a side is shorter than half of cuDNN's tiles, launches are
// what costs, and a graph is not worth its time. Of queries that see one key each, gradients of q and k are
// zero, which our own kernel gives and cuDNN's sums do not.
bool TooSmallForCudnn(const QueryRun& run);

enum class CudnnPass { kForward, kBackward, kBackwardFixed };

// What a launch computes in for each of its heads, at most: results before they are added up, and the
// library's own workspace, which for a fixed order of sums holds the gradients of all scores.
constexpr int64_t CudnnHeadBytes(CudnnPass pass, int head_dim, int64_t queries, int64_t keys) {
  const int64_t dim = head_dim;
  if (pass == CudnnPass::kForward) return queries * (2 * dim + 4);
  const int64_t bytes = queries * (8 * dim + 8) + keys * 4 * dim;
  return pass == CudnnPass::kBackward ? bytes : bytes + 2 * (queries + 128) * (keys + 128);
}
// The most queries and keys of a piece whose head fits into `bytes`: 128 times a power of two.
int64_t CudnnBlock(CudnnPass pass, int head_dim, int64_t bytes);

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_CUDNN_PIECES_H_
