// What one graph of cuDNN's attention computes, as a value that graphs are kept by. Pure, no CUDA.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_CUDNN_SHAPE_H_
#define SEQPAR_WORKER_DEVICE_CUDA_CUDNN_SHAPE_H_

#include <compare>
#include <cstdint>

#include "worker/device/cuda/cudnn_pieces.h"

namespace seqpar::cuda {

// In elements; those of one feature to the next are 1.
struct CudnnStrides {
  int64_t outer = 0, head = 0, token = 0;
  auto operator<=>(const CudnnStrides&) const = default;
};

// Heads are [outer][heads]; K and V have as many, by strides. Where data lies is no part of it, nor are the
// tile and the run that a piece was cut from.
struct CudnnShape {
  CudnnPass pass = CudnnPass::kForward;
  CudnnMask mask = CudnnMask::kFull;
  int head_dim = 0;
  float scale = 1;
  int64_t outer = 1, heads = 1, queries = 0, keys = 0;
  CudnnStrides q, k, v;
  CudnnStrides dout;  // backward
  auto operator<=>(const CudnnShape&) const = default;
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_CUDNN_SHAPE_H_
