#include <algorithm>
#include <atomic>
#include <vector>

#include "common/base/status.h"
#include "worker/device/cpu/packing.h"
#include "worker/device/cpu/query_panels.h"
#include "worker/device/cpu/tiled_attention.h"

namespace seqpar::cpu {
namespace {

constexpr double kLog2E = 1.4426950408889634;

// What is packed of the queries that go through the keys together: a thread's part of a third level cache.
// Each chunk of keys reads all of it again, and where it did not fit, two ranks that share the cache were
// 7 % slower than two threads on one head.
constexpr int64_t kBlockBytes = int64_t{4} << 20;

// Lets the chunks that see a tile of queries pass one after the other.
class Turns {
 public:
  explicit Turns(int64_t tiles) : next_(tiles) {}
  void Start(int64_t tile, int64_t first_chunk) { next_[tile].store(static_cast<int32_t>(first_chunk)); }
  void Await(int64_t tile, int64_t chunk) {
    for (int32_t now = next_[tile].load(); now != chunk; now = next_[tile].load()) next_[tile].wait(now);
  }
  void Pass(int64_t tile, int64_t chunk) {
    next_[tile].store(static_cast<int32_t>(chunk + 1));
    next_[tile].notify_all();
  }

 private:
  std::vector<std::atomic<int32_t>> next_;
};

struct Gradients {
  const Matrix &dout, &lse, &delta, &dq, &dk, &dv;
};

// Where the packed operands of one query head and its KV head lie.
struct Packed {
  float *queries, *douts;              // across (panel), by panel
  float *queries_along, *douts_along;  // along (dim_block), by tile
  float *lse, *delta;                  // by query
  float* dq;                           // [RoundUp(head_dim, group)][panel], by panel
  float *keys, *values;                // across (group), by chunk
  float* keys_along;                   // along (group), by chunk
};

class BackwardPass {
 public:
  BackwardPass(const AttentionSimd& simd, const CpuContext& cpu, const AttentionTile& tile,
               const Gradients& gradients)
      : simd_(simd),
        cpu_(cpu),
        tile_(tile),
        g_(gradients),
        key_gradient_(simd.ForHeadDim(tile.head_dim)),
        panels_(*tile.ranges, tile.queries, simd),
        panels_per_tile_(PanelsPerTile(simd)),
        tiles_((panels_.count() + panels_per_tile_ - 1) / panels_per_tile_),
        chunk_keys_(simd.backward_chunk),
        group_dim_(RoundUp(tile.head_dim, simd.group)),
        block_dim_(RoundUp(tile.head_dim, key_gradient_.dim_block)) {
    const KeyExtent keys = panels_.Union(0, panels_.count());
    first_chunk_ = keys.begin / chunk_keys_;
    chunks_ = (keys.end + chunk_keys_ - 1) / chunk_keys_ - first_chunk_;
    for (int64_t t = 0; t < tiles_; ++t) seen_.push_back(panels_.Union(FirstPanel(t), LastPanel(t)));
  }

  absl::Status Run() {
    const int kv_heads = tile_.heads.kv_heads();
    const int64_t units = tile_.batch * kv_heads;
    if (units == 0 || chunks_ == 0) return absl::OkStatus();
    const int64_t at_once = UnitsAtOnce(units, chunks_, cpu_.pool->threads());
    unit_floats_ = PackedFloats();
    const int64_t floats = at_once * unit_floats_ + cpu_.pool->threads() * TaskFloats();
    SEQPAR_ASSIGN_OR_RETURN(const Scratch scratch, cpu_.scratch->Floats(floats));
    packed_ = scratch.floats();
    task_scratch_ = packed_ + at_once * unit_floats_;
    guarded_chunks_.resize(static_cast<size_t>(at_once * chunks_));
    guarded_tiles_.resize(static_cast<size_t>(at_once * tiles_));
    for (int64_t begin = 0; begin < units; begin += at_once) {
      const int64_t end = std::min(units, begin + at_once);
      ForChunks(begin, end, [&](const Unit& unit, int64_t chunk, int task) { PackKeys(unit, chunk, task); });
      // The query heads of a group take turns: they add to the same dK and dV.
      for (int member = 0; member < tile_.group; ++member) RunMember(begin, end, member);
    }
    return absl::OkStatus();
  }

