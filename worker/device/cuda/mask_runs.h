// Key ranges as runs of queries that a kernel's own mask describes: pure values, no CUDA.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_MASK_RUNS_H_
#define SEQPAR_WORKER_DEVICE_CUDA_MASK_RUNS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "common/parallel/mask.h"

namespace seqpar::cuda {

enum class RunMask { kEmpty, kFull, kCausal, kWindow };

// Queries [first, first + count) against keys [first_key, first_key + keys): kFull sees all of them; kCausal
// is aligned at the end, the last query sees all and each before it one less; kWindow: query i of the run
// sees the keys j of the range with i + keys - count - left <= j <= i + keys - count + right. Every query of
// a run sees a key, but for kEmpty, where none does (and keys is 0).
struct QueryRun {
  RunMask mask = RunMask::kEmpty;
  int64_t first = 0, count = 0;
  int64_t first_key = 0, keys = 0;
  int32_t left = 0, right = 0;  // kWindow; kUnlimited: to the end of the keys
  friend bool operator==(const QueryRun&, const QueryRun&) = default;
};
// Queries [first, end()).
struct QuerySpan {
  int64_t first = 0, count = 0;
  int64_t end() const { return first + count; }
  friend bool operator==(const QuerySpan&, const QuerySpan&) = default;
};
inline constexpr int32_t kUnlimited = 1 << 30;

// Runs in ascending order that together hold every query once. Nothing where more than `runs_max` would be
// needed: a mask of no shape, or of very short documents.
std::optional<std::vector<QueryRun>> CutIntoRuns(const KeyRanges& ranges, int64_t runs_max);

// The same queries in runs of `queries_max`, the last of what is left; each sees the same keys. Not of
// kEmpty.
std::vector<QueryRun> SplitRun(const QueryRun& run, int64_t queries_max);

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_MASK_RUNS_H_
