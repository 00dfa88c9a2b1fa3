// When each kernel, copy and fill of a GPU began and ended, by CUPTI's activity records; and the gaps between
// them.
#ifndef SEQPAR_TESTS_BENCH_KERNEL_TIMELINE_H_
#define SEQPAR_TESTS_BENCH_KERNEL_TIMELINE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace seqpar {

// One kernel, copy or fill. Times are of the GPU's clock, which only differences mean something of.
struct DeviceWork {
  int64_t begin_ns = 0, end_ns = 0;
  uint32_t stream = 0;
  std::string name;
};

// One at a time in a process, and before the first use of CUDA there. Used from one thread.
class KernelTimeline {
 public:
  // UNAVAILABLE, with why, where this build or machine has no CUPTI of the version compiled against.
  static absl::StatusOr<std::unique_ptr<KernelTimeline>> Create();
  virtual ~KernelTimeline() = default;
  virtual absl::Status Start() = 0;
  // What happened since Start, by its beginning. REQUIRES: the device is idle. DATA_LOSS where CUPTI lost
  // records.
  virtual absl::StatusOr<std::vector<DeviceWork>> Stop() = 0;
};

// Of the stream with the most work, between its first and its last.
struct StreamGaps {
  int64_t span_ns = 0, idle_ns = 0;
  int64_t operations = 0;
  int64_t longest_ns = 0;
  std::string longest_after, longest_before;  // the operations around it
  int64_t longer = 0;                         // gaps longer than asked
};
StreamGaps GapsOf(const std::vector<DeviceWork>& work, int64_t longer_than_ns);

// A kernel's name without its arguments, without blanks, and no longer than a table bears.
std::string ShortName(const std::string& name);

// Nanoseconds by name, the most first.
std::vector<std::pair<std::string, int64_t>> TimesByName(const std::vector<DeviceWork>& work);

}  // namespace seqpar

#endif  // SEQPAR_TESTS_BENCH_KERNEL_TIMELINE_H_