 private:
  // A KV head in one batch row and one of the query heads that use it.
  struct Unit {
    int64_t batch_index;
    int kv_head, q_head;
    int64_t slot;
    Packed at;
  };

  int64_t FirstPanel(int64_t t) const { return t * panels_per_tile_; }
  int64_t LastPanel(int64_t t) const { return std::min(panels_.count(), (t + 1) * panels_per_tile_); }
  int64_t EndChunk(const KeyExtent& keys) const { return (keys.end + chunk_keys_ - 1) / chunk_keys_; }

  Packed Carve(float* begin) const {
    const int64_t queries = tiles_ * kTileQueries, keys = chunks_ * chunk_keys_;
    Carver carver(begin);
    Packed p;
    p.queries = carver.Take(queries * tile_.head_dim);
    p.douts = carver.Take(queries * tile_.head_dim);
    p.queries_along = carver.Take(queries * block_dim_);
    p.douts_along = carver.Take(queries * block_dim_);
    p.lse = carver.Take(queries);
    p.delta = carver.Take(queries);
    p.dq = carver.Take(queries * group_dim_);
    p.keys = carver.Take(keys * tile_.head_dim);
    p.values = carver.Take(keys * tile_.head_dim);
    p.keys_along = carver.Take(keys * group_dim_);
    return p;
  }
  int64_t PackedFloats() const {
    const int64_t queries = tiles_ * kTileQueries, keys = chunks_ * chunk_keys_;
    return 2 * Carver::Padded(queries * tile_.head_dim) + 2 * Carver::Padded(queries * block_dim_) +
           2 * Carver::Padded(queries) + Carver::Padded(queries * group_dim_) +
           2 * Carver::Padded(keys * tile_.head_dim) + Carver::Padded(keys * group_dim_);
  }
  int64_t TaskFloats() const {
    // Packing and unpacking take less, and have it while the rest is idle.
    return 2 * kTileQueries * chunk_keys_ + 2 * chunk_keys_ * int64_t{block_dim_} +
           2 * Carver::Padded(simd_.panel);
  }

  // Calls fn(unit, i, participant) for i in [0, count) of each unit in [begin, end) that has a `member`-th
  // query head.
  template <typename Fn>
  void ForUnits(int64_t begin, int64_t end, int member, int64_t count, const Fn& fn) {
    cpu_.pool->ParallelFor((end - begin) * count, [&](int64_t task, int participant) {
      const int64_t slot = task / count;
      Unit unit{(begin + slot) / tile_.heads.kv_heads(),
                static_cast<int>((begin + slot) % tile_.heads.kv_heads()), 0, slot,
                Carve(packed_ + slot * unit_floats_)};
      const HeadSpan heads = HeadsOf(tile_, unit.kv_head);
      unit.q_head = heads.first + member;
      if (unit.q_head < heads.last) fn(unit, task % count, participant);
    });
  }
  template <typename Fn>
  void ForChunks(int64_t begin, int64_t end, const Fn& fn) {
    ForUnits(begin, end, 0, chunks_, fn);
  }

