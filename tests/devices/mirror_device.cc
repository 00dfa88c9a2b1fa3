#include "tests/devices/mirror_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <list>
#include <mutex>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "common/device/host_stream.h"

namespace seqpar {
namespace {

// The copies of one call's operands on the device.
class Call {
 public:
  Call(Device* device, Stream* stream) : device_(device), stream_(stream) {}

  float* Floats(const float* host, int64_t count) {
    if (host == nullptr) return nullptr;
    return static_cast<float*>(Of(Matrix(const_cast<float*>(host), DType::kF32, 1, count)).data);
  }
  // Operands that lie within another's memory (in place, or parts of one matrix) share its copy.
  Matrix Of(const Matrix& m) {
    if (m.empty()) return m;
    char* const begin = static_cast<char*>(m.data);
    const int64_t bytes = ((m.rows - 1) * m.ld + m.cols) * SizeOf(m.dtype);
    for (const Copy& copy : copies_) {
      if (begin >= copy.host && begin + bytes <= copy.host + copy.bytes) {
        return Add(m, static_cast<char*>(copy.buffer.data()) + (begin - copy.host));
      }
    }
    auto buffer = device_->Allocate(bytes, "test");
    SEQPAR_CHECK(buffer.ok());
    copies_.push_back({begin, bytes, std::move(buffer).value()});
    device_->CopyFromHost(*stream_, begin, copies_.back().buffer.data(), bytes);
    return Add(m, copies_.back().buffer.data());
  }
  const Matrix* Of(const Matrix* m) {
    if (m == nullptr) return nullptr;
    matrices_.push_back(Of(*m));
    return &matrices_.back();
  }
  AttentionTile Of(const AttentionTile& tile) {
    AttentionTile t = tile;
    t.q = Of(tile.q), t.k = Of(tile.k), t.v = Of(tile.v);
    return t;
  }

  // Brings the elements of every operand back, and no others: between the rows lie other matrices.
  absl::Status Finish() {
    std::vector<std::vector<char>> rows;
    for (const View& view : views_) {
      rows.emplace_back(((view.host.rows - 1) * view.host.ld + view.host.cols) * SizeOf(view.host.dtype));
      device_->CopyToHost(*stream_, view.copy, rows.back().data(), static_cast<int64_t>(rows.back().size()));
    }
    const absl::Status status = stream_->Synchronize();
    for (size_t i = 0; i < views_.size(); ++i) {
      const Matrix& to = views_[i].host;
      for (int64_t row = 0; row < to.rows; ++row) {
        std::memcpy(to.At(row, 0), rows[i].data() + row * to.ld * SizeOf(to.dtype),
                    to.cols * SizeOf(to.dtype));
      }
    }
    return status;
  }

 private:
  struct Copy {
    char* host;
    int64_t bytes;
    Buffer buffer;
  };
  struct View {
    Matrix host;
    const void* copy;
  };
  Matrix Add(const Matrix& m, void* copy) {
    views_.push_back({m, copy});
    return Matrix(copy, m.dtype, m.rows, m.cols, m.ld);
  }

  Device* const device_;
  Stream* const stream_;
  std::list<Copy> copies_;
  std::vector<View> views_;
  std::list<Matrix> matrices_;
};

class MirrorDevice : public Device {
 public:
  MirrorDevice(std::shared_ptr<Device> device, const std::string& kernel)
      : device_(std::move(device)), inner_(device_->CreateStream("mirror")), info_(device_->info()) {
    info_.kernel = kernel;
  }

  const DeviceInfo& info() const override { return info_; }
  AttentionUse attention_use() const override { return device_->attention_use(); }
  absl::StatusOr<Buffer> Allocate(int64_t bytes, const char* what) override {
    if (bytes == 0) return Buffer();
    std::lock_guard<std::mutex> lock(mutex_);
    use_.used_bytes += bytes;
    use_.peak_bytes = std::max(use_.peak_bytes, use_.used_bytes);
    return Buffer(this, std::aligned_alloc(64, (bytes + 63) / 64 * 64), bytes);
  }
  MemoryUse memory() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return use_;
  }
  int64_t work_done() const override { return device_->work_done(); }
  void ResetPeak() override {
    std::lock_guard<std::mutex> lock(mutex_);
    use_.peak_bytes = use_.used_bytes;
  }
  std::unique_ptr<Stream> CreateStream(const std::string& name) override { return MakeHostStream(name); }

