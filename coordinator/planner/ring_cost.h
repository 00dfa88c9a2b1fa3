// What the ring axis of a shape costs, whatever the heads: who computes how much, and which keys travel how
// far.
#ifndef SEQPAR_COORDINATOR_PLANNER_RING_COST_H_
#define SEQPAR_COORDINATOR_PLANNER_RING_COST_H_

#include <cstdint>
#include <vector>

#include "common/job/job.h"
#include "common/parallel/mask.h"

namespace seqpar {

// Keys (K and V of one token and KV head each) that a rank sends, to its own node and to others.
struct KvFlow {
  int64_t near_keys = 0, far_keys = 0;
  int64_t near_messages = 0, far_messages = 0;
  int64_t keys() const { return near_keys + far_keys; }
};

struct RingLoad {
  int rank = 0;  // along the ring
  KvFlow forward, backward_kv, backward_grad;
  // Buffers in keys, as KvSchedule has them.
  int64_t buffer_keys = 0, grad_keys = 0, grad_recv_keys = 0;
};

struct RingCost {
  std::vector<int64_t> tokens;  // by ring rank
  std::vector<double> pairs;    // attended, by ring rank
  double busiest_pairs = 0;
  double mean_pairs = 0;
  double own_pairs = 0;   // of the busiest rank, on its own share: what hides a gather
  double late_pairs = 0;  // of those, on the keys that backward keeps for the last slot (LateKeysOf)
  // Of the calls of the attention kernel on the busiest rank, where they were asked for: their queries and
  // keys, and the ends of queries' key ranges that lie inside a call's keys. One head, one batch row.
  double query_rows = 0, key_rows = 0, edges = 0;
  std::vector<RingLoad> loads;                  // of every ring rank, or of the sampled ones, ascending
  const RingLoad& LoadOf(int ring_rank) const;  // the nearest there is
  // Ring ranks of which one holds most, whatever a token and a key take: no other has as many of everything.
  std::vector<int> fullest;
};

// `nodes`: the node of each ring rank, any numbering. Up to 32 ranks every rank's schedule is counted
// exactly; beyond, the ends and the middle stand for all (they hold the extremes of every layout), and a
// ring's sends are taken to be what the rank receives. Striped shares under a window narrower than the ring
// or very many documents are counted but for the ends of documents.
// Calls of the kernel are counted with `count_calls` only: edges from a sample of the queries.
RingCost MakeRingCost(const Mask& mask, LayoutKind layout, CoreKind core, int inner,
                      const std::vector<int>& nodes, bool count_calls = false);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_RING_COST_H_
