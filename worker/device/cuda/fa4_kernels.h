// FlashAttention-4's kernels, compiled ahead of time by fa4/export.py: loading and calling them. Where the
// build left them out (SEQPAR_FA4) there are none.
//
// Operands are as export.py declares them; all strides in elements.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_FA4_KERNELS_H_
#define SEQPAR_WORKER_DEVICE_CUDA_FA4_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "worker/device/cuda/fa4_sums.h"

namespace seqpar::cuda {

enum class Fa4Kind { kForward, kMerge, kBackward, kBackwardFixed };
enum class Fa4Mask { kFull, kCausal, kWindow };

// [batch][positions][heads][head_dim]: bfloat16 operands, and O in float32. Where a result is asked for
// rounded it is bfloat16, and its strides are those of pairs.
struct Fa4Rows {
  void* data;
  int32_t shape[3];  // batch, positions, heads
  int64_t stride[3];
};
// [batch][heads][n] without gaps between the n: log-sum-exps, deltas and sums of a backward pass, float32.
struct Fa4Lines {
  void* data;
  int32_t shape[3];
  int64_t stride[2];
};
// [batch][heads][positions], any strides: log-sum-exp; rows of dK and dV, of which it names the first
// element.
struct Fa4Places {
  void* data;
  int32_t shape[3];
  int64_t stride[3];
};
// [batch][heads][tiles][1] of int32.
struct Fa4Turns {
  void* data;
  int32_t shape[3];
  int64_t stride[3];
};

struct Fa4ForwardCall {
  Fa4Rows q, k, v, out;
  Fa4Places lse;
  float scale;
  int32_t left, right;  // read by kWindow
  int32_t rounded = 0;  // kForward of 9.0: not 0 where `out` is bfloat16
};
struct Fa4BackwardCall {
  Fa4Rows q, k, v, dout;
  Fa4Lines lse;    // base 2; up to a whole tile of queries: infinity past the last
  Fa4Lines delta;  // likewise; 0 past the last
  Fa4Lines dq;     // sums in the order of the kernel's fragments, not scaled; added to (fa4_sums.h)
  Fa4Places dk, dv;
  Fa4Turns turns;     // kBackwardFixed: zero before the call
  Fa4Turns kv_turns;  // likewise, by tile of kKeyTile keys; read where `shared`
  float scale;
  int32_t left, right;
  int32_t rounded = 0;  // of 9.0: not 0 where dk and dv are written, as bfloat16, instead of added to
  int32_t shared = 0;   // kBackwardFixed of 9.0: not 0 where all batches add to the same dk and dv, in turns
};

class Fa4Kernel {
 public:
  static constexpr int kKeyTile = 128;

  // Of this build; null where it has none of the kind for the capability (90 is 9.0).
  static const Fa4Kernel* Find(int capability, Fa4Kind kind, int head_dim, Fa4Mask mask);

  int tile_m() const { return tile_m_; }  // queries of a tile
  // How a backward kernel lays down its sums of dQ.
  SumOrder sum_order() const { return capability_ == 90 ? SumOrder::kRegisters : SumOrder::kTensorMemory; }
  // Whether it gives results that are rounded.
  bool rounds() const { return capability_ == 90 && kind_ != Fa4Kind::kMerge; }
  // Whether, in fixed order, heads of one launch may share keys' gradients.
  bool takes_turns() const { return capability_ == 90 && kind_ == Fa4Kind::kBackwardFixed; }
  // Enqueues on the current device, and first loads the kernel there where it has not been yet. Thread-safe.
  absl::Status Forward(cudaStream_t stream, const Fa4ForwardCall& call) const;
  absl::Status Backward(cudaStream_t stream, const Fa4BackwardCall& call) const;

  // The code as the compiler exports it, and what is loaded of it.
  struct Code;

 private:
  friend struct Fa4Table;
  Fa4Kernel(Code* code, int capability, Fa4Kind kind, int head_dim, Fa4Mask mask, int tile_m)
      : code_(code),
        capability_(capability),
        kind_(kind),
        head_dim_(head_dim),
        mask_(mask),
        tile_m_(tile_m) {}
  template <typename... Operands>
  absl::Status Call(cudaStream_t stream, Operands... operands) const;

  Code* const code_;
  const int capability_;
  const Fa4Kind kind_;
  const int head_dim_;
  const Fa4Mask mask_;
  const int tile_m_;
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_FA4_KERNELS_H_