  void CopyFromHost(Stream& s, const void* from, void* to, int64_t bytes) override {
    HostCopy(s, from, to, bytes);
  }
  void CopyToHost(Stream& s, const void* from, void* to, int64_t bytes) override {
    HostCopy(s, from, to, bytes);
  }
  void Zero(Stream& s, void* to, int64_t bytes) override {
    s.HostFunction([=] {
      std::memset(to, 0, bytes);
      return absl::OkStatus();
    });
  }

  void Copy(Stream& s, const Matrix& from, const Matrix& to) override {
    On(s, [=, this](Call& c) {
      const Matrix target = c.Of(to);
      device_->Copy(*inner_, c.Of(from), target);
    });
  }
  void Add(Stream& s, const Matrix& a, const Matrix& b, const Matrix& to) override {
    On(s, [=, this](Call& c) {
      const Matrix target = c.Of(to);
      device_->Add(*inner_, c.Of(a), c.Of(b), target);
    });
  }
  void SumInOrder(Stream& s, const std::vector<Matrix>& terms, const Matrix& to) override {
    On(s, [=, this](Call& c) {
      const Matrix target = c.Of(to);
      std::vector<Matrix> copies;
      for (const Matrix& term : terms) copies.push_back(c.Of(term));
      device_->SumInOrder(*inner_, copies, target);
    });
  }
  void AddColumnSums(Stream& s, const Matrix& x, float* sums) override {
    On(s, [=, this](Call& c) { device_->AddColumnSums(*inner_, c.Of(x), c.Floats(sums, x.cols)); });
  }
  void Gemm(Stream& s, const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b, const Matrix& to,
            bool accumulate, const Matrix* bias) override {
    On(s, [=, this, row = Keep(bias)](Call& c) {
      device_->Gemm(*inner_, c.Of(a), transpose_a, c.Of(b), transpose_b, c.Of(to), accumulate,
                    c.Of(row.get()));
    });
  }
  void GemmPlus(Stream& s, const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b,
                const Matrix& addend, const Matrix& to) override {
    On(s, [=, this](Call& c) {
      device_->GemmPlus(*inner_, c.Of(a), transpose_a, c.Of(b), transpose_b, c.Of(addend), c.Of(to));
    });
  }
  void NormForward(Stream& s, NormKind kind, const Matrix& x, const Matrix& weight, const Matrix* bias,
                   float eps, const Matrix& y, float* stats) override {
    On(s, [=, this, row = Keep(bias)](Call& c) {
      device_->NormForward(*inner_, kind, c.Of(x), c.Of(weight), c.Of(row.get()), eps, c.Of(y),
                           c.Floats(stats, 2 * x.rows));
    });
  }
  void NormBackward(Stream& s, NormKind kind, const Matrix& x, const Matrix& weight, const float* stats,
                    const Matrix& dy, const Matrix* residual, const Matrix& dx, float* dweight,
                    float* dbias) override {
    On(s, [=, this, around = Keep(residual)](Call& c) {
      const Matrix target = c.Of(dx);
      device_->NormBackward(*inner_, kind, c.Of(x), c.Of(weight), c.Floats(stats, 2 * x.rows), c.Of(dy),
                            c.Of(around.get()), target, c.Floats(dweight, x.cols), c.Floats(dbias, x.cols));
    });
  }
  void ActivationForward(Stream& s, MlpKind kind, const Matrix* gate, const Matrix& up,
                         const Matrix& y) override {
    On(s, [=, this, gates = Keep(gate)](Call& c) {
      device_->ActivationForward(*inner_, kind, c.Of(gates.get()), c.Of(up), c.Of(y));
    });
  }
  void ActivationBackward(Stream& s, MlpKind kind, const Matrix* gate, const Matrix& up, const Matrix& dy,
                          const Matrix* dgate, const Matrix& dup, const Matrix* y) override {
    On(s, [=, this, gates = Keep(gate), dgates = Keep(dgate), ys = Keep(y)](Call& c) {
      const Matrix u = c.Of(up);
      const Matrix* g = c.Of(gates.get());
      device_->ActivationBackward(*inner_, kind, g, u, c.Of(dy), c.Of(dgates.get()), c.Of(dup),
                                  c.Of(ys.get()));
    });
  }
  void Rotary(Stream& s, const Matrix& x, int64_t batch, int head_dim, const float* table,
              bool inverse) override {
    On(s, [=, this](Call& c) {
      device_->Rotary(*inner_, c.Of(x), batch, head_dim, c.Floats(table, x.rows / batch * head_dim), inverse);
    });
  }
  void PrepareAttention(const AttentionTile& tile, bool backward) override {
    std::lock_guard<std::mutex> lock(OneAtATime());
    device_->PrepareAttention(tile, backward);
  }
  void AttentionForward(Stream& s, const AttentionTile& tile, const Matrix& out, const Matrix& lse,
                        bool first) override {
    On(s,
       [=, this](Call& c) { device_->AttentionForward(*inner_, c.Of(tile), c.Of(out), c.Of(lse), first); });
  }
  void AttentionDelta(Stream& s, int head_dim, const Matrix& dout, const Matrix& out,
                      const Matrix& delta) override {
    On(s, [=, this](Call& c) {
      device_->AttentionDelta(*inner_, head_dim, c.Of(dout), c.Of(out), c.Of(delta));
    });
  }
  void AttentionBackward(Stream& s, const AttentionTile& tile, const Matrix& dout, const Matrix& lse,
                         const Matrix& delta, const Matrix& dq, const Matrix& dk, const Matrix& dv) override {
    On(s, [=, this](Call& c) {
      device_->AttentionBackward(*inner_, c.Of(tile), c.Of(dout), c.Of(lse), c.Of(delta), c.Of(dq), c.Of(dk),
                                 c.Of(dv));
    });
  }
  void WholeAttentionForward(Stream& s, const AttentionTile& tile, const Matrix& out, const Matrix& lse,
                             const Matrix& sum) override {
    On(s, [=, this](Call& c) {
      device_->WholeAttentionForward(*inner_, c.Of(tile), c.Of(out), c.Of(lse), c.Of(sum));
    });
  }
  void WholeAttentionBackward(Stream& s, const AttentionTile& tile, const Matrix& dout, const Matrix& lse,
                              const Matrix& delta, const AttentionGradients& to,
                              const AttentionGradients& sums) override {
    On(s, [=, this](Call& c) {
      const AttentionGradients target{c.Of(to.dq), c.Of(to.dkv)};  // k and v may lie there
      device_->WholeAttentionBackward(*inner_, c.Of(tile), c.Of(dout), c.Of(lse), c.Of(delta), target,
                                      {c.Of(sums.dq), c.Of(sums.dkv)});
    });
  }

