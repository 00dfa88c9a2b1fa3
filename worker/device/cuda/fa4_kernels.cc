#include "worker/device/cuda/fa4_kernels.h"

#include <set>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "worker/device/cuda/cuda_status.h"

// fa4_table.inc, which the build makes, includes the table of each architecture that it has.
#ifdef SEQPAR_FA4
#define SEQPAR_FA4_KERNEL(name, entry, capability, kind, head_dim, mask, tile_m) \
  extern "C" void _mlir_##name##_cuda_init(void**);                              \
  extern "C" void _mlir_##name##_cuda_load_to_device(void**);                    \
  extern "C" void entry(void**, int32_t);
#include "fa4_table.inc"
#undef SEQPAR_FA4_KERNEL
#endif

namespace seqpar::cuda {

// The exported functions take an array of pointers to their arguments.
struct Fa4Kernel::Code {
  Code(void (*i)(void**), void (*l)(void**), void (*e)(void**, int32_t))
      : init(i), load_to_device(l), entry(e) {}
  void (*const init)(void**);
  void (*const load_to_device)(void**);
  void (*const entry)(void**, int32_t);

  // To the current device.
  absl::Status Load() {
    int32_t device = 0;
    SEQPAR_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device), "ask for the device");
    MutexLock lock(mutex_);
    if (devices_.count(device) > 0) return absl::OkStatus();
    cudaLibrary_t* to = &library_;
    cudaError_t status = cudaSuccess;
    if (library_ == nullptr) {
      void* arguments[] = {&to, &status};
      init(arguments);
      SEQPAR_CUDA_RETURN_IF_ERROR(status, "load an attention kernel");
    }
    void* arguments[] = {&to, &device, &status};
    load_to_device(arguments);
    SEQPAR_CUDA_RETURN_IF_ERROR(status, "load an attention kernel to the device");
    devices_.insert(device);
    return absl::OkStatus();
  }

 private:
  Mutex mutex_;
  cudaLibrary_t library_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::set<int> devices_ ABSL_GUARDED_BY(mutex_);  // that have it
};

struct Fa4Table {
  static const std::vector<const Fa4Kernel*>& Kernels() {
    static const auto* const kernels = new std::vector<const Fa4Kernel*>{
#ifdef SEQPAR_FA4
#define SEQPAR_FA4_KERNEL(name, entry, capability, kind, head_dim, mask, tile_m)                          \
  new Fa4Kernel(new Fa4Kernel::Code(_mlir_##name##_cuda_init, _mlir_##name##_cuda_load_to_device, entry), \
                capability, Fa4Kind::kind, head_dim, Fa4Mask::mask, tile_m),
#include "fa4_table.inc"
#undef SEQPAR_FA4_KERNEL
#endif
    };
    return *kernels;
  }
};

const Fa4Kernel* Fa4Kernel::Find(int capability, Fa4Kind kind, int head_dim, Fa4Mask mask) {
  for (const Fa4Kernel* kernel : Fa4Table::Kernels()) {
    if (kernel->capability_ == capability && kernel->kind_ == kind && kernel->head_dim_ == head_dim &&
        kernel->mask_ == mask) {
      return kernel;
    }
  }
  return nullptr;
}

template <typename... Operands>
absl::Status Fa4Kernel::Call(cudaStream_t stream, Operands... operands) const {
  SEQPAR_RETURN_IF_ERROR(code_->Load());
  int32_t status = 0;
  void* arguments[] = {&operands..., &stream, &status};
  code_->entry(arguments, sizeof(arguments) / sizeof(arguments[0]));
  return ToStatus(static_cast<cudaError_t>(status), "attention on tensor cores");
}

absl::Status Fa4Kernel::Forward(cudaStream_t stream, const Fa4ForwardCall& c) const {
  return Call(stream, c.q, c.k, c.v, c.out, c.lse, c.scale, c.left, c.right, c.rounded);
}

absl::Status Fa4Kernel::Backward(cudaStream_t stream, const Fa4BackwardCall& c) const {
  return Call(stream, c.q, c.k, c.v, c.dout, c.lse, c.delta, c.dq, c.dk, c.dv, c.turns, c.kv_turns, c.scale,
              c.left, c.right, c.rounded, c.shared);
}

}  // namespace seqpar::cuda
