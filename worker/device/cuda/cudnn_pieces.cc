#include "worker/device/cuda/cudnn_pieces.h"

#include <algorithm>

namespace seqpar::cuda {
namespace {

constexpr int64_t kTile = 128;  // of cuDNN's kernels: a cut elsewhere leaves a part of one

struct Span {
  int64_t first, count;
};

// [first, first + count) in as few spans of at most `block` as can be, and alike.
std::vector<Span> Cut(int64_t first, int64_t count, int64_t block) {
  const int64_t parts = (count + block - 1) / block;
  int64_t size = count;
  if (parts > 1) size = std::min(block, ((count + parts - 1) / parts + kTile - 1) / kTile * kTile);
  std::vector<Span> spans;
  for (int64_t at = 0; at < count; at += size) spans.push_back({first + at, std::min(size, count - at)});
  return spans;
}

void CutFull(const Span& queries, const Span& keys, int64_t block, std::vector<CudnnPiece>* pieces) {
  for (const Span& q : Cut(queries.first, queries.count, block)) {
    for (const Span& k : Cut(keys.first, keys.count, block)) {
      pieces->push_back({CudnnMask::kFull, q.first, q.count, k.first, k.count});
    }
  }
}

// As many keys as queries: `mask` on the diagonal, full on one side of it.
void CutSquare(CudnnMask mask, const Span& queries, int64_t first_key, int64_t block,
               std::vector<CudnnPiece>* pieces) {
  for (const Span& q : Cut(queries.first, queries.count, block)) {
    for (const Span& k : Cut(first_key, queries.count, block)) {
      const int64_t query = q.first - queries.first, key = k.first - first_key;
      if (query == key) {
        pieces->push_back({q.count == 1 ? CudnnMask::kFull : mask, q.first, q.count, k.first, k.count});
      } else if ((key < query) == (mask == CudnnMask::kCausal)) {
        pieces->push_back({CudnnMask::kFull, q.first, q.count, k.first, k.count});
      }
    }
  }
}

}  // namespace

std::vector<CudnnPiece> CutIntoPieces(const QueryRun& run, int64_t block) {
  std::vector<CudnnPiece> pieces;
  if (run.mask == RunMask::kEmpty) return pieces;
  const Span queries{run.first, run.count};
  const int64_t more = run.keys - run.count;  // than queries; every query of a run sees a key
  if (run.mask == RunMask::kFull) {
    CutFull(queries, {run.first_key, run.keys}, block, &pieces);
  } else if (run.mask == RunMask::kCausal) {
    CutFull(queries, {run.first_key, more}, block, &pieces);
    CutSquare(CudnnMask::kCausal, queries, run.first_key + more, block, &pieces);
  } else if (run.right == kUnlimited) {
    CutSquare(CudnnMask::kAfter, queries, run.first_key, block, &pieces);
    CutFull(queries, {run.first_key + run.count, more}, block, &pieces);
  } else {
    for (const Span& q : Cut(run.first, run.count, block)) {
      pieces.push_back({q.count == 1 ? CudnnMask::kFull : CudnnMask::kBand, q.first, q.count,
                        run.first_key + q.first - run.first, q.count + more});
    }
  }
  return pieces;
}

bool TooSmallForCudnn(const QueryRun& run) {
  const bool one_key = run.mask == RunMask::kWindow && run.left == 0 && run.right == 0;
  return run.count < kTile / 2 || run.keys < kTile / 2 || one_key;
}

int64_t CudnnBlock(CudnnPass pass, int head_dim, int64_t bytes) {
  int64_t block = kTile;
  while (CudnnHeadBytes(pass, head_dim, 2 * block, 2 * block) <= bytes) block *= 2;
  return block;
}

}  // namespace seqpar::cuda
