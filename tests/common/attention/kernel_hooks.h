// A device that computes nothing: it tells of the attention tiles that are enqueued, and its streams are the
// caller's choice. For tests of the order of work.
#ifndef SEQPAR_TESTS_COMMON_ATTENTION_KERNEL_HOOKS_H_
#define SEQPAR_TESTS_COMMON_ATTENTION_KERNEL_HOOKS_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/device/device.h"

namespace seqpar {

class HookedDevice : public Device {
 public:
  // `on_tile` is called when a tile is enqueued; dk is null forward.
  using OnTile = std::function<void(Stream&, const AttentionTile&, const Matrix* dk)>;
  using MakeStream = std::function<std::unique_ptr<Stream>(const std::string& name)>;
  // `on_prepare`: when a tile is announced.
  using OnPrepare = std::function<void(const AttentionTile&, bool backward)>;
  HookedDevice(MakeStream make_stream, OnTile on_tile, OnPrepare on_prepare = {})
      : make_stream_(std::move(make_stream)),
        on_tile_(std::move(on_tile)),
        on_prepare_(std::move(on_prepare)) {}

  const DeviceInfo& info() const override { return info_; }
  absl::StatusOr<Buffer> Allocate(int64_t bytes, const char* what) override {
    return Buffer(this, new char[static_cast<size_t>(bytes)], bytes);
  }
  MemoryUse memory() const override { return {}; }
  int64_t work_done() const override { return 0; }
  void ResetPeak() override {}
  std::unique_ptr<Stream> CreateStream(const std::string& name) override { return make_stream_(name); }

  void PrepareAttention(const AttentionTile& tile, bool backward) override {
    if (on_prepare_) on_prepare_(tile, backward);
  }
  void AttentionForward(Stream& s, const AttentionTile& tile, const Matrix& out, const Matrix& lse,
                        bool first) override {
    on_tile_(s, tile, nullptr);
  }
  void AttentionBackward(Stream& s, const AttentionTile& tile, const Matrix& dout, const Matrix& lse,
                         const Matrix& delta, const Matrix& dq, const Matrix& dk, const Matrix& dv) override {
    on_tile_(s, tile, &dk);
  }

  void CopyFromHost(Stream& s, const void* from, void* to, int64_t bytes) override {}
  void CopyToHost(Stream& s, const void* from, void* to, int64_t bytes) override {}
  void Zero(Stream& s, void* to, int64_t bytes) override {}
  void Copy(Stream& s, const Matrix& from, const Matrix& to) override {}
  void Add(Stream& s, const Matrix& a, const Matrix& b, const Matrix& to) override {}
  void SumInOrder(Stream& s, const std::vector<Matrix>& terms, const Matrix& to) override {}
  void AddColumnSums(Stream& s, const Matrix& x, float* sums) override {}
  void Gemm(Stream& s, const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b, const Matrix& c,
            bool accumulate, const Matrix* bias) override {}
  void NormForward(Stream& s, NormKind kind, const Matrix& x, const Matrix& weight, const Matrix* bias,
                   float eps, const Matrix& y, float* stats) override {}
  void NormBackward(Stream& s, NormKind kind, const Matrix& x, const Matrix& weight, const float* stats,
                    const Matrix& dy, const Matrix* residual, const Matrix& dx, float* dweight,
                    float* dbias) override {}
  void ActivationForward(Stream& s, MlpKind kind, const Matrix* gate, const Matrix& up,
                         const Matrix& y) override {}
  void ActivationBackward(Stream& s, MlpKind kind, const Matrix* gate, const Matrix& up, const Matrix& dy,
                          const Matrix* dgate, const Matrix& dup, const Matrix* y) override {}
  void Rotary(Stream& s, const Matrix& x, int64_t batch, int head_dim, const float* table,
              bool inverse) override {}
  void AttentionDelta(Stream& s, int head_dim, const Matrix& dout, const Matrix& out,
                      const Matrix& delta) override {}

 private:
  void Free(void* data, int64_t bytes) override { delete[] static_cast<char*>(data); }

  const DeviceInfo info_;
  const MakeStream make_stream_;
  const OnTile on_tile_;
  const OnPrepare on_prepare_;
};

}  // namespace seqpar

#endif  // SEQPAR_TESTS_COMMON_ATTENTION_KERNEL_HOOKS_H_
