#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "common/base/status.h"
#include "worker/device/cpu/packing.h"
#include "worker/device/cpu/query_panels.h"
#include "worker/device/cpu/tiled_attention.h"

namespace seqpar::cpu {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0.69314718055994531;

// One head's tile of queries, or one KV head's K and V.
struct HeadJob {
  int64_t batch_index;
  int head;
  int64_t unit;  // which of the packed KV heads it uses
};

class ForwardPass {
 public:
  ForwardPass(const AttentionSimd& simd, const CpuContext& cpu, const AttentionTile& tile, const Matrix& out,
              const Matrix& lse, bool first)
      : simd_(simd),
        cpu_(cpu),
        tile_(tile),
        out_(out),
        lse_(lse),
        first_(first),
        panels_(*tile.ranges, tile.queries, simd),
        chunk_keys_(simd.forward_chunk),
        padded_dim_(RoundUp(tile.head_dim, simd.group)) {
    const KeyExtent keys = panels_.Union(0, panels_.count());
    first_chunk_ = keys.begin / chunk_keys_;
    chunks_ = (keys.end + chunk_keys_ - 1) / chunk_keys_ - first_chunk_;
    tiles_ = (panels_.count() + PanelsPerTile(simd) - 1) / PanelsPerTile(simd);
  }

  absl::Status Run() {
    const int kv_heads = tile_.heads.kv_heads();
    const int64_t units = tile_.batch * kv_heads;
    if (units == 0 || tiles_ == 0) return absl::OkStatus();
    const int64_t at_once = UnitsAtOnce(units, tiles_ * tile_.group, cpu_.pool->threads());
    const int64_t floats = at_once * UnitFloats() + cpu_.pool->threads() * TaskFloats();
    SEQPAR_ASSIGN_OR_RETURN(const Scratch scratch, cpu_.scratch->Floats(floats));
    packed_ = scratch.floats();
    task_scratch_ = packed_ + at_once * UnitFloats();
    guarded_.resize(static_cast<size_t>(at_once * chunks_));
    for (int64_t begin = 0; begin < units; begin += at_once) {
      RunUnits(begin, std::min(units, begin + at_once));
    }
    return absl::OkStatus();
  }

 private:
  int64_t KeyFloats() const { return Carver::Padded(chunks_ * chunk_keys_ * tile_.head_dim); }
  int64_t ValueFloats() const { return Carver::Padded(chunks_ * chunk_keys_ * padded_dim_); }
  int64_t UnitFloats() const { return KeyFloats() + ValueFloats(); }
  int64_t TaskFloats() const {
    const int64_t panel = simd_.panel;
    const int64_t each_panel = Carver::Padded(panel * tile_.head_dim) + Carver::Padded(panel * padded_dim_) +
                               2 * Carver::Padded(panel);
    return PanelsPerTile(simd_) * each_panel + Carver::Padded(chunk_keys_ * panel) +
           2 * Carver::Padded(panel) + Carver::Padded(kGroup * tile_.head_dim) +
           Carver::Padded(panel * padded_dim_);
  }

  void RunUnits(int64_t begin, int64_t end) {
    const int kv_heads = tile_.heads.kv_heads();
    cpu_.pool->ParallelFor((end - begin) * chunks_, [&](int64_t task, int participant) {
      const int64_t unit = begin + task / chunks_;
      PackChunk({unit / kv_heads, static_cast<int>(unit % kv_heads), task / chunks_}, task % chunks_,
                participant);
    });
    std::vector<HeadJob> jobs;
    for (int64_t unit = begin; unit < end; ++unit) {
      const HeadSpan heads = HeadsOf(tile_, static_cast<int>(unit % kv_heads));
      for (int head = heads.first; head < heads.last; ++head)
        jobs.push_back({unit / kv_heads, head, unit - begin});
    }
    // Last tiles first: under a causal mask they take longest.
    const int64_t heads = static_cast<int64_t>(jobs.size());
    cpu_.pool->ParallelFor(heads * tiles_, [&](int64_t task, int participant) {
      ComputeTile(jobs[task % heads], tiles_ - 1 - task / heads, participant);
    });
  }

  void PackChunk(const HeadJob& job, int64_t chunk, int participant) {
    float* keys = packed_ + job.unit * UnitFloats() + chunk * chunk_keys_ * tile_.head_dim;
    float* values = packed_ + job.unit * UnitFloats() + KeyFloats() + chunk * chunk_keys_ * padded_dim_;
    float* buffer = task_scratch_ + participant * TaskFloats();
    const int64_t first_key = (first_chunk_ + chunk) * chunk_keys_;
    PackAcross(ViewOf(tile_, tile_.k, job.batch_index, job.head), tile_.keys, first_key, chunk_keys_,
               simd_.group, 1, buffer, keys);
    PackAlong(ViewOf(tile_, tile_.v, job.batch_index, job.head), tile_.keys, first_key, chunk_keys_,
              simd_.group, buffer, values);
    guarded_[job.unit * chunks_ + chunk] = AllFinite(values, int64_t{chunk_keys_} * padded_dim_) ? 0 : 1;
  }

