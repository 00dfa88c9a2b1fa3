#include "worker/device/cuda/gemm.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/device/cuda/cuda_status.h"

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

// The largest power of two, up to 64 (what Device::Allocate gives), that divides the address: algorithms are
// chosen by it.
uint32_t AlignmentOf(const void* data) {
  uint32_t alignment = 64;
  while (reinterpret_cast<uintptr_t>(data) % alignment != 0) alignment /= 2;
  return alignment;
}

// Candidates of a trial, and how often each runs.
constexpr int kCandidatesMax = 8, kTrialRounds = 2;
// Products of fewer flops are over before a better algorithm pays for its trial.
constexpr double kTrialFlops = 5e10;

// Of one sum an element, in the order of k: not cut into parts that are added up in the end.
bool SumsInOneOrder(const cublasLtMatmulAlgo_t& algorithm) {
  int32_t parts = 0;
  size_t size = 0;
  return cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts,
                                              sizeof(parts), &size) == CUBLAS_STATUS_SUCCESS &&
         parts <= 1;
}

}  // namespace

// The description of one product and its matrices, destroyed with it. cuBLASLt takes columns first, so that
// our row-major c = a b is its c' = b' a'.
class GemmLibrary::Description {
 public:
  ~Description() {
    for (cublasLtMatrixLayout_t layout : {a_, b_, addend_, c_}) {
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    }
    if (preference_ != nullptr) cublasLtMatmulPreferenceDestroy(preference_);
    if (operation_ != nullptr) cublasLtMatmulDescDestroy(operation_);
  }

  absl::Status Init(const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b,
                    const Matrix& addend, const Matrix& c, const Matrix* bias, int64_t workspace_bytes) {
    SEQPAR_RETURN_IF_ERROR(ToStatus(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                                    "describe a product"));
    const cublasOperation_t first = transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    SEQPAR_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_TRANSA, first));
    SEQPAR_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_TRANSB, second));
    if (bias != nullptr) {
      const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      SEQPAR_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue));
      SEQPAR_RETURN_IF_ERROR(SetBias(bias->data));
      const cudaDataType_t type = TypeOf(bias->dtype);
      SEQPAR_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type));
    }
    SEQPAR_RETURN_IF_ERROR(Layout(b, &b_));
    SEQPAR_RETURN_IF_ERROR(Layout(a, &a_));
    SEQPAR_RETURN_IF_ERROR(Layout(addend, &addend_));
    SEQPAR_RETURN_IF_ERROR(Layout(c, &c_));
    SEQPAR_RETURN_IF_ERROR(ToStatus(cublasLtMatmulPreferenceCreate(&preference_), "describe a preference"));
    SEQPAR_RETURN_IF_ERROR(
        Prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(workspace_bytes)));
    SEQPAR_RETURN_IF_ERROR(Prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, AlignmentOf(b.data)));
    SEQPAR_RETURN_IF_ERROR(Prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, AlignmentOf(a.data)));
    SEQPAR_RETURN_IF_ERROR(Prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, AlignmentOf(addend.data)));
    return Prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, AlignmentOf(c.data));
  }

  absl::Status SetBias(const void* data) { return Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, data); }

  cublasLtMatmulDesc_t operation() const { return operation_; }
  cublasLtMatrixLayout_t a() const { return a_; }
  cublasLtMatrixLayout_t b() const { return b_; }
  cublasLtMatrixLayout_t addend() const { return addend_; }
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
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, addend_ = nullptr, c_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
};

absl::StatusOr<std::unique_ptr<GemmLibrary>> GemmLibrary::Create(void* workspace, int64_t workspace_bytes,
                                                                 bool trials) {
  cublasLtHandle_t handle;
  SEQPAR_RETURN_IF_ERROR(ToStatus(cublasLtCreate(&handle), "start"));
  return std::unique_ptr<GemmLibrary>(new GemmLibrary(handle, workspace, workspace_bytes, trials));
}

GemmLibrary::GemmLibrary(cublasLtHandle_t handle, void* workspace, int64_t bytes, bool trials)
    : handle_(handle), workspace_(workspace), workspace_bytes_(bytes), trials_(trials) {}

GemmLibrary::~GemmLibrary() {
  chosen_.clear();
  cublasLtDestroy(handle_);
}

cublasStatus_t GemmLibrary::Run(cudaStream_t stream, const Description& d, const Operands& o,
                                const Algorithm& algorithm) {
  const float one = 1;
  return cublasLtMatmul(handle_, d.operation(), &one, o.b, d.b(), o.a, d.a(), &o.beta, o.addend, d.addend(),
                        o.c, d.c(), &algorithm, workspace_, workspace_bytes_, stream);
}

