// Which attention kernel serves what: the one place that says so.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_ATTENTION_TABLE_H_
#define SEQPAR_WORKER_DEVICE_CUDA_ATTENTION_TABLE_H_

#include "common/tensor/dtype.h"

namespace seqpar::cuda {

enum class AttentionKernel {
  kTiledFloat32,  // attention_tiles.cuh: anything, in true float32
  kFa4Sm90,       // fa4_attention.h: tensor cores of Hopper
  kFa4Sm100,      // fa4_attention.h: tensor cores of Blackwell
  kCudnn,         // cudnn_attention.h: tensor cores
};
inline constexpr int kAttentionKernels = 4;
inline const char* AttentionKernelName(AttentionKernel kernel) {
  return kernel == AttentionKernel::kFa4Sm90    ? "fa4_sm90"
         : kernel == AttentionKernel::kFa4Sm100 ? "fa4_sm100"
         : kernel == AttentionKernel::kCudnn    ? "cudnn"
                                                : "tiled_float32";
}
constexpr bool IsFa4(AttentionKernel kernel) {
  return kernel == AttentionKernel::kFa4Sm90 || kernel == AttentionKernel::kFa4Sm100;
}

// What a tile's mask comes to for one who has kernels of three masks.
enum class MaskShape {
  kRegular,    // a few runs of queries, each full, causal or a window (mask_runs.h)
  kIrregular,  // more runs than are worth a launch each
};

struct AttentionTableRow {
  int capability_min, capability_max;  // 90 is 9.0
  DType type;
  int head_dim_min, head_dim_max, head_dim_step;
  MaskShape mask;
  AttentionKernel kernel;
};
// In the order that they are asked in. cuDNN's limits on the head dimension are those of its backward pass;
// FlashAttention-4's kernels are compiled for one capability each and run on no other.
inline constexpr AttentionTableRow kAttentionTable[] = {
    {90, 90, DType::kBF16, 64, 128, 32, MaskShape::kRegular, AttentionKernel::kFa4Sm90},
    {100, 100, DType::kBF16, 64, 128, 32, MaskShape::kRegular, AttentionKernel::kFa4Sm100},
    {90, 90, DType::kBF16, 8, 256, 8, MaskShape::kRegular, AttentionKernel::kCudnn},
    {80, 129, DType::kBF16, 8, 128, 8, MaskShape::kRegular, AttentionKernel::kCudnn},
};

// Whether there are cards of the capability that the kernel is for.
constexpr bool IsForCapability(AttentionKernel kernel, int capability) {
  if (kernel == AttentionKernel::kTiledFloat32) return true;
  for (const AttentionTableRow& row : kAttentionTable) {
    if (row.kernel == kernel && capability >= row.capability_min && capability <= row.capability_max) {
      return true;
    }
  }
  return false;
}

// The kernel of the first row that fits and whose kernel can(kernel) have the tile: it is in this build, on
// this machine, and its operands suit it. Where there is none, kTiledFloat32.
template <typename Can>
constexpr AttentionKernel ChooseAttention(int capability, DType type, int head_dim, MaskShape mask,
                                          const Can& can) {
  for (const AttentionTableRow& row : kAttentionTable) {
    if (capability >= row.capability_min && capability <= row.capability_max && type == row.type &&
        head_dim >= row.head_dim_min && head_dim <= row.head_dim_max && head_dim % row.head_dim_step == 0 &&
        mask == row.mask && can(row.kernel)) {
      return row.kernel;
    }
  }
  return AttentionKernel::kTiledFloat32;
}

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_ATTENTION_TABLE_H_
