// An attention kernel of the CPU device. Implementations: the plain reference and the vectorised one.
#ifndef SEQPAR_WORKER_DEVICE_CPU_ATTENTION_KERNEL_H_
#define SEQPAR_WORKER_DEVICE_CPU_ATTENTION_KERNEL_H_

#include "absl/status/status.h"
#include "common/device/device.h"
#include "worker/device/cpu/scratch.h"
#include "worker/device/cpu/spans.h"

namespace seqpar::cpu {

// Arguments as Device::AttentionForward and AttentionBackward; shapes checked by the caller. What a head gets
// is the same bits whichever other heads are in the tile and however many threads there are.
// RESOURCE_EXHAUSTED where scratch would exceed the device's limit. Thread-safe.
class AttentionKernel {
 public:
  virtual ~AttentionKernel() = default;
  virtual const char* name() const = 0;
  virtual absl::Status Forward(const CpuContext& cpu, const AttentionTile& tile, const Matrix& out,
                               const Matrix& lse, bool first) const = 0;
  virtual absl::Status Backward(const CpuContext& cpu, const AttentionTile& tile, const Matrix& dout,
                                const Matrix& lse, const Matrix& delta, const Matrix& dq, const Matrix& dk,
                                const Matrix& dv) const = 0;
};

// Local KV head of local query head `q_head`.
inline int LocalKvHead(const AttentionTile& tile, int q_head) {
  return (tile.heads.q_begin + q_head) / tile.group - tile.heads.kv_begin;
}

// One head of one batch row: token i of x is row i * batch + batch_index, its features begin at `column`.
struct HeadView {
  Matrix x;
  int64_t batch, batch_index, column;
  int head_dim;

  // The token's features as float32, in the matrix itself or converted into buffer[head_dim].
  const float* Read(int64_t token, float* buffer) const {
    const int64_t row = token * batch + batch_index;
    return ReadSpan(x, row, column, head_dim, buffer);
  }
  // REQUIRES: x is float32.
  float* Floats(int64_t token) const {
    return reinterpret_cast<float*>(x.At(token * batch + batch_index, column));
  }
};

inline HeadView ViewOf(const AttentionTile& tile, const Matrix& x, int64_t batch_index, int head) {
  return {x, tile.batch, batch_index, int64_t{head} * tile.head_dim, tile.head_dim};
}

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_ATTENTION_KERNEL_H_
