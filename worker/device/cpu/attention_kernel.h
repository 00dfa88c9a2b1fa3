// An attention kernel of the CPU device. Implementations: the plain reference and the vectorised one.
#ifndef SEQPAR_WORKER_DEVICE_CPU_ATTENTION_KERNEL_H_
#define SEQPAR_WORKER_DEVICE_CPU_ATTENTION_KERNEL_H_

#include "absl/status/status.h"
#include "common/device/device.h"
#include "worker/device/cpu/packing.h"
#include "worker/device/cpu/scratch.h"

namespace seqpar::cpu {

// Arguments as Device::AttentionForward and AttentionBackward; shapes checked by the caller. What a head gets
// is the same bits whichever other heads are in the tile and however many threads there are.
// RESOURCE_EXHAUSTED where scratch would exceed the device's limit. Thread-safe.
class AttentionKernel {
 public:
  virtual ~AttentionKernel() = default;
  virtual absl::Status Forward(const CpuContext& cpu, const AttentionTile& tile, const Matrix& out,
                               const Matrix& lse, bool first) const = 0;
  virtual absl::Status Backward(const CpuContext& cpu, const AttentionTile& tile, const Matrix& dout,
                                const Matrix& lse, const Matrix& delta, const Matrix& dq, const Matrix& dk,
                                const Matrix& dv) const = 0;
  // As Device::AttentionDelta, each sum with the order and the roundings that Backward's dout . v has: where
  // a query sees one key its out is that key's v, and the two must cancel to nothing.
  virtual absl::Status Delta(const CpuContext& cpu, int head_dim, const Matrix& dout, const Matrix& out,
                             const Matrix& delta) const = 0;
};

// sums[i] = the dot product of the i-th of `count` neighbouring pairs of n floats.
using DotsFunction = void (*)(const float* a, const float* b, int n, int64_t count, float* sums);
// Delta by rows of heads, whatever their storage type.
absl::Status DeltaByRows(const CpuContext& cpu, int head_dim, const Matrix& dout, const Matrix& out,
                         const Matrix& delta, DotsFunction dots);

// Local KV head of local query head `q_head`.
inline int LocalKvHead(const AttentionTile& tile, int q_head) {
  return (tile.heads.q_begin + q_head) / tile.group - tile.heads.kv_begin;
}

// One head of one batch row: row i of the view is token i.
inline RowView ViewOf(const AttentionTile& tile, const Matrix& x, int64_t batch_index, int head) {
  return {x, batch_index, tile.batch, int64_t{head} * tile.head_dim, tile.head_dim};
}

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_ATTENTION_KERNEL_H_
