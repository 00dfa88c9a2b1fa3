#include "worker/device/cpu/cpu_device.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/device/host_stream.h"
#include "worker/device/cpu/activation.h"
#include "worker/device/cpu/elementwise.h"
#include "worker/device/cpu/library_gemm.h"
#include "worker/device/cpu/norm.h"
#include "worker/device/cpu/reference_attention.h"
#include "worker/device/cpu/rotary.h"
#include "worker/device/cpu/row_simd.h"
#include "worker/device/cpu/tiled_attention.h"

namespace seqpar {
namespace {

// The kernels written to be read.
constexpr char kScalar[] = "scalar";

bool IsStorage(DType type) { return type == DType::kF32 || type == DType::kBF16; }
bool HasShape(const Matrix& m, int64_t rows, int64_t cols) {
  return m.rows == rows && m.cols == cols && m.ld >= m.cols && IsStorage(m.dtype);
}
bool HasFloatShape(const Matrix& m, int64_t rows, int64_t cols) {
  return HasShape(m, rows, cols) && m.dtype == DType::kF32;
}
bool IsOptionalRow(const Matrix* row, int64_t cols) { return row == nullptr || HasShape(*row, 1, cols); }

void CheckTile(const AttentionTile& tile) {
  const int64_t q_cols = int64_t{tile.heads.q_heads()} * tile.head_dim;
  const int64_t kv_cols = int64_t{tile.heads.kv_heads()} * tile.head_dim;
  SEQPAR_CHECK(tile.head_dim > 0 && tile.batch > 0 && tile.group > 0);
  SEQPAR_CHECK(HasShape(tile.q, tile.queries * tile.batch, q_cols));
  SEQPAR_CHECK(HasShape(tile.k, tile.keys * tile.batch, kv_cols));
  SEQPAR_CHECK(HasShape(tile.v, tile.keys * tile.batch, kv_cols));
  SEQPAR_CHECK(tile.q.dtype == tile.k.dtype && tile.k.dtype == tile.v.dtype);
  SEQPAR_CHECK(tile.ranges != nullptr && static_cast<int64_t>(tile.ranges->lo.size()) == tile.queries &&
               static_cast<int64_t>(tile.ranges->hi.size()) == tile.queries);
}

std::string ProcessorName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "CPU";
}

class CpuDevice : public Device {
 public:
  // simd: the instruction set of the kernels, one of cpu::SimdNames(), or "scalar".
  CpuDevice(const CpuDeviceConfig& config, const std::string& simd)
      : poison_(config.poison),
        memory_(config.memory_bytes),
        scratch_(&memory_, config.poison),
        pool_(config.threads),
        attention_(simd == kScalar ? cpu::MakeReferenceAttention() : cpu::MakeTiledAttention(simd)),
        activations_(simd == kScalar ? cpu::PlainActivations() : *cpu::FindActivationSimd(simd)),
        rows_(cpu::FindRowSimd(simd)) {
    info_.kind = "cpu";
    info_.name = ProcessorName();
    info_.kernel = simd;
    info_.threads = config.threads;
    info_.memory_bytes = config.memory_bytes;
  }

  const DeviceInfo& info() const override { return info_; }

  absl::StatusOr<Buffer> Allocate(int64_t bytes, const char* what) override {
    SEQPAR_CHECK(bytes >= 0);
    if (bytes == 0) return Buffer();
    SEQPAR_ASSIGN_OR_RETURN(void* data, memory_.Allocate(bytes, what));
    if (poison_) std::memset(data, 0xff, bytes);  // a NaN in float32 and in bfloat16
    return Buffer(this, data, bytes);
  }
  MemoryUse memory() const override { return memory_.use(); }
  void ResetPeak() override { memory_.ResetPeak(); }
  int64_t work_done() const override { return pool_.tasks_done(); }
  std::unique_ptr<Stream> CreateStream(const std::string& name) override { return MakeHostStream(name); }

  void CopyFromHost(Stream& s, const void* from, void* to, int64_t bytes) override {
    CopyBytes(s, from, to, bytes);
  }
  void CopyToHost(Stream& s, const void* from, void* to, int64_t bytes) override {
    CopyBytes(s, from, to, bytes);
  }

  void Zero(Stream& s, void* to, int64_t bytes) override {
    Run(s, [=, this] {
      constexpr int64_t kPiece = int64_t{1} << 18;
      pool_.ParallelFor((bytes + kPiece - 1) / kPiece, [&](int64_t task, int) {
        std::memset(static_cast<char*>(to) + task * kPiece, 0, std::min(kPiece, bytes - task * kPiece));
      });
    });
  }

  void Copy(Stream& s, const Matrix& from, const Matrix& to) override {
    SEQPAR_CHECK(HasShape(from, to.rows, to.cols) && HasShape(to, to.rows, to.cols));
    Run(s, [=, this] { cpu::CopyRows(rows_, pool_, from, to); });
  }

