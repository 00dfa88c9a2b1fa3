#include "worker/device/cuda/scratch.h"

#include "common/base/status.h"

namespace seqpar::cuda {

Scratch::~Scratch() {
  MutexLock lock(mutex_);
  for (const auto& [stream, block] : blocks_) {
    if (block.data != nullptr) memory_->Free(block.data, block.bytes);
  }
}

absl::StatusOr<void*> Scratch::Take(cudaStream_t stream, int64_t bytes, const char* what) {
  MutexLock lock(mutex_);
  Block& block = blocks_[stream];
  if (block.bytes >= bytes) return block.data;
  if (block.data != nullptr) memory_->FreeOn(stream, block.data, block.bytes);
  block = Block();
  SEQPAR_ASSIGN_OR_RETURN(block.data, memory_->AllocateOn(stream, bytes, what));
  block.bytes = bytes;
  return block.data;
}

}  // namespace seqpar::cuda