absl::StatusOr<std::optional<cublasLtMatmulAlgo_t>> GemmLibrary::Choose(cudaStream_t stream,
                                                                        const Description& d,
                                                                        const Operands& operands,
                                                                        bool by_trial) {
  cublasLtMatmulHeuristicResult_t results[kCandidatesMax];
  int count = 0;
  const cublasStatus_t asked =
      cublasLtMatmulAlgoGetHeuristic(handle_, d.operation(), d.b(), d.a(), d.addend(), d.c(), d.preference(),
                                     by_trial ? kCandidatesMax : 1, results, &count);
  if (count == 0 || asked == CUBLAS_STATUS_NOT_SUPPORTED || asked == CUBLAS_STATUS_INVALID_VALUE) {
    return std::optional<Algorithm>();
  }
  SEQPAR_RETURN_IF_ERROR(ToStatus(asked, "choose an algorithm"));
  if (count == 1 || !SumsInOneOrder(results[0].algo)) return std::optional(results[0].algo);
  cudaEvent_t begin, end;
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaEventCreate(&begin), "try an algorithm");
  const absl::Cleanup destroy_begin = [&] { cudaEventDestroy(begin); };
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaEventCreate(&end), "try an algorithm");
  const absl::Cleanup destroy_end = [&] { cudaEventDestroy(end); };
  std::vector<float> least(count, std::numeric_limits<float>::infinity());
  for (int round = 0; round < kTrialRounds; ++round) {
    for (int i = 0; i < count; ++i) {
      if (results[i].state != CUBLAS_STATUS_SUCCESS || !SumsInOneOrder(results[i].algo)) continue;
      float milliseconds = 0;
      SEQPAR_CUDA_RETURN_IF_ERROR(cudaEventRecord(begin, stream), "try an algorithm");
      if (Run(stream, d, operands, results[i].algo) != CUBLAS_STATUS_SUCCESS) continue;
      SEQPAR_CUDA_RETURN_IF_ERROR(cudaEventRecord(end, stream), "try an algorithm");
      SEQPAR_CUDA_RETURN_IF_ERROR(cudaEventSynchronize(end), "try an algorithm");
      SEQPAR_CUDA_RETURN_IF_ERROR(cudaEventElapsedTime(&milliseconds, begin, end), "try an algorithm");
      least[i] = std::min(least[i], milliseconds);
    }
  }
  return std::optional(results[std::min_element(least.begin(), least.end()) - least.begin()].algo);
}

absl::StatusOr<bool> GemmLibrary::Enqueue(cudaStream_t stream, const Matrix& a, bool transpose_a,
                                          const Matrix& b, bool transpose_b, const Matrix* addend,
                                          const Matrix& c, const Matrix* bias) {
  constexpr int kAdds = 1 << 1;  // of the flags
  const Matrix& added = addend == nullptr ? c : *addend;
  const bool in_place = added.data == c.data;
  const int64_t depth = transpose_a ? a.rows : a.cols;
  const int flags = in_place << 6 | (a.dtype == DType::kF32) << 5 | (c.dtype == DType::kF32) << 4 |
                    transpose_a << 3 | transpose_b << 2 | (addend != nullptr ? kAdds : 0) | (bias != nullptr);
  const int64_t alignments = AlignmentOf(a.data) | int64_t{AlignmentOf(b.data)} << 9 |
                             int64_t{AlignmentOf(added.data)} << 18 | int64_t{AlignmentOf(c.data)} << 27;
  const auto key = [&](int of_flags) {
    return Key{c.rows, c.cols, depth, a.ld, b.ld, added.ld, c.ld, alignments, of_flags};
  };
  const Operands operands{a.data, b.data, added.data, c.data, addend == nullptr ? 0.0f : 1.0f};
  const auto [found, is_new] = chosen_.try_emplace(key(flags));
  Choice& choice = found->second;
  if (is_new) {
    choice.description = std::make_unique<Description>();
    absl::Status made =
        choice.description->Init(a, transpose_a, b, transpose_b, added, c, bias, workspace_bytes_);
    // What adds to itself cannot be tried: it takes what was found for the product that does not.
    const auto twin = in_place ? chosen_.find(key(flags & ~kAdds)) : chosen_.end();
    if (made.ok() && twin != chosen_.end() && twin != found && twin->second.algorithm.has_value()) {
      choice.algorithm = twin->second.algorithm;
    } else if (made.ok()) {
      const double flops =
          2.0 * static_cast<double>(c.rows) * static_cast<double>(c.cols) * static_cast<double>(depth);
      const bool by_trial = trials_ && transpose_a && a.dtype == DType::kBF16 && c.dtype == DType::kF32 &&
                            addend == nullptr && bias == nullptr && flops >= kTrialFlops;
      const auto chosen = Choose(stream, *choice.description, operands, by_trial);
      made = chosen.status();
      if (made.ok()) choice.algorithm = *chosen;
    }
    if (!made.ok()) {
      chosen_.erase(found);
      return made;
    }
  }
  if (!choice.algorithm.has_value()) {
    if (bias != nullptr) return false;
    return MakeError(absl::StatusCode::kInternal, reason::kInternal,
                     absl::StrCat("cuBLASLt has no algorithm for ", c.rows, " x ", c.cols, " x ", depth));
  }
  if (bias != nullptr) SEQPAR_RETURN_IF_ERROR(choice.description->SetBias(bias->data));
  SEQPAR_RETURN_IF_ERROR(ToStatus(Run(stream, *choice.description, operands, *choice.algorithm), "multiply"));
  return true;
}

}  // namespace seqpar::cuda