  void RunMember(int64_t begin, int64_t end, int member) {
    Turns turns((end - begin) * tiles_);
    for (int64_t slot = 0; slot < end - begin; ++slot) {
      for (int64_t t = 0; t < tiles_; ++t) turns.Start(slot * tiles_ + t, seen_[t].begin / chunk_keys_);
    }
    const int64_t block = BlockTiles();
    for (int64_t first = 0; first < tiles_; first += block) {
      const int64_t last = std::min(tiles_, first + block);
      ForUnits(begin, end, member, last - first,
               [&](const Unit& u, int64_t i, int task) { PackQueries(u, first + i, task); });
      // Chunks in ascending order, as the turns have them: whoever waits, waits for a task that has begun.
      ForUnits(begin, end, member, chunks_, [&](const Unit& u, int64_t chunk, int task) {
        ComputeChunk(u, first_chunk_ + chunk, first, last, &turns, task);
      });
      ForUnits(begin, end, member, last - first,
               [&](const Unit& u, int64_t i, int task) { AddQueryGradients(u, first + i, task); });
    }
  }

  // Tiles of queries that go through the keys together.
  int64_t BlockTiles() const {
    const int64_t floats = int64_t{kTileQueries} * (2 * tile_.head_dim + 2 * block_dim_ + group_dim_);
    return std::max<int64_t>(1, kBlockBytes / (4 * floats));
  }

  float* PackBuffer(int participant) const { return task_scratch_ + participant * TaskFloats(); }

  void PackKeys(const Unit& u, int64_t chunk, int participant) {
    float* buffer = PackBuffer(participant);
    const RowView k = ViewOf(tile_, tile_.k, u.batch_index, u.kv_head);
    const RowView v = ViewOf(tile_, tile_.v, u.batch_index, u.kv_head);
    const int64_t first = (first_chunk_ + chunk) * chunk_keys_, at = chunk * chunk_keys_;
    PackAcross(k, tile_.keys, first, chunk_keys_, simd_.group, 1, buffer, u.at.keys + at * tile_.head_dim);
    PackAcross(v, tile_.keys, first, chunk_keys_, simd_.group, 1, buffer, u.at.values + at * tile_.head_dim);
    PackAlong(k, tile_.keys, first, chunk_keys_, simd_.group, buffer, u.at.keys_along + at * group_dim_);
    const bool finite = AllFinite(u.at.keys_along + at * group_dim_, int64_t{chunk_keys_} * group_dim_);
    guarded_chunks_[u.slot * chunks_ + chunk] = finite ? 0 : 1;
  }

  void PackQueries(const Unit& u, int64_t t, int participant) {
    float* buffer = PackBuffer(participant);
    const RowView q = ViewOf(tile_, tile_.q, u.batch_index, u.q_head);
    const RowView dout = ViewOf(tile_, g_.dout, u.batch_index, u.q_head);
    const int64_t first = t * kTileQueries;
    PackAcross(q, tile_.queries, first, kTileQueries, simd_.panel, static_cast<float>(tile_.scale * kLog2E),
               buffer, u.at.queries + first * tile_.head_dim);
    PackAcross(dout, tile_.queries, first, kTileQueries, simd_.panel, 1, buffer,
               u.at.douts + first * tile_.head_dim);
    PackAlong(q, tile_.queries, first, kTileQueries, key_gradient_.dim_block, buffer,
              u.at.queries_along + first * block_dim_);
    PackAlong(dout, tile_.queries, first, kTileQueries, key_gradient_.dim_block, buffer,
              u.at.douts_along + first * block_dim_);
    const int64_t floats = int64_t{kTileQueries} * block_dim_;
    const bool finite = AllFinite(u.at.queries_along + first * block_dim_, floats) &&
                        AllFinite(u.at.douts_along + first * block_dim_, floats);
    guarded_tiles_[u.slot * tiles_ + t] = finite ? 0 : 1;
    std::fill_n(u.at.dq + first * group_dim_, int64_t{kTileQueries} * group_dim_, 0.0f);
    for (int64_t i = first; i < first + kTileQueries; ++i) {
      const bool sees = i < tile_.queries && tile_.ranges->lo[i] < tile_.ranges->hi[i];
      const int64_t row = i * tile_.batch + u.batch_index;
      u.at.lse[i] =
          sees ? static_cast<float>(*reinterpret_cast<const float*>(g_.lse.At(row, u.q_head)) * kLog2E) : 0;
      u.at.delta[i] = sees ? *reinterpret_cast<const float*>(g_.delta.At(row, u.q_head)) : 0;
    }
  }

