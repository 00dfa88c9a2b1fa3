#include "worker/device/cuda/cuda_device.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/device/cuda_scratch.h"
#include "worker/device/cuda/attention_table.h"
#include "worker/device/cuda/cuda_attention.h"
#include "worker/device/cuda/cuda_status.h"
#include "worker/device/cuda/cuda_stream.h"
#include "worker/device/cuda/device_memory.h"
#include "worker/device/cuda/gemm.h"
#include "worker/device/cuda/kernels.h"
#include "worker/device/cuda/scratch.h"
#include "worker/device/cuda/view.h"

namespace seqpar {
namespace cuda {
namespace {

// A matrix that may be absent, as the launchers take it.
class OptionalView {
 public:
  explicit OptionalView(const Matrix* m) : present_(m != nullptr) {
    if (present_) view_ = ViewOf(*m);
  }
  const View* get() const { return present_ ? &view_ : nullptr; }

 private:
  View view_{};
  const bool present_;
};

Activation KindOf(MlpKind kind) {
  SEQPAR_CHECK(kind != MlpKind::kNone);
  return kind == MlpKind::kGelu       ? Activation::kGelu
         : kind == MlpKind::kGeluTanh ? Activation::kGeluTanh
                                      : Activation::kSwiglu;
}

class CudaDevice : public Device {
 public:
  CudaDevice(DeviceInfo info, const CudaDeviceConfig& config, int capability,
             std::optional<AttentionKernel> only_attention, std::unique_ptr<DeviceMemory> memory)
      : info_(std::move(info)),
        ordinal_(config.ordinal),
        fixed_order_(config.deterministic),
        memory_(std::move(memory)),
        attention_(this, capability, config.deterministic, only_attention, &scratch_) {}

  ~CudaDevice() override {
    cudaSetDevice(ordinal_);
    gemm_.reset();
  }

  absl::Status Init() {
    SEQPAR_ASSIGN_OR_RETURN(gemm_workspace_,
                            Allocate(kCudaProductWorkspaceBytes, "the workspace of products"));
    SEQPAR_ASSIGN_OR_RETURN(gemm_, GemmLibrary::Create(gemm_workspace_.data(), kCudaProductWorkspaceBytes,
                                                       /*trials=*/!fixed_order_));
    return WarmUp();
  }

  const DeviceInfo& info() const override { return info_; }
  AttentionUse attention_use() const override { return attention_.Use(info_.kernel); }

  absl::StatusOr<Buffer> Allocate(int64_t bytes, const char* what) override {
    SEQPAR_CHECK(bytes >= 0);
    if (bytes == 0) return Buffer();
    SEQPAR_ASSIGN_OR_RETURN(void* data, memory_->Allocate(bytes, what));
    return Buffer(this, data, bytes);
  }
  MemoryUse memory() const override { return memory_->use(); }
  void ResetPeak() override { memory_->ResetPeak(); }
  int64_t work_done() const override { return work_->done(); }

  std::unique_ptr<Stream> CreateStream(const std::string& name) override {
    auto stream = CudaStream::Create(ordinal_, events_, work_);
    SEQPAR_CHECK(stream.ok());  // a context that cannot make a stream is of no use
    return std::move(stream).value();
  }

  void CopyFromHost(Stream& s, const void* from, void* to, int64_t bytes) override {
    CopyBytes(s, from, to, bytes, cudaMemcpyHostToDevice);
  }
  void CopyToHost(Stream& s, const void* from, void* to, int64_t bytes) override {
    CopyBytes(s, from, to, bytes, cudaMemcpyDeviceToHost);
  }
  void Zero(Stream& s, void* to, int64_t bytes) override {
    if (bytes == 0) return;
    Launch(s, "zero", [&](cudaStream_t stream) { return cudaMemsetAsync(to, 0, bytes, stream); });
  }
  void Copy(Stream& s, const Matrix& from, const Matrix& to) override {
    SEQPAR_CHECK(from.rows == to.rows && from.cols == to.cols);
    Launch(s, "copy", [&](cudaStream_t stream) { return cuda::Copy(stream, ViewOf(from), ViewOf(to)); });
  }

