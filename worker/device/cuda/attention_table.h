// Which attention kernel serves what: the one place that says so.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_ATTENTION_TABLE_H_
#define SEQPAR_WORKER_DEVICE_CUDA_ATTENTION_TABLE_H_

#include "common/tensor/dtype.h"

namespace seqpar::cuda {

enum class AttentionKernel {
  kTiledFloat32,  // attention.cu: anything, in true float32
  kFa4,           // fa4_attention.h: tensor cores
};
inline const char* AttentionKernelName(AttentionKernel kernel) {
  return kernel == AttentionKernel::kFa4 ? "fa4_sm90" : "tiled_float32";
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
// The first row that fits; where none does, kTiledFloat32.
inline constexpr AttentionTableRow kAttentionTable[] = {
    {90, 90, DType::kBF16, 64, 128, 32, MaskShape::kRegular, AttentionKernel::kFa4},
};

constexpr AttentionKernel ChooseAttention(int capability, DType type, int head_dim, MaskShape mask) {
  for (const AttentionTableRow& row : kAttentionTable) {
    if (capability >= row.capability_min && capability <= row.capability_max && type == row.type &&
        head_dim >= row.head_dim_min && head_dim <= row.head_dim_max && head_dim % row.head_dim_step == 0 &&
        mask == row.mask) {
      return row.kernel;
    }
  }
  return AttentionKernel::kTiledFloat32;
}

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_ATTENTION_TABLE_H_
