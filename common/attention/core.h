// AttentionCore: sequence parallelism as one interface. A core sees its inputs sharded as its place in the
// composition says and calls an inner core on what it has traded for: Hybrid is Ulysses(Ring(kernel)).
#ifndef SEQPAR_COMMON_ATTENTION_CORE_H_
#define SEQPAR_COMMON_ATTENTION_CORE_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/comm/communicator.h"
#include "common/device/device.h"
#include "common/parallel/head_layout.h"
#include "common/parallel/mask.h"
#include "common/parallel/token_layout.h"

namespace seqpar {

// What one rank runs on: not owned, outlive the cores. `comm` orders all communication, `compute` all
// kernels.
struct RankStreams {
  Device* device = nullptr;
  Stream* compute = nullptr;
  Stream* comm = nullptr;
};

struct AttentionShape {
  int64_t batch = 1;
  int head_dim = 0;
  int group = 1;  // query heads a KV head
  DType dtype = DType::kF32;
};

// Memory of one forward that backward needs. Made by NewState, filled by Forward, read by Backward; one a
// layer, or one for all layers where the layer recomputes. Opaque to callers.
class AttentionState {
 public:
  virtual ~AttentionState() = default;
};

// What a rank really attended with, for verification: the matrices of the innermost core. A rank may have no
// row in the outer core and rows in the inner one, so that an empty matrix does not say what has happened.
struct AttentionView {
  bool backward = false;  // Backward has: its matrices are here
  TokenShare tokens;
  HeadRange heads;
  Matrix q, kv, out;     // storage type
  Matrix lse;            // float32 [tokens * batch, q_heads]
  Matrix dout, dq, dkv;  // storage type
};

// Calls enqueue on the rank's streams and return at once; errors are sticky in the streams. One call at a
// time.
//
// tokens(): what the caller must hold: q [tokens * batch, q_heads * head_dim], kv [tokens * batch, 2 kv_heads
// * head_dim] with K in the first half of the columns and V in the second, both contiguous, of the storage
// type, with q_heads and kv_heads those of heads().
class AttentionCore {
 public:
  virtual ~AttentionCore() = default;
  virtual const TokenShare& tokens() const = 0;
  virtual const HeadRange& heads() const = 0;

  virtual absl::StatusOr<std::unique_ptr<AttentionState>> NewState() = 0;
  // Device memory that a call computes in, in bytes; 64-byte aligned. What is in it does not matter before
  // the call, nor after it but for a view of backward.
  virtual int64_t ScratchBytes(Pass pass) const = 0;
  // Whether Backward reads q and kv once more. Where it does not (the core has what it traded them for), they
  // may be overwritten when Forward has happened, and dq and dkv may take their place whatever the storage
  // type.
  virtual bool ReadsInputsAgain() const = 0;
  // out [as q], storage type. After it happened q and kv may be overwritten unless backward is to follow with
  // this state: then out, and q and kv where they are read again, must stay unchanged until Backward has
  // happened. `scratch`: ScratchBytes(kForward).
  virtual void Forward(const Matrix& q, const Matrix& kv, const Matrix& out, AttentionState* state,
                       void* scratch) = 0;
  // dout, dq [as q], dkv [as kv]: storage type, contiguous. q, kv, out as given to and by Forward. Where
  // storage has 16 bits dq may be q or dout, and dkv may be kv: they are then written from float32 sums, when
  // all of those have been read. Uses the state up. `scratch`: ScratchBytes(kBackward).
  virtual void Backward(const Matrix& q, const Matrix& kv, const Matrix& out, const Matrix& dout,
                        AttentionState* state, const Matrix& dq, const Matrix& dkv, void* scratch) = 0;

  // The innermost core's view of the last Forward (and Backward, where `outer.backward`; its matrices are
  // then apart from q and kv) of `state`, whose matrices `outer` names. Valid until the next call, and of
  // backward as long as its scratch is left alone.
  virtual AttentionView Innermost(const AttentionView& outer, const AttentionState& state) const = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_ATTENTION_CORE_H_