  void Add(Stream& s, const Matrix& a, const Matrix& b, const Matrix& to) override {
    SumInOrder(s, {a, b}, to);
  }

  void SumInOrder(Stream& s, const std::vector<Matrix>& terms, const Matrix& to) override {
    SEQPAR_CHECK(!terms.empty() && static_cast<int>(terms.size()) <= kSumTermsMax);
    std::vector<View> views;
    for (const Matrix& term : terms) {
      SEQPAR_CHECK(term.rows == to.rows && term.cols == to.cols);
      views.push_back(ViewOf(term));
    }
    Launch(s, "sum", [&](cudaStream_t stream) {
      return cuda::SumInOrder(stream, views.data(), static_cast<int>(views.size()), ViewOf(to));
    });
  }

  void AddColumnSums(Stream& s, const Matrix& x, float* sums) override {
    WithScratch(s, CudaColumnSumScratchBytes(x.rows, x.cols), "column sums",
                [&](cudaStream_t stream, float* partial) {
                  return cuda::AddColumnSums(stream, ViewOf(x), partial, sums);
                });
  }

  void Gemm(Stream& s, const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b, const Matrix& c,
            bool accumulate, const Matrix* bias) override {
    const int64_t depth = DepthOf(a, transpose_a, b, transpose_b, c);
    if (c.empty()) return;
    if (depth == 0) return EmptyProduct(s, c, accumulate, bias);
    static_cast<CudaStream&>(s).EnqueueStatus(
        [&](cudaStream_t stream) -> absl::Status {
          // The library's epilogue rounds a bfloat16 result before it adds the bias, and once more after.
          bool done = false;
          if (bias == nullptr || c.dtype == DType::kF32) {
            SEQPAR_ASSIGN_OR_RETURN(done, gemm_->Enqueue(stream, a, transpose_a, b, transpose_b,
                                                         accumulate ? &c : nullptr, c, bias));
          }
          if (done) return absl::OkStatus();
          return MultiplyThenAdd(stream, a, transpose_a, b, transpose_b, c, accumulate, *bias);
        },
        WorkKind::kProduct);
  }

  void GemmPlus(Stream& s, const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b,
                const Matrix& addend, const Matrix& c) override {
    const int64_t depth = DepthOf(a, transpose_a, b, transpose_b, c);
    SEQPAR_CHECK(addend.dtype == c.dtype && addend.rows == c.rows && addend.cols == c.cols);
    if (c.empty()) return;
    if (depth == 0) return Copy(s, addend, c);
    static_cast<CudaStream&>(s).EnqueueStatus(
        [&](cudaStream_t stream) {
          return gemm_->Enqueue(stream, a, transpose_a, b, transpose_b, &addend, c, nullptr).status();
        },
        WorkKind::kProduct);
  }

  void NormForward(Stream& s, NormKind kind, const Matrix& x, const Matrix& weight, const Matrix* bias,
                   float eps, const Matrix& y, float* stats) override {
    SEQPAR_CHECK(kind != NormKind::kNone);
    Launch(s, "norm", [&](cudaStream_t stream) {
      return cuda::NormForward(stream, kind == NormKind::kLayerNorm, ViewOf(x), ViewOf(weight),
                               OptionalView(bias).get(), eps, ViewOf(y), stats);
    });
  }

  void NormBackward(Stream& s, NormKind kind, const Matrix& x, const Matrix& weight, const float* stats,
                    const Matrix& dy, const Matrix* residual, const Matrix& dx, float* dweight,
                    float* dbias) override {
    SEQPAR_CHECK(kind != NormKind::kNone);
    WithScratch(s, CudaNormScratchBytes(x.rows, x.cols), "norm gradients",
                [&](cudaStream_t stream, float* partial) {
                  return cuda::NormBackward(stream, kind == NormKind::kLayerNorm, ViewOf(x), ViewOf(weight),
                                            stats, ViewOf(dy), OptionalView(residual).get(), ViewOf(dx),
                                            partial, dweight, dbias);
                });
  }

