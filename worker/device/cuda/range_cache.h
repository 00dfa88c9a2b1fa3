// Key ranges on the device. A schedule's tiles share their ranges for the whole job: each is uploaded once.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_RANGE_CACHE_H_
#define SEQPAR_WORKER_DEVICE_CUDA_RANGE_CACHE_H_

#include <cuda_runtime_api.h>

#include <map>
#include <memory>

#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "common/parallel/mask.h"

namespace seqpar::cuda {

struct DeviceRanges {
  const int32_t *lo = nullptr, *hi = nullptr;
};

// Of one device; used from the thread that enqueues.
class RangeCache {
 public:
  explicit RangeCache(Device* device) : device_(device) {}
  // Uploaded in the order of `stream` where it is new; valid until the ranges' last other owner lets go of
  // them and Get is called again.
  absl::StatusOr<DeviceRanges> Get(cudaStream_t stream, const std::shared_ptr<const KeyRanges>& ranges);

 private:
  struct Entry {
    std::shared_ptr<const KeyRanges> host;  // kept: the upload reads it, and its address is the key
    Buffer buffer;
  };
  void DropUnused(cudaStream_t stream);

  Device* const device_;
  std::map<const KeyRanges*, Entry> entries_;
  size_t drop_at_ = 64;
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_RANGE_CACHE_H_
