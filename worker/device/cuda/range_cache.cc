#include "worker/device/cuda/range_cache.h"

#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "worker/device/cuda/cuda_status.h"

namespace seqpar::cuda {

absl::StatusOr<DeviceRanges> RangeCache::Get(cudaStream_t stream,
                                             const std::shared_ptr<const KeyRanges>& ranges) {
  const int64_t count = static_cast<int64_t>(ranges->lo.size());
  if (count == 0) return DeviceRanges{};
  auto found = entries_.find(ranges.get());
  if (found == entries_.end()) {
    if (entries_.size() >= drop_at_) DropUnused(stream);
    Entry entry;
    entry.host = ranges;
    SEQPAR_ASSIGN_OR_RETURN(entry.buffer, device_->Allocate(2 * count * 4, "key ranges"));
    auto* lo = static_cast<int32_t*>(entry.buffer.data());
    SEQPAR_CUDA_RETURN_IF_ERROR(
        cudaMemcpyAsync(lo, ranges->lo.data(), count * 4, cudaMemcpyHostToDevice, stream),
        "upload key ranges");
    SEQPAR_CUDA_RETURN_IF_ERROR(
        cudaMemcpyAsync(lo + count, ranges->hi.data(), count * 4, cudaMemcpyHostToDevice, stream),
        "upload key ranges");
    // Other streams may be the next to read them.
    SEQPAR_CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(stream), "upload key ranges");
    found = entries_.emplace(ranges.get(), std::move(entry)).first;
  }
  const auto* lo = static_cast<const int32_t*>(found->second.buffer.data());
  return DeviceRanges{lo, lo + count};
}

void RangeCache::DropUnused(cudaStream_t stream) {
  cudaStreamSynchronize(stream);  // kernels may still read what goes
  for (auto it = entries_.begin(); it != entries_.end();) {
    it = it->second.host.use_count() == 1 ? entries_.erase(it) : std::next(it);
  }
  drop_at_ = std::max<size_t>(64, 2 * entries_.size());
}

}  // namespace seqpar::cuda
