#include "tests/bench/timed_device.h"

#include "worker/device/cpu/peak.h"

namespace seqpar {
namespace {

int64_t BytesOf(const Matrix* m) { return m == nullptr ? 0 : m->bytes(); }

}  // namespace

const char* KernelName(KernelKind kind) {
  constexpr const char* kNames[kKernelKinds] = {"attention",  "products", "delta", "norm", "rotary",
                                                "activation", "residual", "copy",  "zero"};
  return kNames[static_cast<int>(kind)];
}

KernelUse& KernelUse::operator+=(const KernelUse& other) {
  seconds += other.seconds;
  flops += other.flops;
  bytes += other.bytes;
  calls += other.calls;
  return *this;
}

template <typename Enqueue>
void TimedDevice::Timed(Stream& s, KernelKind kind, double flops, int64_t bytes, const Enqueue& enqueue) {
  s.HostFunction([this] {
    start_ = ThreadCpuSeconds();
    return absl::OkStatus();
  });
  enqueue();
  s.HostFunction([this, kind, flops, bytes] {
    uses_[static_cast<int>(kind)] +=
        KernelUse{ThreadCpuSeconds() - start_, flops, static_cast<double>(bytes), 1};
    return absl::OkStatus();
  });
}

void TimedDevice::CopyFromHost(Stream& s, const void* from, void* to, int64_t bytes) {
  Timed(s, KernelKind::kCopy, 0, 2 * bytes, [&] { device_->CopyFromHost(s, from, to, bytes); });
}
void TimedDevice::CopyToHost(Stream& s, const void* from, void* to, int64_t bytes) {
  Timed(s, KernelKind::kCopy, 0, 2 * bytes, [&] { device_->CopyToHost(s, from, to, bytes); });
}
void TimedDevice::Zero(Stream& s, void* to, int64_t bytes) {
  Timed(s, KernelKind::kZero, 0, bytes, [&] { device_->Zero(s, to, bytes); });
}
void TimedDevice::Copy(Stream& s, const Matrix& from, const Matrix& to) {
  Timed(s, KernelKind::kCopy, 0, from.bytes() + to.bytes(), [&] { device_->Copy(s, from, to); });
}

void TimedDevice::Add(Stream& s, const Matrix& a, const Matrix& b, const Matrix& to) {
  SumInOrder(s, {a, b}, to);
}
void TimedDevice::SumInOrder(Stream& s, const std::vector<Matrix>& terms, const Matrix& to) {
  int64_t bytes = to.bytes();
  for (const Matrix& term : terms) bytes += term.bytes();
  Timed(s, KernelKind::kSum, 0, bytes, [&] { device_->SumInOrder(s, terms, to); });
}
void TimedDevice::AddColumnSums(Stream& s, const Matrix& x, float* sums) {
  Timed(s, KernelKind::kSum, 0, x.bytes(), [&] { device_->AddColumnSums(s, x, sums); });
}

void TimedDevice::Gemm(Stream& s, const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b,
                       const Matrix& c, bool accumulate, const Matrix* bias) {
  const double depth = static_cast<double>(transpose_a ? a.rows : a.cols);
  const double flops = 2.0 * static_cast<double>(c.rows) * static_cast<double>(c.cols) * depth;
  const int64_t bytes = a.bytes() + b.bytes() + (accumulate ? 2 : 1) * c.bytes();
  Timed(s, KernelKind::kProduct, flops, bytes,
        [&] { device_->Gemm(s, a, transpose_a, b, transpose_b, c, accumulate, bias); });
}

void TimedDevice::NormForward(Stream& s, NormKind kind, const Matrix& x, const Matrix& weight,
                              const Matrix* bias, float eps, const Matrix& y, float* stats) {
  Timed(s, KernelKind::kNorm, 0, x.bytes() + y.bytes(),
        [&] { device_->NormForward(s, kind, x, weight, bias, eps, y, stats); });
}
void TimedDevice::NormBackward(Stream& s, NormKind kind, const Matrix& x, const Matrix& weight,
                               const float* stats, const Matrix& dy, const Matrix* residual, const Matrix& dx,
                               float* dweight, float* dbias) {
  Timed(s, KernelKind::kNorm, 0, x.bytes() + dy.bytes() + BytesOf(residual) + dx.bytes(),
        [&] { device_->NormBackward(s, kind, x, weight, stats, dy, residual, dx, dweight, dbias); });
}

void TimedDevice::ActivationForward(Stream& s, MlpKind kind, const Matrix* gate, const Matrix& up,
                                    const Matrix& y) {
  Timed(s, KernelKind::kActivation, 0, BytesOf(gate) + up.bytes() + y.bytes(),
        [&] { device_->ActivationForward(s, kind, gate, up, y); });
}
void TimedDevice::ActivationBackward(Stream& s, MlpKind kind, const Matrix* gate, const Matrix& up,
                                     const Matrix& dy, const Matrix* dgate, const Matrix& dup,
                                     const Matrix* y) {
  Timed(s, KernelKind::kActivation, 0,
        BytesOf(gate) + up.bytes() + dy.bytes() + BytesOf(dgate) + dup.bytes() + BytesOf(y),
        [&] { device_->ActivationBackward(s, kind, gate, up, dy, dgate, dup, y); });
}

void TimedDevice::Rotary(Stream& s, const Matrix& x, int64_t batch, int head_dim, const float* table,
                         bool inverse) {
  Timed(s, KernelKind::kRotary, 0, 2 * x.bytes(),
        [&] { device_->Rotary(s, x, batch, head_dim, table, inverse); });
}

void TimedDevice::AttentionForward(Stream& s, const AttentionTile& tile, const Matrix& out, const Matrix& lse,
                                   bool first) {
  Timed(s, KernelKind::kAttention, 0, 0, [&] { device_->AttentionForward(s, tile, out, lse, first); });
}
void TimedDevice::AttentionDelta(Stream& s, int head_dim, const Matrix& dout, const Matrix& out,
                                 const Matrix& delta) {
  Timed(s, KernelKind::kDelta, 0, dout.bytes() + out.bytes() + delta.bytes(),
        [&] { device_->AttentionDelta(s, head_dim, dout, out, delta); });
}
void TimedDevice::AttentionBackward(Stream& s, const AttentionTile& tile, const Matrix& dout,
                                    const Matrix& lse, const Matrix& delta, const Matrix& dq,
                                    const Matrix& dk, const Matrix& dv) {
  Timed(s, KernelKind::kAttention, 0, 0,
        [&] { device_->AttentionBackward(s, tile, dout, lse, delta, dq, dk, dv); });
}

}  // namespace seqpar
