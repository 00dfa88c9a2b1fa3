#include "worker/device/cpu/attention_kernel.h"

#include <algorithm>

#include "common/base/status.h"

namespace seqpar::cpu {

absl::Status DeltaByRows(const CpuContext& cpu, int head_dim, const Matrix& dout, const Matrix& out,
                         const Matrix& delta, DotsFunction dots) {
  const int width = static_cast<int>(dout.cols);
  const int64_t padded = Carver::Padded(width);
  SEQPAR_ASSIGN_OR_RETURN(const Scratch scratch, cpu.scratch->Floats(2 * padded * cpu.pool->threads()));
  const RowView dout_rows{dout, 0, 1, 0, width}, out_rows{out, 0, 1, 0, width};
  constexpr int64_t kRowsPerTask = 64;
  cpu.pool->ParallelFor((dout.rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task, int participant) {
    float* dout_buffer = scratch.floats() + 2 * padded * participant;
    float* out_buffer = dout_buffer + padded;
    const int64_t end = std::min(dout.rows, (task + 1) * kRowsPerTask);
    for (int64_t row = task * kRowsPerTask; row < end; ++row) {
      dots(dout_rows.Read(row, dout_buffer), out_rows.Read(row, out_buffer), head_dim, delta.cols,
           reinterpret_cast<float*>(delta.At(row, 0)));
    }
  });
  return absl::OkStatus();
}

}  // namespace seqpar::cpu
