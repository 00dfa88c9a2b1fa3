// Products through cuBLASLt.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_GEMM_H_
#define SEQPAR_WORKER_DEVICE_CUDA_GEMM_H_

#include <cublasLt.h>

#include <map>
#include <memory>
#include <optional>
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/device/device.h"

namespace seqpar::cuda {

// Of one device; used from the thread that enqueues.
class GemmLibrary {
 public:
  // `workspace`: device memory that only products enqueued here use, one after the other.
  static absl::StatusOr<std::unique_ptr<GemmLibrary>> Create(void* workspace, int64_t workspace_bytes);
  ~GemmLibrary();

  // As Device::Gemm, row major, without rounding twice: false where the library has no algorithm that adds
  // this bias (nothing is enqueued then, and the caller adds it). float32 products are true float32.
  absl::StatusOr<bool> Enqueue(cudaStream_t stream, const Matrix& a, bool transpose_a, const Matrix& b,
                               bool transpose_b, const Matrix& c, bool accumulate, const Matrix* bias);

 private:
  // What decides which algorithm is best: m, n, k, the leading dimensions, alignments, types and flags.
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int>;

  GemmLibrary(cublasLtHandle_t handle, void* workspace, int64_t bytes)
      : handle_(handle), workspace_(workspace), workspace_bytes_(bytes) {}

  const cublasLtHandle_t handle_;
  void* const workspace_;
  const int64_t workspace_bytes_;
  std::map<Key, std::optional<cublasLtMatmulAlgo_t>> chosen_;  // none: it has none
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_GEMM_H_
