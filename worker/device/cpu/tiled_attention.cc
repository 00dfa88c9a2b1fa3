#include "worker/device/cpu/tiled_attention.h"

#include <algorithm>

#include "common/base/check.h"

namespace seqpar::cpu {
namespace {

class TiledAttention : public AttentionKernel {
 public:
  explicit TiledAttention(const AttentionSimd* simd) : simd_(*simd) {}
  absl::Status Forward(const CpuContext& cpu, const AttentionTile& tile, const Matrix& out, const Matrix& lse,
                       bool first) const override {
    return TiledForward(simd_, cpu, tile, out, lse, first);
  }
  absl::Status Backward(const CpuContext& cpu, const AttentionTile& tile, const Matrix& dout,
                        const Matrix& lse, const Matrix& delta, const Matrix& dq, const Matrix& dk,
                        const Matrix& dv) const override {
    return TiledBackward(simd_, cpu, tile, dout, lse, delta, dq, dk, dv);
  }
  absl::Status Delta(const CpuContext& cpu, int head_dim, const Matrix& dout, const Matrix& out,
                     const Matrix& delta) const override {
    return DeltaByRows(cpu, head_dim, dout, out, delta, simd_.dots);
  }

 private:
  const AttentionSimd& simd_;
};

}  // namespace

std::unique_ptr<AttentionKernel> MakeTiledAttention(const std::string& name) {
  const AttentionSimd* simd = FindAttentionSimd(name);
  SEQPAR_CHECK(simd != nullptr);
  return std::make_unique<TiledAttention>(simd);
}

HeadSpan HeadsOf(const AttentionTile& tile, int kv_head) {
  const int global = tile.heads.kv_begin + kv_head;
  return {std::max(0, global * tile.group - tile.heads.q_begin),
          std::min(tile.heads.q_heads(), (global + 1) * tile.group - tile.heads.q_begin)};
}

int64_t UnitsAtOnce(int64_t units, int64_t tasks_per_unit, int threads) {
  constexpr int64_t kTasksPerThread = 4;  // few enough to finish together although tasks differ in length
  const int64_t wanted = threads == 1 ? 1 : kTasksPerThread * threads;
  return std::clamp<int64_t>((wanted + tasks_per_unit - 1) / std::max<int64_t>(tasks_per_unit, 1), 1, units);
}

}  // namespace seqpar::cpu