  void ActivationForward(Stream& s, MlpKind kind, const Matrix* gate, const Matrix& up,
                         const Matrix& y) override {
    SEQPAR_CHECK((gate != nullptr) == (kind == MlpKind::kSwiglu));
    Launch(s, "activation", [&](cudaStream_t stream) {
      return cuda::ActivationForward(stream, KindOf(kind), OptionalView(gate).get(), ViewOf(up), ViewOf(y));
    });
  }

  void ActivationBackward(Stream& s, MlpKind kind, const Matrix* gate, const Matrix& up, const Matrix& dy,
                          const Matrix* dgate, const Matrix& dup, const Matrix* y) override {
    SEQPAR_CHECK((gate != nullptr) == (kind == MlpKind::kSwiglu) && (gate != nullptr) == (dgate != nullptr));
    Launch(s, "activation gradient", [&](cudaStream_t stream) {
      return cuda::ActivationBackward(stream, KindOf(kind), OptionalView(gate).get(), ViewOf(up), ViewOf(dy),
                                      OptionalView(dgate).get(), ViewOf(dup), OptionalView(y).get());
    });
  }

  void Rotary(Stream& s, const Matrix& x, int64_t batch, int head_dim, const float* table,
              bool inverse) override {
    SEQPAR_CHECK(head_dim > 0 && head_dim % 2 == 0 && x.cols % head_dim == 0);
    Launch(s, "rotary", [&](cudaStream_t stream) {
      return cuda::Rotary(stream, ViewOf(x), batch, head_dim, table, inverse);
    });
  }

  void PrepareAttention(const AttentionTile& tile, bool backward) override {
    cudaSetDevice(ordinal_);
    attention_.Prepare(tile, backward);
  }

  void AttentionForward(Stream& s, const AttentionTile& tile, const Matrix& out, const Matrix& lse,
                        bool first) override {
    static_cast<CudaStream&>(s).EnqueueStatus(
        [&](cudaStream_t stream) { return attention_.Forward(stream, tile, out, lse, first); },
        WorkKind::kAttention);
  }

  void AttentionDelta(Stream& s, int head_dim, const Matrix& dout, const Matrix& out,
                      const Matrix& delta) override {
    Launch(s, "attention delta", [&](cudaStream_t stream) {
      return cuda::AttentionDelta(stream, head_dim, ViewOf(dout), ViewOf(out), ViewOf(delta));
    });
  }

  void AttentionBackward(Stream& s, const AttentionTile& tile, const Matrix& dout, const Matrix& lse,
                         const Matrix& delta, const Matrix& dq, const Matrix& dk, const Matrix& dv) override {
    static_cast<CudaStream&>(s).EnqueueStatus(
        [&](cudaStream_t stream) { return attention_.Backward(stream, tile, dout, lse, delta, dq, dk, dv); },
        WorkKind::kAttention);
  }

  void WholeAttentionForward(Stream& s, const AttentionTile& tile, const Matrix& out, const Matrix& lse,
                             const Matrix& sum) override {
    if (out.dtype == DType::kBF16 && attention_.Rounds(tile, {out}, /*keys=*/false)) {
      return AttentionForward(s, tile, out, lse, /*first=*/true);
    }
    Device::WholeAttentionForward(s, tile, out, lse, sum);
  }

  void WholeAttentionBackward(Stream& s, const AttentionTile& tile, const Matrix& dout, const Matrix& lse,
                              const Matrix& delta, const AttentionGradients& to,
                              const AttentionGradients& sums) override {
    const int64_t half = to.dkv.cols / 2;
    const auto half_of = [&](const Matrix& m, int i) { return m.Cols(i * half, (i + 1) * half); };
    const std::vector<Matrix> results = {dout, to.dq, half_of(to.dkv, 0), half_of(to.dkv, 1)};
    if (to.dq.dtype != DType::kBF16 || !attention_.Rounds(tile, results, /*keys=*/false)) {
      return Device::WholeAttentionBackward(s, tile, dout, lse, delta, to, sums);
    }
    const bool keys = to.dkv.dtype == DType::kBF16 && attention_.Rounds(tile, results, /*keys=*/true);
    const Matrix& dkv = keys ? to.dkv : sums.dkv;
    if (!keys) Zero(s, dkv.data, dkv.bytes());
    AttentionBackward(s, tile, dout, lse, delta, to.dq, half_of(dkv, 0), half_of(dkv, 1));
    if (!keys) Copy(s, dkv, to.dkv);
  }

