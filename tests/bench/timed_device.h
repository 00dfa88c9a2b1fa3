// A device that times the kernels of another: what a layer's time goes to.
#ifndef SEQPAR_TESTS_BENCH_TIMED_DEVICE_H_
#define SEQPAR_TESTS_BENCH_TIMED_DEVICE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/device/device.h"

namespace seqpar {

enum class KernelKind { kAttention, kProduct, kDelta, kNorm, kRotary, kActivation, kSum, kCopy, kZero };
inline constexpr int kKernelKinds = 9;
const char* KernelName(KernelKind kind);

struct KernelUse {
  double seconds = 0;  // CPU time of the stream's thread
  double flops = 0;    // of products; the caller knows those of attention
  double bytes = 0;    // that the kernel cannot do without: each operand read once, each result written once
  int64_t calls = 0;
  KernelUse& operator+=(const KernelUse& other);
};
using KernelUses = std::array<KernelUse, kKernelKinds>;

// Forwards everything to `device`, which outlives it and has one thread. Uses are read between runs, when no
// stream has work.
class TimedDevice : public Device {
 public:
  explicit TimedDevice(Device* device) : device_(device) {}
  const KernelUses& uses() const { return uses_; }
  void ResetUses() { uses_ = KernelUses(); }

  const DeviceInfo& info() const override { return device_->info(); }
  absl::StatusOr<Buffer> Allocate(int64_t bytes, const char* what) override {
    return device_->Allocate(bytes, what);
  }
  MemoryUse memory() const override { return device_->memory(); }
  int64_t work_done() const override { return device_->work_done(); }
  void ResetPeak() override { device_->ResetPeak(); }
  std::unique_ptr<Stream> CreateStream(const std::string& name) override {
    return device_->CreateStream(name);
  }

  void CopyFromHost(Stream& s, const void* from, void* to, int64_t bytes) override;
  void CopyToHost(Stream& s, const void* from, void* to, int64_t bytes) override;
  void Zero(Stream& s, void* to, int64_t bytes) override;
  void Copy(Stream& s, const Matrix& from, const Matrix& to) override;
  void Add(Stream& s, const Matrix& a, const Matrix& b, const Matrix& to) override;
  void SumInOrder(Stream& s, const std::vector<Matrix>& terms, const Matrix& to) override;
  void AddColumnSums(Stream& s, const Matrix& x, float* sums) override;
  void Gemm(Stream& s, const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b, const Matrix& c,
            bool accumulate, const Matrix* bias) override;
  void NormForward(Stream& s, NormKind kind, const Matrix& x, const Matrix& weight, const Matrix* bias,
                   float eps, const Matrix& y, float* stats) override;
  void NormBackward(Stream& s, NormKind kind, const Matrix& x, const Matrix& weight, const float* stats,
                    const Matrix& dy, const Matrix* residual, const Matrix& dx, float* dweight,
                    float* dbias) override;
  void ActivationForward(Stream& s, MlpKind kind, const Matrix* gate, const Matrix& up,
                         const Matrix& y) override;
  void ActivationBackward(Stream& s, MlpKind kind, const Matrix* gate, const Matrix& up, const Matrix& dy,
                          const Matrix* dgate, const Matrix& dup, const Matrix* y) override;
  void Rotary(Stream& s, const Matrix& x, int64_t batch, int head_dim, const float* table,
              bool inverse) override;
  void PrepareAttention(const AttentionTile& tile, bool backward) override {
    device_->PrepareAttention(tile, backward);
  }
  void AttentionForward(Stream& s, const AttentionTile& tile, const Matrix& out, const Matrix& lse,
                        bool first) override;
  void AttentionDelta(Stream& s, int head_dim, const Matrix& dout, const Matrix& out,
                      const Matrix& delta) override;
  void AttentionBackward(Stream& s, const AttentionTile& tile, const Matrix& dout, const Matrix& lse,
                         const Matrix& delta, const Matrix& dq, const Matrix& dk, const Matrix& dv) override;

 private:
  void Free(void*, int64_t) override {}  // buffers are the other device's
  // Enqueues between two readings of the clock, which go to the kind's use.
  template <typename Enqueue>
  void Timed(Stream& s, KernelKind kind, double flops, int64_t bytes, const Enqueue& enqueue);

  Device* const device_;
  KernelUses uses_;
  double start_ = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_TESTS_BENCH_TIMED_DEVICE_H_
