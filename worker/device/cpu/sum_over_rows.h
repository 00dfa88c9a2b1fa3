// Sums over the rows of a matrix, one for each column, in one pass over memory.
#ifndef SEQPAR_WORKER_DEVICE_CPU_SUM_OVER_ROWS_H_
#define SEQPAR_WORKER_DEVICE_CPU_SUM_OVER_ROWS_H_

#include <algorithm>
#include <cstdint>

#include "common/base/status.h"
#include "worker/device/cpu/packing.h"
#include "worker/device/cpu/scratch.h"

namespace seqpar::cpu {

// Calls add(begin, end, sums) for groups of rows that are all of [0, rows), of different blocks at once: it
// adds their terms to sums[width], which are zero. Then calls finish(column, total) for every column in [0,
// width). Rows are summed in float32 in groups of a fixed size, groups in float64 in an order that depends on
// the number of rows alone. RESOURCE_EXHAUSTED where the limit forbids the partial sums, 12 bytes a column in
// each of 64 blocks at most.
template <typename Add, typename Finish>
absl::Status SumOverRows(const CpuContext& cpu, int64_t rows, int64_t width, const Add& add,
                         const Finish& finish) {
  constexpr int64_t kGroupRows = 64, kBlocksMax = 64;
  if (rows == 0 || width == 0) return absl::OkStatus();
  const int64_t groups = (rows + kGroupRows - 1) / kGroupRows;
  const int64_t block_rows = (groups + kBlocksMax - 1) / kBlocksMax * kGroupRows;
  const int64_t blocks = (rows + block_rows - 1) / block_rows;
  const int64_t block_floats = Carver::Padded(width) + Carver::Padded(2 * width);
  SEQPAR_ASSIGN_OR_RETURN(const Scratch scratch, cpu.scratch->Floats(blocks * block_floats));
  const auto totals_of = [&](int64_t block) {
    return reinterpret_cast<double*>(scratch.floats() + block * block_floats);
  };
  cpu.pool->ParallelFor(blocks, [&](int64_t block, int) {
    double* totals = totals_of(block);
    float* sums = reinterpret_cast<float*>(totals) + Carver::Padded(2 * width);
    std::fill_n(totals, width, 0.0);
    const int64_t end = std::min(rows, (block + 1) * block_rows);
    for (int64_t group = block * block_rows; group < end; group += kGroupRows) {
      std::fill_n(sums, width, 0.0f);
      add(group, std::min(end, group + kGroupRows), sums);
      for (int64_t i = 0; i < width; ++i) totals[i] += sums[i];
    }
  });
  constexpr int64_t kColumnsPerTask = 1024;
  cpu.pool->ParallelFor((width + kColumnsPerTask - 1) / kColumnsPerTask, [&](int64_t task, int) {
    for (int64_t i = task * kColumnsPerTask; i < std::min(width, (task + 1) * kColumnsPerTask); ++i) {
      double total = 0;
      for (int64_t block = 0; block < blocks; ++block) total += totals_of(block)[i];
      finish(i, total);
    }
  });
  return absl::OkStatus();
}

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_SUM_OVER_ROWS_H_