 private:
  // The library loads its code when it is first called, and each kernel when that is: the products that a
  // layer makes once now, not in a job's first step.
  absl::Status WarmUp() {
    constexpr int64_t kSide = 2048;
    {
      SEQPAR_ASSIGN_OR_RETURN(const Buffer memory, Allocate(8 * kSide * kSide, "the first products"));
      auto* data = static_cast<char*>(memory.data());
      const Matrix a(data, DType::kBF16, kSide, kSide), b(data + a.bytes(), DType::kBF16, kSide, kSide);
      const std::unique_ptr<Stream> stream = CreateStream("warm-up");
      for (const DType type : {DType::kBF16, DType::kF32}) {
        const Matrix c(data + 2 * a.bytes(), type, kSide, kSide);
        // Forward, the gradient of the input, that of the weights.
        for (const auto& [transpose_a, transpose_b] :
             {std::pair{false, true}, {false, false}, {true, false}}) {
          Gemm(*stream, a, transpose_a, b, transpose_b, c, type == DType::kF32, nullptr);
        }
      }
      SEQPAR_RETURN_IF_ERROR(stream->Synchronize());
    }
    ResetPeak();
    return absl::OkStatus();
  }

  void Free(void* data, int64_t bytes) override { memory_->Free(data, bytes); }

  void Launch(Stream& s, const char* what, const std::function<cudaError_t(cudaStream_t)>& launch) {
    static_cast<CudaStream&>(s).Enqueue(what, launch, WorkKind::kPointwise);
  }

  // Pageable host memory: CUDA copies through its own staging buffers.
  void CopyBytes(Stream& s, const void* from, void* to, int64_t bytes, cudaMemcpyKind kind) {
    if (bytes == 0) return;
    Launch(s, "copy", [&](cudaStream_t stream) { return cudaMemcpyAsync(to, from, bytes, kind, stream); });
  }

  void WithScratch(Stream& s, int64_t bytes, const char* what,
                   const std::function<cudaError_t(cudaStream_t, float*)>& launch) {
    if (bytes == 0) return;
    static_cast<CudaStream&>(s).EnqueueStatus(
        [&](cudaStream_t stream) -> absl::Status {
          SEQPAR_ASSIGN_OR_RETURN(void* const scratch, scratch_.Take(stream, bytes, what));
          return ToStatus(launch(stream, static_cast<float*>(scratch)), what);
        },
        WorkKind::kPointwise);
  }

  // Where the library does not add the bias as it should. The sum is made in float32, so that it is rounded
  // once.
  absl::Status MultiplyThenAdd(cudaStream_t stream, const Matrix& a, bool transpose_a, const Matrix& b,
                               bool transpose_b, const Matrix& c, bool accumulate, const Matrix& bias) {
    if (c.dtype == DType::kF32) {
      SEQPAR_RETURN_IF_ERROR(
          gemm_->Enqueue(stream, a, transpose_a, b, transpose_b, accumulate ? &c : nullptr, c, nullptr)
              .status());
      return ToStatus(AddRow(stream, ViewOf(bias), ViewOf(c)), "add a bias");
    }
    const int64_t step = CudaRoundedProductRows(c.rows, c.cols);
    SEQPAR_ASSIGN_OR_RETURN(void* const scratch,
                            scratch_.Take(stream, step * c.cols * 4, "a product's sums"));
    for (int64_t row = 0; row < c.rows; row += step) {
      const Matrix to = c.Rows(row, std::min(c.rows, row + step));
      const Matrix from = transpose_a ? a.Cols(row, row + to.rows) : a.Rows(row, row + to.rows);
      const Matrix sums(scratch, DType::kF32, to.rows, to.cols);
      if (accumulate) {
        SEQPAR_RETURN_IF_ERROR(ToStatus(cuda::Copy(stream, ViewOf(to), ViewOf(sums)), "copy"));
      }
      SEQPAR_RETURN_IF_ERROR(gemm_
                                 ->Enqueue(stream, from, transpose_a, b, transpose_b,
                                           accumulate ? &sums : nullptr, sums, nullptr)
                                 .status());
      SEQPAR_RETURN_IF_ERROR(ToStatus(AddRow(stream, ViewOf(bias), ViewOf(sums)), "add a bias"));
      SEQPAR_RETURN_IF_ERROR(ToStatus(cuda::Copy(stream, ViewOf(sums), ViewOf(to)), "round a product"));
    }
    return absl::OkStatus();
  }

