// The runs of tiles (mask_runs.h). A schedule's tiles share their ranges for the whole job: each is cut once.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_RUN_CACHE_H_
#define SEQPAR_WORKER_DEVICE_CUDA_RUN_CACHE_H_

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "common/parallel/mask.h"
#include "worker/device/cuda/mask_runs.h"

namespace seqpar::cuda {

// Used from the thread that enqueues.
class RunCache {
 public:
  // Nothing where the ranges come to more runs than are worth a launch each. Valid until the ranges' last
  // other owner lets go of them and Get is called again.
  const std::optional<std::vector<QueryRun>>& Get(const std::shared_ptr<const KeyRanges>& ranges);
  // The same of ranges that are looked at once.
  static std::optional<std::vector<QueryRun>> Cut(const KeyRanges& ranges);

 private:
  struct Entry {
    std::shared_ptr<const KeyRanges> ranges;  // kept: its address is the key
    std::optional<std::vector<QueryRun>> runs;
  };
  std::map<const KeyRanges*, Entry> entries_;
  size_t drop_at_ = 64;
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_RUN_CACHE_H_
