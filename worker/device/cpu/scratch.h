// Memory that a kernel needs while it runs.
#ifndef SEQPAR_WORKER_DEVICE_CPU_SCRATCH_H_
#define SEQPAR_WORKER_DEVICE_CPU_SCRATCH_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "worker/device/cpu/host_memory.h"
#include "worker/device/cpu/thread_pool.h"

namespace seqpar {

class ScratchPool;

// A block lent to one kernel call, handed back on destruction. Contents undefined, 64-byte aligned.
class Scratch {
 public:
  Scratch(Scratch&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), data_(other.data_), bytes_(other.bytes_) {}
  ~Scratch();
  float* floats() const { return static_cast<float*>(data_); }

 private:
  friend class ScratchPool;
  Scratch(ScratchPool* pool, void* data, int64_t bytes) : pool_(pool), data_(data), bytes_(bytes) {}
  ScratchPool* pool_;
  void* data_;
  int64_t bytes_;
};

// Keeps blocks between calls, so that a kernel allocates only when it needs more than any call before. What
// is kept counts as used memory: a later kernel will want it again. Thread-safe.
class ScratchPool {
 public:
  // `poison`: blocks are lent full of NaN (CpuDeviceConfig::poison).
  explicit ScratchPool(HostMemory* memory, bool poison = false) : memory_(memory), poison_(poison) {}
  ~ScratchPool();
  ScratchPool(const ScratchPool&) = delete;
  ScratchPool& operator=(const ScratchPool&) = delete;

  // At least `count` floats. RESOURCE_EXHAUSTED as HostMemory::Allocate.
  absl::StatusOr<Scratch> Floats(int64_t count);

 private:
  friend class Scratch;
  struct Block {
    void* data;
    int64_t bytes;
  };
  Scratch Lend(Block block);
  void Return(Block block);

  HostMemory* const memory_;
  const bool poison_;
  Mutex mutex_;
  std::vector<Block> free_ ABSL_GUARDED_BY(mutex_);
};

// What every kernel runs on.
struct CpuContext {
  ThreadPool* pool;
  ScratchPool* scratch;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DEVICE_CPU_SCRATCH_H_