  // Of a product, whose shapes are checked.
  static int64_t DepthOf(const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b,
                         const Matrix& c) {
    const int64_t depth = transpose_a ? a.rows : a.cols;
    SEQPAR_CHECK(a.dtype == b.dtype && (transpose_a ? a.cols : a.rows) == c.rows);
    SEQPAR_CHECK((transpose_b ? b.rows : b.cols) == c.cols && (transpose_b ? b.cols : b.rows) == depth);
    return depth;
  }

  // A product of no depth is zero.
  void EmptyProduct(Stream& s, const Matrix& c, bool accumulate, const Matrix* bias) {
    if (!accumulate && bias == nullptr && c.contiguous()) return Zero(s, c.data, c.bytes());
    for (int64_t row = 0; row < c.rows; ++row) {
      const Matrix to = c.Rows(row, row + 1);
      if (!accumulate) Zero(s, to.data, to.bytes());
      if (bias != nullptr) Add(s, to, *bias, to);
    }
  }

  const DeviceInfo info_;
  const int ordinal_;
  const bool fixed_order_;
  const std::unique_ptr<DeviceMemory> memory_;
  const std::shared_ptr<EventPool> events_ = std::make_shared<EventPool>(ordinal_);
  const std::shared_ptr<WorkCounter> work_ = std::make_shared<WorkCounter>();
  // These give their memory back before it goes.
  Buffer gemm_workspace_;
  std::unique_ptr<GemmLibrary> gemm_;
  Scratch scratch_{memory_.get()};
  CudaAttention attention_;
};

// What kCudaAttentionVariable asks for.
absl::StatusOr<std::optional<AttentionKernel>> OnlyAttention() {
  const char* asked = std::getenv(kCudaAttentionVariable);
  if (asked == nullptr || *asked == '\0') return std::optional<AttentionKernel>();
  for (int i = 0; i < kAttentionKernels; ++i) {
    const auto kernel = static_cast<AttentionKernel>(i);
    if (asked == std::string(AttentionKernelName(kernel))) return std::optional<AttentionKernel>(kernel);
  }
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                   absl::StrCat(kCudaAttentionVariable, " is \"", asked,
                                "\", it may be tiled_float32, fa4_sm90, fa4_sm100 or cudnn"));
}

}  // namespace
}  // namespace cuda

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaDeviceConfig& config) {
  int count = 0;
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaGetDeviceCount(&count), "count GPUs");
  if (config.ordinal < 0 || config.ordinal >= count) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kInternal,
                     absl::StrCat("there is no GPU ", config.ordinal, ": ", count, " are visible"));
  }
  cudaDeviceProp properties;
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaGetDeviceProperties(&properties, config.ordinal),
                              "ask for the GPU's properties");
  SEQPAR_ASSIGN_OR_RETURN(std::unique_ptr<cuda::DeviceMemory> memory,
                          cuda::DeviceMemory::Create(config.ordinal, config.memory_bytes));
  DeviceInfo info;
  info.kind = "cuda";
  info.name = properties.name;
  info.kernel = cuda::AttentionKernelName(cuda::AttentionKernel::kTiledFloat32);
  info.threads = 1;
  info.memory_bytes = memory->limit_bytes();
  SEQPAR_ASSIGN_OR_RETURN(const std::optional<cuda::AttentionKernel> only, cuda::OnlyAttention());
  auto device = std::make_unique<cuda::CudaDevice>(
      std::move(info), config, properties.major * 10 + properties.minor, only, std::move(memory));
  SEQPAR_RETURN_IF_ERROR(device->Init());
  return absl::StatusOr<std::unique_ptr<Device>>(std::move(device));
}

}  // namespace seqpar
