#include "worker/device/cpu/scratch.h"

#include <algorithm>
#include <limits>

namespace seqpar {

Scratch::~Scratch() {
  if (pool_ != nullptr) pool_->Return({data_, bytes_});
}

ScratchPool::~ScratchPool() {
  for (const Block& block : free_) memory_->Free(block.data, block.bytes);
}

absl::StatusOr<Scratch> ScratchPool::Floats(int64_t count) {
  constexpr int64_t kGranule = 4096;  // spares a new block for every slightly larger call
  const int64_t bytes =
      (std::max<int64_t>(count, 1) * int64_t{sizeof(float)} + kGranule - 1) / kGranule * kGranule;
  MutexLock lock(mutex_);
  const auto largest = std::max_element(free_.begin(), free_.end(),
                                        [](const Block& a, const Block& b) { return a.bytes < b.bytes; });
  if (largest != free_.end()) {
    const Block block = *largest;
    free_.erase(largest);
    if (block.bytes >= bytes) return Lend(block);
    memory_->Free(block.data, block.bytes);  // to be replaced by the larger one
  }
  absl::StatusOr<void*> data = memory_->Allocate(bytes, "kernel scratch");
  if (!data.ok()) return data.status();
  return Lend({*data, bytes});
}

Scratch ScratchPool::Lend(Block block) {
  if (poison_) {
    std::fill_n(static_cast<float*>(block.data), block.bytes / int64_t{sizeof(float)},
                std::numeric_limits<float>::quiet_NaN());
  }
  return Scratch(this, block.data, block.bytes);
}

void ScratchPool::Return(Block block) {
  MutexLock lock(mutex_);
  free_.push_back(block);
}

}  // namespace seqpar
