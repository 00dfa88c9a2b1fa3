#include "worker/device/cuda/device_memory.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/device/cuda/cuda_status.h"

namespace seqpar::cuda {
namespace {

// Left to the driver where no limit is given: kernels' code, local memory, NCCL's buffers.
constexpr int64_t kReserveBytes = int64_t{1} << 30;

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceMemory>> DeviceMemory::Create(int device, int64_t limit_bytes) {
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaSetDevice(device), "select the device");
  size_t free_bytes = 0, total_bytes = 0;
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaMemGetInfo(&free_bytes, &total_bytes), "ask for the memory");
  if (limit_bytes == 0) limit_bytes = std::max<int64_t>(0, static_cast<int64_t>(free_bytes) - kReserveBytes);
  // What was freed stays with the process: memory is allocated once a job, and giving it back stalls the
  // device.
  cudaMemPool_t pool;
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaDeviceGetDefaultMemPool(&pool, device), "find the memory pool");
  uint64_t threshold = std::numeric_limits<uint64_t>::max();
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold),
                              "set up the memory pool");
  cudaStream_t stream;
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream");
  return std::unique_ptr<DeviceMemory>(new DeviceMemory(device, limit_bytes, stream));
}

DeviceMemory::~DeviceMemory() {
  cudaSetDevice(device_);
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

absl::StatusOr<void*> DeviceMemory::Allocate(int64_t bytes, const char* what) {
  SEQPAR_ASSIGN_OR_RETURN(void* data, AllocateOn(stream_, bytes, what));
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(stream_), what);
  return data;
}

void DeviceMemory::Free(void* data, int64_t bytes) { FreeOn(stream_, data, bytes); }

absl::StatusOr<void*> DeviceMemory::AllocateOn(cudaStream_t stream, int64_t bytes, const char* what) {
  MutexLock lock(mutex_);
  if (bytes > limit_bytes_ - use_.used_bytes) {
    return MakeError(absl::StatusCode::kResourceExhausted, reason::kOutOfMemory,
                     absl::StrCat(what, " needs ", bytes, " bytes; ", use_.used_bytes, " of the allowed ",
                                  limit_bytes_, " are in use"));
  }
  cudaSetDevice(device_);
  void* data = nullptr;
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaMallocAsync(&data, bytes, stream), what);
  use_.used_bytes += bytes;
  use_.peak_bytes = std::max(use_.peak_bytes, use_.used_bytes);
  return data;
}

void DeviceMemory::FreeOn(cudaStream_t stream, void* data, int64_t bytes) {
  MutexLock lock(mutex_);
  cudaSetDevice(device_);
  cudaFreeAsync(data, stream);
  use_.used_bytes -= bytes;
  SEQPAR_CHECK(use_.used_bytes >= 0);
}

MemoryUse DeviceMemory::use() const {
  MutexLock lock(mutex_);
  return use_;
}

void DeviceMemory::ResetPeak() {
  MutexLock lock(mutex_);
  use_.peak_bytes = use_.used_bytes;
}

}  // namespace seqpar::cuda