  void Add(Stream& s, const Matrix& a, const Matrix& b, const Matrix& to) override {
    SumInOrder(s, {a, b}, to);
  }

  void SumInOrder(Stream& s, const std::vector<Matrix>& terms, const Matrix& to) override {
    SEQPAR_CHECK(!terms.empty() && HasShape(to, to.rows, to.cols));
    for (const Matrix& term : terms) SEQPAR_CHECK(HasShape(term, to.rows, to.cols));
    Run(s, [=, this] { cpu::SumInOrder(rows_, pool_, terms, to); });
  }

  void AddColumnSums(Stream& s, const Matrix& x, float* sums) override {
    SEQPAR_CHECK(HasShape(x, x.rows, x.cols));
    s.HostFunction(WorkKind::kPointwise, [=, this] { return cpu::AddColumnSums(rows_, context(), x, sums); });
  }

  void Gemm(Stream& s, const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b, const Matrix& c,
            bool accumulate, const Matrix* bias) override {
    const int64_t depth = transpose_a ? a.rows : a.cols;
    SEQPAR_CHECK(a.dtype == b.dtype && HasShape(c, c.rows, c.cols) && IsOptionalRow(bias, c.cols));
    SEQPAR_CHECK(transpose_a ? HasShape(a, depth, c.rows) : HasShape(a, c.rows, depth));
    SEQPAR_CHECK(transpose_b ? HasShape(b, c.cols, depth) : HasShape(b, depth, c.cols));
    s.HostFunction(WorkKind::kProduct, [=, this, row = Optional(bias)] {
      return cpu::LibraryGemm(context(), a, transpose_a, b, transpose_b, c, accumulate, row.get());
    });
  }

  void NormForward(Stream& s, NormKind kind, const Matrix& x, const Matrix& weight, const Matrix* bias,
                   float eps, const Matrix& y, float* stats) override {
    SEQPAR_CHECK(kind != NormKind::kNone && HasShape(x, x.rows, x.cols) && HasShape(y, x.rows, x.cols));
    SEQPAR_CHECK(HasShape(weight, 1, x.cols) && IsOptionalRow(bias, x.cols));
    Run(s, [=, this, row = Optional(bias)] {
      cpu::NormForward(rows_, pool_, kind, x, weight, row.get(), eps, y, stats);
    });
  }

  void NormBackward(Stream& s, NormKind kind, const Matrix& x, const Matrix& weight, const float* stats,
                    const Matrix& dy, const Matrix* residual, const Matrix& dx, float* dweight,
                    float* dbias) override {
    SEQPAR_CHECK(kind != NormKind::kNone && HasShape(x, x.rows, x.cols) && HasShape(weight, 1, x.cols));
    SEQPAR_CHECK(HasShape(dy, x.rows, x.cols) && HasShape(dx, x.rows, x.cols));
    SEQPAR_CHECK(residual == nullptr || HasShape(*residual, x.rows, x.cols));
    s.HostFunction(WorkKind::kPointwise, [=, this, around = Optional(residual)] {
      return cpu::NormBackward(rows_, context(), kind, x, weight, stats, dy, around.get(), dx, dweight,
                               dbias);
    });
  }

  void ActivationForward(Stream& s, MlpKind kind, const Matrix* gate, const Matrix& up,
                         const Matrix& y) override {
    SEQPAR_CHECK(kind != MlpKind::kNone && (gate != nullptr) == (kind == MlpKind::kSwiglu));
    SEQPAR_CHECK(HasShape(up, up.rows, up.cols) && HasShape(y, up.rows, up.cols));
    SEQPAR_CHECK(gate == nullptr || HasShape(*gate, up.rows, up.cols));
    Run(s, [=, this, gates = Optional(gate)] {
      cpu::ActivationForward(activations_, rows_, pool_, kind, gates.get(), up, y);
    });
  }

  void ActivationBackward(Stream& s, MlpKind kind, const Matrix* gate, const Matrix& up, const Matrix& dy,
                          const Matrix* dgate, const Matrix& dup, const Matrix* y) override {
    SEQPAR_CHECK(kind != MlpKind::kNone && (gate != nullptr) == (kind == MlpKind::kSwiglu));
    SEQPAR_CHECK((gate != nullptr) == (dgate != nullptr) && HasShape(up, up.rows, up.cols));
    SEQPAR_CHECK(HasShape(dy, up.rows, up.cols) && HasShape(dup, up.rows, up.cols));
    SEQPAR_CHECK(gate == nullptr ||
                 (HasShape(*gate, up.rows, up.cols) && HasShape(*dgate, up.rows, up.cols)));
    SEQPAR_CHECK(y == nullptr || HasShape(*y, up.rows, up.cols));
    Run(s, [=, this, gates = Optional(gate), dgates = Optional(dgate), ys = Optional(y)] {
      cpu::ActivationBackward(activations_, rows_, pool_, kind, gates.get(), up, dy, dgates.get(), dup,
                              ys.get());
    });
  }

