// How K/V travel between the ranks of a ring group, as data. Ring, double ring and gather are schedules; one
// loop executes them all (common/attention/scheduled_attention.h).
//
// Nomenclature: the *home* of a key is the ring rank whose share holds it. A *piece* is a part of one home's
// share that travels whole. A *slot* is one turn of every rank of the group: the exchange of a slot is posted
// when the slot begins, then the slot's work computes while it runs. All ranks have the same number of slots,
// and the messages that one rank sends in slot s are received by their peers in slot s. What arrives in slot
// s may be used from slot s + 1 on. The exchange of slot s may overwrite what was last used in slot s - 1: it
// starts after that slot's work.
//
// Ring (R ranks): at slot s rank r works on the share of rank (r - s) mod R. A segment that r needs goes from
// its holder straight to the next rank in that order that attends a key of it, when the holder begins to
// compute on it; home, which keeps its keys anyway, sends in the slot before the receiver needs them, so that
// two shares of buffer suffice for full and causal masks in every layout. dK/dV of a piece follow: each
// needing rank adds its own part to what arrived from the previous one and sends the sum on in the slot after
// it computed; the last sends it home, where it is added. One hop for each needing rank.
//
// Double ring (inner w): rank (o, i) works at slot a w + b on the share of ((o - a) mod R/w, (i - b) mod w);
// a K/V piece enters each node once, sent by the first holder in the previous node in the slot in which that
// one begins to compute on it (by home at the beginning of the turn before the receiver's); dK/dV follow the
// order of use. Three shares of buffer: the outer one is held while the inner ring turns.
//
// Gather: the own share is worked on in slot 0, which sends every reader exactly the keys that it attends;
// slot 1 computes on those; slot 2 brings dK/dV straight home.
//
// Gradients: what arrives in slot s is added after the receiver's own work of the slot in which it works on
// that piece (s or later), and at home after the work of slot s, in the order of messages; a sum is sent in
// the slot after its work. So nothing but the way home of the last sums is left for the last slot: backward
// keeps a part of the work on the rank's own keys (late_keys) for it, which slot 0 can spare.
#ifndef SEQPAR_COMMON_PARALLEL_KV_SCHEDULE_H_
#define SEQPAR_COMMON_PARALLEL_KV_SCHEDULE_H_

#include <cstdint>
#include <vector>

#include "common/parallel/mask.h"
#include "common/parallel/token_layout.h"

namespace seqpar {

// A travelling part of a home's share: `ranges` are index ranges into the home's share, ascending and
// disjoint.
struct KvPiece {
  int home = 0;
  std::vector<IndexRange> ranges;
  TokenShare keys;   // their positions, in order
  int64_t size = 0;  // keys
  // Where it lives on this rank, in keys from the start of the receive buffer; -1 where it is at home here
  // (then it is read from the rank's own K/V at `ranges`).
  int64_t buffer_offset = -1;
  // Where its float32 dK/dV sum lives on this rank, in keys from the start of the gradient buffer; -1 at home
  // (the sum is the rank's own dK/dV).
  int64_t grad_offset = -1;
  // Where dK/dV that arrive for it are received, in keys from the start of the gradient receive buffer; -1
  // where none arrive. At home several may arrive: each message says its own offset.
  int64_t grad_recv_offset = -1;
};

// A message carries whole pieces, in the order given, K and V (or dK and dV) of all of them together: one
// message for one peer in one slot and direction. Both ends list the pieces in the same order.
struct KvMessage {
  int peer = 0;             // ring rank
  std::vector<int> pieces;  // indices into KvSchedule::pieces
  // dK/dV received only: for each piece its offset in the gradient receive buffer.
  std::vector<int64_t> offsets;
  int64_t keys = 0;  // sum of their sizes
};

struct KvSlot {
  std::vector<KvMessage> send_kv, recv_kv;      // forward, and backward unless K/V were kept
  std::vector<KvMessage> send_grad, recv_grad;  // backward only
  std::vector<int> work;                        // pieces attended in this slot, non-empty overlap only
};

// One rank's part. Deterministic: the order of messages and work is fixed by rank and position.
struct KvSchedule {
  int rank = 0;
  int ranks = 1;
  std::vector<KvPiece> pieces;
  // slots[s].recv_kv arrives in buffers that nothing used in slot s still needs; the last slots may have work
  // or messages only in backward.
  std::vector<KvSlot> slots;
  // Backward works on the rank's own keys from this index of its share on in the last slot, where gradients
  // travel then; on those before it in slot 0, as forward does on all. The size of the share: none are late.
  int64_t late_keys = 0;
  int64_t buffer_keys = 0;     // size of the receive buffer for K/V
  int64_t grad_keys = 0;       // size of the float32 dK/dV buffer for pieces not at home
  int64_t grad_recv_keys = 0;  // size of the float32 receive buffer
  // True: every K/V piece keeps its own place in the buffer until the end, so that backward need not fetch it
  // again.
  bool kv_kept = false;
};

// Where the late keys of a share begin: at its last segment, which in a causal zigzag is a quarter of the
// share's pairs with itself; in its middle where it has one segment.
int64_t LateKeysOf(const TokenShare& share);

// `shares`: one a ring rank. `inner` divides the number of ranks.
KvSchedule RingSchedule(const std::vector<TokenShare>& shares, const Mask& mask, int rank, int inner);
// Every rank's, for callers that want them all: what each rank needs is worked out once.
std::vector<KvSchedule> RingSchedules(const std::vector<TokenShare>& shares, const Mask& mask, int inner);
KvSchedule GatherSchedule(const std::vector<TokenShare>& shares, const Mask& mask, int rank);

// What a rank sends over one forward and one backward, counted from its schedule.
struct KvVolume {
  int64_t forward_keys = 0, forward_messages = 0;
  int64_t backward_kv_keys = 0, backward_kv_messages = 0;  // zero where kv_kept
  int64_t backward_grad_keys = 0, backward_grad_messages = 0;
};
KvVolume VolumeOf(const KvSchedule& schedule);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_PARALLEL_KV_SCHEDULE_H_
