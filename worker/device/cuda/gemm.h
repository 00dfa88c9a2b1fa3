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
//
// Which algorithm is best the library says, but for large gradients of weights: of those that it names first
// for a shape the fastest is taken, by running each when the shape is met, which the host waits for. They sum
// in one order, so that the choice changes no bit. Where `trials` is false nothing is tried.
class GemmLibrary {
 public:
  // `workspace`: device memory that only products enqueued here use, one after the other.
  static absl::StatusOr<std::unique_ptr<GemmLibrary>> Create(void* workspace, int64_t workspace_bytes,
                                                             bool trials);
  ~GemmLibrary();

  // c = op(a) op(b) [+ addend] [+ bias], row major, rounded once; the addend, of c's type and shape, may be
  // c, null where nothing is added. False where the library has no algorithm that adds this bias (nothing is
  // enqueued then, and the caller adds it). float32 products are true float32.
  absl::StatusOr<bool> Enqueue(cudaStream_t stream, const Matrix& a, bool transpose_a, const Matrix& b,
                               bool transpose_b, const Matrix* addend, const Matrix& c, const Matrix* bias);

 private:
  class Description;
  using Algorithm = cublasLtMatmulAlgo_t;
  // What decides which algorithm is best: m, n, k, the leading dimensions, alignments, types and flags.
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int>;
  struct Choice {
    std::unique_ptr<Description> description;
    std::optional<Algorithm> algorithm;  // none: the library has none
  };
  struct Operands {
    const void *a, *b, *addend;
    void* c;
    float beta;
  };

  GemmLibrary(cublasLtHandle_t handle, void* workspace, int64_t bytes, bool trials);

  cublasStatus_t Run(cudaStream_t stream, const Description& description, const Operands& operands,
                     const Algorithm& algorithm);
  absl::StatusOr<std::optional<Algorithm>> Choose(cudaStream_t stream, const Description& description,
                                                  const Operands& operands, bool by_trial);

  const cublasLtHandle_t handle_;
  void* const workspace_;
  const int64_t workspace_bytes_;
  const bool trials_;
  std::map<Key, Choice> chosen_;
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_GEMM_H_