  void Rotary(Stream& s, const Matrix& x, int64_t batch, int head_dim, const float* table,
              bool inverse) override {
    SEQPAR_CHECK(head_dim > 0 && head_dim % 2 == 0 && x.cols % head_dim == 0 && HasShape(x, x.rows, x.cols));
    SEQPAR_CHECK(batch > 0 && x.rows % batch == 0);
    Run(s, [=, this] { cpu::Rotary(rows_, pool_, x, batch, head_dim, table, inverse); });
  }

  // Nothing is made for a shape here.
  void PrepareAttention(const AttentionTile& tile, bool backward) override {}

  void AttentionForward(Stream& s, const AttentionTile& tile, const Matrix& out, const Matrix& lse,
                        bool first) override {
    CheckTile(tile);
    SEQPAR_CHECK(HasFloatShape(out, tile.q.rows, tile.q.cols));
    SEQPAR_CHECK(HasFloatShape(lse, tile.q.rows, tile.heads.q_heads()));
    s.HostFunction(WorkKind::kAttention,
                   [=, this] { return attention_->Forward(context(), tile, out, lse, first); });
  }

  void AttentionDelta(Stream& s, int head_dim, const Matrix& dout, const Matrix& out,
                      const Matrix& delta) override {
    SEQPAR_CHECK(HasShape(dout, delta.rows, delta.cols * head_dim) && HasShape(out, dout.rows, dout.cols));
    SEQPAR_CHECK(HasFloatShape(delta, delta.rows, delta.cols));
    s.HostFunction(WorkKind::kAttention,
                   [=, this] { return attention_->Delta(context(), head_dim, dout, out, delta); });
  }

  void AttentionBackward(Stream& s, const AttentionTile& tile, const Matrix& dout, const Matrix& lse,
                         const Matrix& delta, const Matrix& dq, const Matrix& dk, const Matrix& dv) override {
    CheckTile(tile);
    SEQPAR_CHECK(HasShape(dout, tile.q.rows, tile.q.cols) && HasFloatShape(dq, tile.q.rows, tile.q.cols));
    SEQPAR_CHECK(HasFloatShape(lse, tile.q.rows, tile.heads.q_heads()));
    SEQPAR_CHECK(HasFloatShape(delta, tile.q.rows, tile.heads.q_heads()));
    SEQPAR_CHECK(HasFloatShape(dk, tile.k.rows, tile.k.cols) && HasFloatShape(dv, tile.v.rows, tile.v.cols));
    s.HostFunction(WorkKind::kAttention,
                   [=, this] { return attention_->Backward(context(), tile, dout, lse, delta, dq, dk, dv); });
  }

 private:
  void Free(void* data, int64_t bytes) override { memory_.Free(data, bytes); }

  // Kernels that cannot fail.
  template <typename Fn>
  static void Run(Stream& s, Fn fn) {
    s.HostFunction(WorkKind::kPointwise, [fn = std::move(fn)] {
      fn();
      return absl::OkStatus();
    });
  }

  // A copy of an argument that may be absent, for an operation that runs after the caller's is gone.
  static std::shared_ptr<const Matrix> Optional(const Matrix* m) {
    return m == nullptr ? nullptr : std::make_shared<const Matrix>(*m);
  }

  void CopyBytes(Stream& s, const void* from, void* to, int64_t bytes) {
    Run(s, [=, this] {
      constexpr int64_t kPiece = int64_t{1} << 18;
      pool_.ParallelFor((bytes + kPiece - 1) / kPiece, [&](int64_t task, int) {
        const int64_t at = task * kPiece;
        std::memcpy(static_cast<char*>(to) + at, static_cast<const char*>(from) + at,
                    std::min(kPiece, bytes - at));
      });
    });
  }

  CpuContext context() { return CpuContext{&pool_, &scratch_}; }

  DeviceInfo info_;
  const bool poison_;
  HostMemory memory_;
  ScratchPool scratch_;
  ThreadPool pool_;
  const std::unique_ptr<cpu::AttentionKernel> attention_;
  const cpu::ActivationSimd& activations_;
  const cpu::RowSimd& rows_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> MakeCpuDevice(const CpuDeviceConfig& config) {
  if (config.threads < 1) {
    return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                     absl::StrCat("a CPU device needs at least 1 thread, not ", config.threads));
  }
  if (config.memory_bytes < 0) {
    return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                     absl::StrCat("a CPU device cannot have ", config.memory_bytes, " bytes of memory"));
  }
  const std::vector<std::string> names = cpu::SimdNames();
  std::string simd = config.kernel;
  if (simd == "auto") simd = names.empty() ? kScalar : names.front();
  if (simd != kScalar && std::find(names.begin(), names.end(), simd) == names.end()) {
    return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                     absl::StrCat("no kernel '", simd, "' here: auto, scalar, ", absl::StrJoin(names, ", ")));
  }
  return std::make_unique<CpuDevice>(config, simd);
}

}  // namespace seqpar
