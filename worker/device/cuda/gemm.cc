#include "worker/device/cuda/gemm.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace seqpar::cuda {
namespace {

absl::Status ToStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const bool memory = status == CUBLAS_STATUS_ALLOC_FAILED;
  return MakeError(memory ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kInternal,
                   memory ? reason::kOutOfMemory : reason::kInternal,
                   absl::StrCat("cuBLASLt: ", what, ": ", cublasLtGetStatusName(status)));
}

cudaDataType_t TypeOf(DType type) { return type == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF; }

// The largest power of two, up to 256, that divides the address: algorithms are chosen by it.
uint32_t AlignmentOf(const void* data) {
  uint32_t alignment = 256;
  while (reinterpret_cast<uintptr_t>(data) % alignment != 0) alignment /= 2;
  return alignment;
}

// The description of one product and its matrices, destroyed with it. cuBLASLt takes columns first, so that
// our row-major c = a b is its c' = b' a'.
class Description {
 public:
  ~Description() {
    for (cublasLtMatrixLayout_t layout : {a_, b_, c_}) {
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    }
    if (preference_ != nullptr) cublasLtMatmulPreferenceDestroy(preference_);
    if (operation_ != nullptr) cublasLtMatmulDescDestroy(operation_);
  }

  absl::Status Init(const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b, const Matrix& c,
                    const Matrix* bias, int64_t workspace_bytes) {
    SEQPAR_RETURN_IF_ERROR(ToStatus(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                                    "describe a product"));
    const cublasOperation_t first = transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    SEQPAR_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_TRANSA, first));
    SEQPAR_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_TRANSB, second));
    if (bias != nullptr) {
      const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      SEQPAR_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue));
      SEQPAR_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias->data));
      const cudaDataType_t type = TypeOf(bias->dtype);
      SEQPAR_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type));
    }
    SEQPAR_RETURN_IF_ERROR(Layout(b, &b_));
    SEQPAR_RETURN_IF_ERROR(Layout(a, &a_));
    SEQPAR_RETURN_IF_ERROR(Layout(c, &c_));
    SEQPAR_RETURN_IF_ERROR(ToStatus(cublasLtMatmulPreferenceCreate(&preference_), "describe a preference"));
    SEQPAR_RETURN_IF_ERROR(
        Prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(workspace_bytes)));
    SEQPAR_RETURN_IF_ERROR(Prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, AlignmentOf(b.data)));
    SEQPAR_RETURN_IF_ERROR(Prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, AlignmentOf(a.data)));
    SEQPAR_RETURN_IF_ERROR(Prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, AlignmentOf(c.data)));
    return Prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, AlignmentOf(c.data));
  }

  cublasLtMatmulDesc_t operation() const { return operation_; }
  cublasLtMatrixLayout_t a() const { return a_; }
  cublasLtMatrixLayout_t b() const { return b_; }
  cublasLtMatrixLayout_t c() const { return c_; }
  cublasLtMatmulPreference_t preference() const { return preference_; }

 private:
  template <typename T>
  absl::Status Set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    return ToStatus(cublasLtMatmulDescSetAttribute(operation_, attribute, &value, sizeof(value)),
                    "describe a product");
  }
  template <typename T>
  absl::Status Prefer(cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
    return ToStatus(cublasLtMatmulPreferenceSetAttribute(preference_, attribute, &value, sizeof(value)),
                    "describe a preference");
  }
  static absl::Status Layout(const Matrix& m, cublasLtMatrixLayout_t* layout) {
    return ToStatus(cublasLtMatrixLayoutCreate(layout, TypeOf(m.dtype), m.cols, m.rows, m.ld),
                    "describe a matrix");
  }

  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, c_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GemmLibrary>> GemmLibrary::Create(void* workspace, int64_t workspace_bytes) {
  cublasLtHandle_t handle;
  SEQPAR_RETURN_IF_ERROR(ToStatus(cublasLtCreate(&handle), "start"));
  return std::unique_ptr<GemmLibrary>(new GemmLibrary(handle, workspace, workspace_bytes));
}

GemmLibrary::~GemmLibrary() { cublasLtDestroy(handle_); }

absl::StatusOr<bool> GemmLibrary::Enqueue(cudaStream_t stream, const Matrix& a, bool transpose_a,
                                          const Matrix& b, bool transpose_b, const Matrix& c, bool accumulate,
                                          const Matrix* bias) {
  Description d;
  SEQPAR_RETURN_IF_ERROR(d.Init(a, transpose_a, b, transpose_b, c, bias, workspace_bytes_));
  const int64_t depth = transpose_a ? a.rows : a.cols;
  const int flags = (a.dtype == DType::kF32) << 5 | (c.dtype == DType::kF32) << 4 | transpose_a << 3 |
                    transpose_b << 2 | accumulate << 1 | (bias != nullptr);
  const int64_t alignments =
      AlignmentOf(a.data) | int64_t{AlignmentOf(b.data)} << 9 | int64_t{AlignmentOf(c.data)} << 18;
  const Key key{c.rows, c.cols, depth, a.ld, b.ld, c.ld, alignments, flags};
  auto found = chosen_.find(key);
  if (found == chosen_.end()) {
    cublasLtMatmulHeuristicResult_t result{};
    int count = 0;
    const cublasStatus_t chosen = cublasLtMatmulAlgoGetHeuristic(handle_, d.operation(), d.b(), d.a(), d.c(),
                                                                 d.c(), d.preference(), 1, &result, &count);
    const bool none =
        count == 0 || chosen == CUBLAS_STATUS_NOT_SUPPORTED || chosen == CUBLAS_STATUS_INVALID_VALUE;
    if (!none) SEQPAR_RETURN_IF_ERROR(ToStatus(chosen, "choose an algorithm"));
    found = chosen_.emplace(key, none ? std::nullopt : std::optional(result.algo)).first;
  }
  if (!found->second.has_value()) {
    if (bias != nullptr) return false;
    return MakeError(absl::StatusCode::kInternal, reason::kInternal,
                     absl::StrCat("cuBLASLt has no algorithm for ", c.rows, " x ", c.cols, " x ", depth));
  }
  const float one = 1, beta = accumulate ? 1 : 0;
  SEQPAR_RETURN_IF_ERROR(
      ToStatus(cublasLtMatmul(handle_, d.operation(), &one, b.data, d.b(), a.data, d.a(), &beta, c.data,
                              d.c(), c.data, d.c(), &*found->second, workspace_, workspace_bytes_, stream),
               "multiply"));
  return true;
}

}  // namespace seqpar::cuda
