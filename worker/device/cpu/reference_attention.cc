#include "worker/device/cpu/reference_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/status.h"

namespace seqpar::cpu {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

float Dot(const float* a, const float* b, int n) {
  float sum = 0;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Merges the partial (values, lse_new) into what is held: both are averages weighted by exp(lse). The weights
// are taken relative to the larger lse, so that no positive difference is exponentiated; an empty side weighs
// nothing.
void Merge(const float* values, float lse_new, int n, float* out, float* lse) {
  if (lse_new == kMinusInfinity) return;
  const float top = std::max(*lse, lse_new);
  const float held = std::exp(*lse - top), added = std::exp(lse_new - top);
  const float sum = held + added;
  for (int i = 0; i < n; ++i) out[i] = (out[i] * held + values[i] * added) / sum;
  *lse = top + std::log(sum);
}

class ReferenceAttention : public AttentionKernel {
 public:
  absl::Status Forward(const CpuContext& cpu, const AttentionTile& tile, const Matrix& out, const Matrix& lse,
                       bool first) const override {
    const int64_t floats_each = 3 * int64_t{tile.head_dim} + tile.keys;
    SEQPAR_ASSIGN_OR_RETURN(const Scratch scratch, cpu.scratch->Floats(floats_each * cpu.pool->threads()));
    const int heads = tile.heads.q_heads();
    cpu.pool->ParallelFor(tile.queries * tile.batch * heads, [&](int64_t task, int participant) {
      ForwardRow(tile, task / heads / tile.batch, task / heads % tile.batch, static_cast<int>(task % heads),
                 out, lse, first, scratch.floats() + participant * floats_each);
    });
    return absl::OkStatus();
  }

  absl::Status Backward(const CpuContext& cpu, const AttentionTile& tile, const Matrix& dout,
                        const Matrix& lse, const Matrix& delta, const Matrix& dq, const Matrix& dk,
                        const Matrix& dv) const override {
    const int64_t floats_each = 4 * int64_t{tile.head_dim};
    SEQPAR_ASSIGN_OR_RETURN(const Scratch scratch, cpu.scratch->Floats(floats_each * cpu.pool->threads()));
    const int kv_heads = tile.heads.kv_heads();
    // A KV head's gradients are summed by one task, over its query heads in ascending order.
    cpu.pool->ParallelFor(tile.batch * kv_heads, [&](int64_t task, int participant) {
      for (int head = 0; head < tile.heads.q_heads(); ++head) {
        if (LocalKvHead(tile, head) != task % kv_heads) continue;
        BackwardHead(tile, task / kv_heads, head, dout, lse, delta, dq, dk, dv,
                     scratch.floats() + participant * floats_each);
      }
    });
    return absl::OkStatus();
  }

  absl::Status Delta(const CpuContext& cpu, int head_dim, const Matrix& dout, const Matrix& out,
                     const Matrix& delta) const override {
    return DeltaByRows(cpu, head_dim, dout, out, delta,
                       [](const float* a, const float* b, int n, int64_t count, float* sums) {
                         for (int64_t i = 0; i < count; ++i) sums[i] = Dot(a + i * n, b + i * n, n);
                       });
  }

 private:
  static void ForwardRow(const AttentionTile& tile, int64_t token, int64_t batch_index, int head,
                         const Matrix& out, const Matrix& lse, bool first, float* scratch) {
    const int dim = tile.head_dim;
    float *query_buffer = scratch, *row_buffer = query_buffer + dim, *sum = row_buffer + dim,
          *scores = sum + dim;
    const int kv_head = LocalKvHead(tile, head);
    const RowView k = ViewOf(tile, tile.k, batch_index, kv_head),
                  v = ViewOf(tile, tile.v, batch_index, kv_head);
    float* held_out = ViewOf(tile, out, batch_index, head).Floats(token);
    float* held_lse = reinterpret_cast<float*>(lse.At(token * tile.batch + batch_index, head));
    if (first) {
      std::fill(held_out, held_out + dim, 0.0f);
      *held_lse = kMinusInfinity;
    }
    const float* query = ViewOf(tile, tile.q, batch_index, head).Read(token, query_buffer);
    const int64_t lo = tile.ranges->lo[token], hi = tile.ranges->hi[token];
    if (lo >= hi) return;
    float top = kMinusInfinity;
    for (int64_t key = lo; key < hi; ++key) {
      scores[key] = tile.scale * Dot(query, k.Read(key, row_buffer), dim);
      top = std::max(top, scores[key]);
    }
    float total = 0;
    std::fill(sum, sum + dim, 0.0f);
    for (int64_t key = lo; key < hi; ++key) {
      const float weight = std::exp(scores[key] - top);
      total += weight;
      const float* row = v.Read(key, row_buffer);
      for (int i = 0; i < dim; ++i) sum[i] += weight * row[i];
    }
    for (int i = 0; i < dim; ++i) sum[i] /= total;
    Merge(sum, top + std::log(total), dim, held_out, held_lse);
  }

  static void BackwardHead(const AttentionTile& tile, int64_t batch_index, int head,
                           const Matrix& dout_matrix, const Matrix& lse, const Matrix& delta,
                           const Matrix& dq_matrix, const Matrix& dk_matrix, const Matrix& dv_matrix,
                           float* scratch) {
    const int dim = tile.head_dim;
    float *query_buffer = scratch, *dout_buffer = scratch + dim;
    float *key_buffer = scratch + 2 * dim, *value_buffer = scratch + 3 * dim;
    const int kv_head = LocalKvHead(tile, head);
    const RowView k = ViewOf(tile, tile.k, batch_index, kv_head),
                  v = ViewOf(tile, tile.v, batch_index, kv_head);
    const RowView dks = ViewOf(tile, dk_matrix, batch_index, kv_head);
    const RowView dvs = ViewOf(tile, dv_matrix, batch_index, kv_head);
    for (int64_t token = 0; token < tile.queries; ++token) {
      const int64_t row = token * tile.batch + batch_index;
      const float row_lse = *reinterpret_cast<const float*>(lse.At(row, head));
      const float row_delta = *reinterpret_cast<const float*>(delta.At(row, head));
      const float* query = ViewOf(tile, tile.q, batch_index, head).Read(token, query_buffer);
      const float* dout = ViewOf(tile, dout_matrix, batch_index, head).Read(token, dout_buffer);
      float* dq = ViewOf(tile, dq_matrix, batch_index, head).Floats(token);
      for (int64_t key = tile.ranges->lo[token]; key < tile.ranges->hi[token]; ++key) {
        const float *key_row = k.Read(key, key_buffer), *value_row = v.Read(key, value_buffer);
        const float p = std::exp(tile.scale * Dot(query, key_row, dim) - row_lse);
        const float ds = tile.scale * p * (Dot(dout, value_row, dim) - row_delta);
        float *dk = dks.Floats(key), *dv = dvs.Floats(key);
        for (int i = 0; i < dim; ++i) {
          dq[i] += ds * key_row[i];
          dk[i] += ds * query[i];
          dv[i] += p * dout[i];
        }
      }
    }
  }
};

}  // namespace

std::unique_ptr<AttentionKernel> MakeReferenceAttention() { return std::make_unique<ReferenceAttention>(); }

}  // namespace seqpar::cpu