  // The chunk's part in tiles [first_tile, last_tile).
  void ComputeChunk(const Unit& u, int64_t chunk, int64_t first_tile, int64_t last_tile, Turns* turns,
                    int participant) {
    const auto is_seen = [&](int64_t t) {
      return !seen_[t].empty() && chunk >= seen_[t].begin / chunk_keys_ && chunk < EndChunk(seen_[t]);
    };
    while (first_tile < last_tile && !is_seen(first_tile)) ++first_tile;
    if (first_tile == last_tile) return;
    Carver carver(task_scratch_ + participant * TaskFloats());
    float* p = carver.Take(kTileQueries * chunk_keys_);
    float* ds = carver.Take(kTileQueries * chunk_keys_);
    float* dk = carver.Take(chunk_keys_ * int64_t{block_dim_});
    float* dv = carver.Take(chunk_keys_ * int64_t{block_dim_});
    auto* lo = reinterpret_cast<int32_t*>(carver.Take(simd_.panel));
    auto* hi = reinterpret_cast<int32_t*>(carver.Take(simd_.panel));
    std::fill_n(dk, chunk_keys_ * int64_t{block_dim_}, 0.0f);
    std::fill_n(dv, chunk_keys_ * int64_t{block_dim_}, 0.0f);
    for (int64_t t = first_tile; t < last_tile; ++t) {
      if (!is_seen(t)) continue;
      PanelKeys keys[kTileQueries / kGroup];
      const int count = static_cast<int>(LastPanel(t) - FirstPanel(t));
      for (int i = 0; i < count; ++i) {
        keys[i] = panels_.Keys(FirstPanel(t) + i, chunk * chunk_keys_, chunk_keys_, lo, hi);
        if (keys[i].begin < keys[i].end)
          simd_.backward_scores(StepOf(u, chunk, FirstPanel(t) + i, keys[i], i, p, ds));
      }
      const int64_t turn = u.slot * tiles_ + t;
      const auto add = guarded_tiles_[turn] != 0 ? key_gradient_.add_guarded : key_gradient_.add;
      AddKeyGradients(keys, count, p, u.at.douts_along + t * kTileQueries * block_dim_, dv, add);
      AddKeyGradients(keys, count, ds, u.at.queries_along + t * kTileQueries * block_dim_, dk, add);
      turns->Await(turn, chunk);
      for (int i = 0; i < count; ++i) {
        if (keys[i].begin == keys[i].end) continue;
        simd_.backward_query_gradient(StepOf(u, chunk, FirstPanel(t) + i, keys[i], i, p, ds));
      }
      turns->Pass(turn, chunk);
    }
    StoreKeyGradients(u, chunk, dk, tile_.scale, g_.dk);
    StoreKeyGradients(u, chunk, dv, 1, g_.dv);
  }

  BackwardStep StepOf(const Unit& u, int64_t chunk, int64_t panel, const PanelKeys& keys, int in_tile,
                      float* p, float* ds) const {
    const int64_t query = panel * simd_.panel, key = (chunk - first_chunk_) * chunk_keys_;
    const int64_t scores = int64_t{in_tile} * chunk_keys_ * simd_.panel;
    return {keys,
            tile_.head_dim,
            chunk_keys_,
            u.at.queries + query * tile_.head_dim,
            u.at.douts + query * tile_.head_dim,
            u.at.keys + key * tile_.head_dim,
            u.at.values + key * tile_.head_dim,
            u.at.keys_along + key * group_dim_,
            u.at.lse + query,
            u.at.delta + query,
            p + scores,
            ds + scores,
            u.at.dq + query * group_dim_,
            guarded_chunks_[u.slot * chunks_ + chunk - first_chunk_] != 0};
  }

