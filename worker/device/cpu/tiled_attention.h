// Flash attention on packed panels: the fast kernel. See attention_simd.h for the layout of its operands.
//
// Forward: K and V of a KV head are packed once, then each task takes a tile of queries of one head through
// all the chunks of keys that it sees. Backward: of one block of queries after the other, as many as a cache
// holds, each task takes a chunk of keys through all tiles that see it; dK and dV of the chunk are the task's
// own, and dQ of a tile is added to by its chunks in ascending order, a task waiting for its turn. Either way
// every sum has an order that threads cannot change.
#ifndef SEQPAR_WORKER_DEVICE_CPU_TILED_ATTENTION_H_
#define SEQPAR_WORKER_DEVICE_CPU_TILED_ATTENTION_H_

#include <memory>
#include <string>

#include "worker/device/cpu/attention_kernel.h"
#include "worker/device/cpu/attention_simd.h"

namespace seqpar::cpu {

// On the instruction set `name`. REQUIRES: SimdNames() has it.
std::unique_ptr<AttentionKernel> MakeTiledAttention(const std::string& name);

absl::Status TiledForward(const AttentionSimd& simd, const CpuContext& cpu, const AttentionTile& tile,
                          const Matrix& out, const Matrix& lse, bool first);
absl::Status TiledBackward(const AttentionSimd& simd, const CpuContext& cpu, const AttentionTile& tile,
                           const Matrix& dout, const Matrix& lse, const Matrix& delta, const Matrix& dq,
                           const Matrix& dk, const Matrix& dv);

// Local query heads [first, last) that use local KV head `kv_head`.
struct HeadSpan {
  int first, last;
};
HeadSpan HeadsOf(const AttentionTile& tile, int kv_head);

// How many of `units` independent units to work on at once, so that there are tasks enough for all threads
// without scratch for more units than that takes.
int64_t UnitsAtOnce(int64_t units, int64_t tasks_per_unit, int threads);

// Queries that go through the keys together, in panels; and the same in panels.
inline constexpr int kTileQueries = 192;
inline int PanelsPerTile(const AttentionSimd& simd) { return kTileQueries / simd.panel; }

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_TILED_ATTENTION_H_
