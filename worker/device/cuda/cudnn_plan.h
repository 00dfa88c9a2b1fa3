// Which calls of cuDNN's attention a tile comes to: each run of queries by pieces (cudnn_pieces.h) and by
// grids of as many heads as there is memory to compute in. No CUDA: what there is a graph for is the caller's
// word.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_CUDNN_PLAN_H_
#define SEQPAR_WORKER_DEVICE_CUDA_CUDNN_PLAN_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "common/device/device.h"
#include "worker/device/cuda/cudnn_shape.h"
#include "worker/device/cuda/head_grid.h"
#include "worker/device/cuda/head_part.h"
#include "worker/device/cuda/mask_runs.h"

namespace seqpar::cuda {

class CudnnGraph;

// A shape takes a tenth of a second to get its graph: runs of a tile that come to more shapes than these are
// left to kernels that take any.
inline constexpr size_t kCudnnShapesMax = 32;

// A call of the library.
struct CudnnLaunch {
  CudnnPiece piece;
  HeadGrid grid;
  std::shared_ptr<const CudnnGraph> graph;
  int64_t own_bytes = 0, workspace_bytes = 0;  // to compute in: ours, then the library's
  bool first = false;                          // forward: there is nothing yet to merge with
};
struct CudnnPlan {
  std::vector<CudnnLaunch> launches;
  std::vector<QuerySpan> left;  // ascending: queries that are left to another kernel
};

// What there is for a shape: no graph where cuDNN has no kernel, or none is to be made for it now.
struct CudnnKernel {
  std::shared_ptr<const CudnnGraph> graph;
  int64_t workspace_bytes = 0;
};
using CudnnFind = std::function<CudnnKernel(const CudnnShape&)>;

// `runs`: the tile's (run_cache.h). `dout` is null forward. Left are runs that are too small
// (cudnn_pieces.h), that `find` has no kernel for, or none that keeps to CudaAttentionBudget, and those past
// kCudnnShapesMax. Nothing where that is all of them. Of matrices only types and strides are looked at.
std::optional<CudnnPlan> PlanCudnn(CudnnPass pass, const AttentionTile& tile,
                                   const std::vector<QueryRun>& runs, bool first, const Matrix* dout,
                                   const CudnnFind& find);

// Where a launch's queries and keys lie in the tile's matrices.
inline HeadPart CudnnQueries(const AttentionTile& tile, const CudnnPiece& piece, const HeadGrid& grid,
                             int64_t width) {
  return {grid, tile.batch, piece.first, piece.count, width, false};
}
inline HeadPart CudnnKeys(const AttentionTile& tile, const CudnnPiece& piece, const HeadGrid& grid) {
  return {grid, tile.batch, piece.first_key, piece.keys, tile.head_dim, true};
}

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_CUDNN_PLAN_H_
