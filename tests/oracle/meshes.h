// The values that the test matrix draws from: meshes, heads, masks.
#ifndef SEQPAR_TESTS_ORACLE_MESHES_H_
#define SEQPAR_TESTS_ORACLE_MESHES_H_

#include <utility>
#include <vector>

#include "common/job/job.h"
#include "common/parallel/mesh.h"

namespace seqpar {

// Every T x U x R of at most `ranks_max` ranks, with every inner ring that divides R (1 stands for R: the
// plain ring).
inline std::vector<Mesh> AllMeshes(int ranks_max) {
  std::vector<Mesh> meshes;
  for (int t = 1; t <= ranks_max; ++t) {
    for (int u = 1; t * u <= ranks_max; ++u) {
      for (int r = 1; t * u * r <= ranks_max; ++r) {
        for (int inner = 2; inner <= r; ++inner) {
          if (r % inner == 0) meshes.push_back({t, u, r, inner});
        }
        if (r == 1) meshes.push_back({t, u, r, 1});
      }
    }
  }
  return meshes;
}

inline std::vector<std::pair<int, int>> MatrixHeads() { return {{8, 8}, {8, 2}, {5, 5}, {7, 1}}; }

inline constexpr int kMatrixMasks = 9;
// The index-th mask for a sequence of `tokens` >= 4.
inline MaskSpec MatrixMask(int index, int64_t tokens) {
  const std::vector<int64_t> documents = {tokens / 4, 1, tokens - tokens / 4 - 1 - tokens / 3, tokens / 3};
  switch (index) {
    case 0:
      return {MaskKind::kFull};
    case 1:
      return {MaskKind::kCausal};
    case 2:
      return {MaskKind::kWindow, 7, 0};
    case 3:
      return {MaskKind::kWindow, 16, 16};
    case 4:
      return {MaskKind::kWindow, 0, 5};
    case 5:
      return {MaskKind::kWindow, -1, 3};
    case 6:
      return {MaskKind::kCausal, -1, -1, documents};
    case 7:
      return {MaskKind::kFull, -1, -1, documents};
    default:
      return {MaskKind::kWindow, 9, -1, documents};
  }
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_ORACLE_MESHES_H_