  void ComputeTile(const HeadJob& job, int64_t tile_index, int participant) {
    const int panel = simd_.panel, dim = tile_.head_dim;
    const int64_t first_panel = tile_index * PanelsPerTile(simd_);
    const int64_t last_panel = std::min(panels_.count(), first_panel + PanelsPerTile(simd_));
    const int count = static_cast<int>(last_panel - first_panel);
    Carver carver(task_scratch_ + participant * TaskFloats());
    float* scores = carver.Take(chunk_keys_ * panel);
    auto* lo = reinterpret_cast<int32_t*>(carver.Take(panel));
    auto* hi = reinterpret_cast<int32_t*>(carver.Take(panel));
    float* buffer = carver.Take(kGroup * dim);
    float* rows = carver.Take(int64_t{panel} * padded_dim_);
    float* queries = carver.Take(int64_t{count} * panel * dim);
    float* out = carver.Take(int64_t{count} * panel * padded_dim_);
    float* base = carver.Take(int64_t{count} * panel);
    float* sum = carver.Take(int64_t{count} * panel);
    PackAcross(ViewOf(tile_, tile_.q, job.batch_index, job.head), tile_.queries, first_panel * panel,
               count * panel, panel, static_cast<float>(tile_.scale * kLog2E), buffer, queries);
    std::fill_n(out, int64_t{count} * panel * padded_dim_, 0.0f);
    std::fill_n(base, count * panel, kMinusInfinity);
    std::fill_n(sum, count * panel, 0.0f);

    const KeyExtent seen = panels_.Union(first_panel, last_panel);
    const int64_t end_chunk = seen.empty() ? 0 : (seen.end + chunk_keys_ - 1) / chunk_keys_;
    for (int64_t chunk = seen.begin / chunk_keys_; chunk < end_chunk; ++chunk) {
      const float* keys = packed_ + job.unit * UnitFloats() + (chunk - first_chunk_) * chunk_keys_ * dim;
      const float* values = packed_ + job.unit * UnitFloats() + KeyFloats() +
                            (chunk - first_chunk_) * chunk_keys_ * padded_dim_;
      for (int p = 0; p < count; ++p) {
        const PanelKeys panel_keys = panels_.Keys(first_panel + p, chunk * chunk_keys_, chunk_keys_, lo, hi);
        if (panel_keys.begin == panel_keys.end) continue;
        simd_.forward({panel_keys, dim, chunk_keys_, queries + p * panel * dim, keys, values, scores,
                       base + p * panel, sum + p * panel, out + p * panel * padded_dim_,
                       guarded_[job.unit * chunks_ + chunk - first_chunk_] != 0});
      }
    }
    for (int p = 0; p < count; ++p) {
      simd_.unpack(out + p * panel * padded_dim_, padded_dim_, rows);
      StorePanel(job, (first_panel + p) * panel, rows, base + p * panel, sum + p * panel);
    }
  }

  // Merges a finished panel into what is held. Both are averages weighted by exp(lse); weights are taken
  // relative to the larger lse, so that no positive difference is exponentiated, and an empty side weighs
  // nothing.
  void StorePanel(const HeadJob& job, int64_t first_query, const float* rows, const float* base,
                  const float* sum) const {
    const int panel = simd_.panel, dim = tile_.head_dim;
    const RowView out = ViewOf(tile_, out_, job.batch_index, job.head);
    const int64_t queries = std::min<int64_t>(panel, tile_.queries - first_query);
    for (int64_t i = 0; i < queries; ++i) {
      float* row = out.Floats(first_query + i);
      const float* added_row = rows + i * padded_dim_;
      float* held_lse =
          reinterpret_cast<float*>(lse_.At((first_query + i) * tile_.batch + job.batch_index, job.head));
      const bool empty = sum[i] == 0;
      const double lse =
          empty ? -std::numeric_limits<double>::infinity() : base[i] * kLn2 + std::log(double{sum[i]});
      if (first_ || *held_lse == kMinusInfinity) {
        const float inverse = empty ? 0 : 1 / sum[i];
        for (int d = 0; d < dim; ++d) row[d] = added_row[d] * inverse;
        *held_lse = static_cast<float>(lse);
      } else if (!empty) {
        const double top = std::max<double>(*held_lse, lse);
        const double held = std::exp(*held_lse - top), added = std::exp(lse - top);
        const float keep = static_cast<float>(held / (held + added));
        const float add = static_cast<float>(added / (held + added) / sum[i]);
        for (int d = 0; d < dim; ++d) row[d] = row[d] * keep + added_row[d] * add;
        *held_lse = static_cast<float>(top + std::log(held + added));
      }
    }
  }

  const AttentionSimd& simd_;
  const CpuContext& cpu_;
  const AttentionTile& tile_;
  const Matrix &out_, &lse_;
  const bool first_;
  const QueryPanels panels_;
  const int chunk_keys_;
  const int padded_dim_;  // head_dim rounded up to a group
  int64_t first_chunk_ = 0, chunks_ = 0, tiles_ = 0;
  float* packed_ = nullptr;        // by unit: keys, then values, each by chunk
  std::vector<uint8_t> guarded_;   // by unit and chunk: its values are not all finite
  float* task_scratch_ = nullptr;  // by participant
};

}  // namespace

absl::Status TiledForward(const AttentionSimd& simd, const CpuContext& cpu, const AttentionTile& tile,
                          const Matrix& out, const Matrix& lse, bool first) {
  return ForwardPass(simd, cpu, tile, out, lse, first).Run();
}

}  // namespace seqpar::cpu
