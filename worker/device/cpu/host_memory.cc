#include "worker/device/cpu/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kCacheLine = 64;

int64_t RoundUp(int64_t value, int64_t to) { return (value + to - 1) / to * to; }
bool IsBig(int64_t bytes) { return bytes >= kHugePage; }

void* SystemAllocate(int64_t bytes) {
  if (!IsBig(bytes)) return std::aligned_alloc(kCacheLine, RoundUp(bytes, kCacheLine));
  const int64_t rounded = RoundUp(bytes, kHugePage);
  void* data = std::aligned_alloc(kHugePage, rounded);
  // Only advice: where huge pages are off the block is just slower to touch.
  if (data != nullptr) madvise(data, rounded, MADV_HUGEPAGE);
  return data;
}

}  // namespace

HostMemory::~HostMemory() {
  MutexLock lock(mutex_);
  ReleaseCacheAbove(0);
}

absl::StatusOr<void*> HostMemory::Allocate(int64_t bytes, const char* what) {
  MutexLock lock(mutex_);
  if (limit_ > 0 && bytes > limit_ - use_.used_bytes) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, reason::kOutOfMemory,
        absl::StrCat(what, ": ", bytes, " bytes asked, ", use_.used_bytes, " used, ", limit_, " allowed"));
  }
  void* data = nullptr;
  const int64_t rounded = RoundUp(bytes, kHugePage);
  const auto kept = IsBig(bytes) ? cache_.find(rounded) : cache_.end();
  if (kept != cache_.end()) {
    data = kept->second.back();
    kept->second.pop_back();
    if (kept->second.empty()) cache_.erase(kept);
    cached_bytes_ -= rounded;
  } else {
    ReleaseCacheAbove(std::max<int64_t>(0, largest_use_ - use_.used_bytes - bytes));
    data = SystemAllocate(bytes);
  }
  if (data == nullptr) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, reason::kOutOfMemory,
        absl::StrCat(what, ": the system refused ", bytes, " bytes; ", use_.used_bytes, " are used"));
  }
  use_.used_bytes += bytes;
  use_.peak_bytes = std::max(use_.peak_bytes, use_.used_bytes);
  largest_use_ = std::max(largest_use_, use_.used_bytes);
  return data;
}

void HostMemory::Free(void* data, int64_t bytes) {
  MutexLock lock(mutex_);
  use_.used_bytes -= bytes;
  if (!IsBig(bytes)) {
    std::free(data);
    return;
  }
  const int64_t rounded = RoundUp(bytes, kHugePage);
  cache_[rounded].push_back(data);
  cached_bytes_ += rounded;
  ReleaseCacheAbove(largest_use_ - use_.used_bytes);
}

MemoryUse HostMemory::use() const {
  MutexLock lock(mutex_);
  return use_;
}

void HostMemory::ResetPeak() {
  MutexLock lock(mutex_);
  use_.peak_bytes = use_.used_bytes;
}

void HostMemory::ReleaseCacheAbove(int64_t cached_bytes) {
  while (cached_bytes_ > cached_bytes && !cache_.empty()) {
    const auto largest = std::prev(cache_.end());
    std::free(largest->second.back());
    cached_bytes_ -= largest->first;
    largest->second.pop_back();
    if (largest->second.empty()) cache_.erase(largest);
  }
}

}  // namespace seqpar