  // sums[key] += weights^T rows, over the panels that see the key. Ranges never descend, so these are
  // neighbours but for panels that see no key at all, which have no weights: keys are rounded to granules,
  // and the last granule of one panel may be the first of another behind an empty one.
  void AddKeyGradients(const PanelKeys* keys, int count, const float* weights, const float* rows, float* sums,
                       void (*add)(const KeyGradientStep&)) const {
    const int panel = simd_.panel;
    for (int dim = 0; dim < block_dim_; dim += key_gradient_.dim_block) {
      const float* block = rows + int64_t{dim} * kTileQueries;
      for (int key = 0; key < chunk_keys_; key += key_gradient_.group) {
        const auto sees = [&](int i) { return key >= keys[i].begin && key < keys[i].end; };
        for (int first = 0, last = 0; first < count; first = last + 1) {
          for (last = first; last < count && sees(last);) ++last;
          if (first == last) continue;
          add({last - first, weights + (int64_t{first} * chunk_keys_ + key) * panel,
               int64_t{chunk_keys_} * panel, block + int64_t{first} * panel * key_gradient_.dim_block,
               sums + int64_t{key} * block_dim_ + dim, block_dim_});
        }
      }
    }
  }

  void StoreKeyGradients(const Unit& u, int64_t chunk, const float* sums, float scale,
                         const Matrix& to) const {
    const RowView view = ViewOf(tile_, to, u.batch_index, u.kv_head);
    const int64_t keys = std::min<int64_t>(chunk_keys_, tile_.keys - chunk * chunk_keys_);
    for (int64_t key = 0; key < keys; ++key) {
      float* row = view.Floats(chunk * chunk_keys_ + key);
      for (int d = 0; d < tile_.head_dim; ++d) row[d] += scale * sums[key * block_dim_ + d];
    }
  }

  void AddQueryGradients(const Unit& u, int64_t t, int participant) const {
    const RowView view = ViewOf(tile_, g_.dq, u.batch_index, u.q_head);
    float* rows = PackBuffer(participant);
    for (int64_t panel = FirstPanel(t); panel < LastPanel(t); ++panel) {
      const int64_t first = panel * simd_.panel, end = std::min(tile_.queries, first + simd_.panel);
      simd_.unpack(u.at.dq + first * group_dim_, group_dim_, rows);
      for (int64_t query = first; query < end; ++query) {
        const float* sums = rows + (query - first) * group_dim_;
        float* row = view.Floats(query);
        for (int d = 0; d < tile_.head_dim; ++d) row[d] += tile_.scale * sums[d];
      }
    }
  }

  const AttentionSimd& simd_;
  const CpuContext& cpu_;
  const AttentionTile& tile_;
  const Gradients& g_;
  const KeyGradient& key_gradient_;
  const QueryPanels panels_;
  const int panels_per_tile_;
  const int64_t tiles_;
  const int chunk_keys_;
  const int group_dim_, block_dim_;  // head_dim rounded up to a group, and to dim_block
  int64_t first_chunk_ = 0, chunks_ = 0;
  std::vector<KeyExtent> seen_;          // by tile
  std::vector<uint8_t> guarded_chunks_;  // by unit and chunk: its keys are not all finite
  std::vector<uint8_t> guarded_tiles_;   // by unit and tile: its queries and their gradients are not
  int64_t unit_floats_ = 0;
  float* packed_ = nullptr;        // by unit
  float* task_scratch_ = nullptr;  // by participant
};

}  // namespace

absl::Status TiledBackward(const AttentionSimd& simd, const CpuContext& cpu, const AttentionTile& tile,
                           const Matrix& dout, const Matrix& lse, const Matrix& delta, const Matrix& dq,
                           const Matrix& dk, const Matrix& dv) {
  return BackwardPass(simd, cpu, tile, Gradients{dout, lse, delta, dq, dk, dv}).Run();
}

}  // namespace seqpar::cpu