 private:
  void Free(void* data, int64_t bytes) override {
    std::lock_guard<std::mutex> lock(mutex_);
    use_.used_bytes -= bytes;
    std::free(data);
  }
  static std::shared_ptr<const Matrix> Keep(const Matrix* m) {
    return m == nullptr ? nullptr : std::make_shared<const Matrix>(*m);
  }
  static void HostCopy(Stream& s, const void* from, void* to, int64_t bytes) {
    s.HostFunction([=] {
      std::memcpy(to, from, bytes);
      return absl::OkStatus();
    });
  }
  // Several mirrors may share a device, which takes calls from one thread at a time: of whatever kind, so
  // this is no part of the template.
  static std::mutex& OneAtATime() {
    static std::mutex mutex;
    return mutex;
  }
  template <typename Fn>
  void On(Stream& s, Fn fn) {
    s.HostFunction([this, fn = std::move(fn)]() -> absl::Status {
      std::lock_guard<std::mutex> lock(OneAtATime());
      Call call(device_.get(), inner_.get());
      fn(call);
      return call.Finish();
    });
  }

  const std::shared_ptr<Device> device_;
  const std::unique_ptr<Stream> inner_;
  DeviceInfo info_;
  mutable std::mutex mutex_;
  MemoryUse use_;  // under mutex_
};

}  // namespace

std::unique_ptr<Device> MakeMirrorDevice(std::shared_ptr<Device> device, const std::string& kernel) {
  return std::make_unique<MirrorDevice>(std::move(device), kernel);
}

}  // namespace seqpar
