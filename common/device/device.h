// One device: memory, streams and the kernels that the layers are written with. Implementations:
// worker/device/cpu and, loaded at run time, worker/device/cuda.
//
// Every kernel is enqueued on a stream and reads and writes device memory that must stay valid until it has
// happened. Shapes are checked (CHECK: a wrong shape is our bug). Storage types are float32 or bfloat16;
// arithmetic inside a kernel is float32, rounded once on storing, but for attention of bfloat16 on tensor
// cores, which rounds probabilities and their gradients to bfloat16 before it multiplies by them. All kernels
// give the same bits from run to run; on a GPU that was not asked to be deterministic all but attention's
// backward pass.
//
// Activations are matrices, row major: row = token * batch + batch index ("sequence first", so that a range
// of tokens is one block of memory), columns = features; heads lie side by side in the columns, head_dim
// each.
#ifndef SEQPAR_COMMON_DEVICE_DEVICE_H_
#define SEQPAR_COMMON_DEVICE_DEVICE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/device/stream.h"
#include "common/parallel/head_layout.h"
#include "common/parallel/mask.h"
#include "common/tensor/dtype.h"

namespace seqpar {

// A row-major matrix in device memory that somebody else owns. ld >= cols, in elements. rows or cols may be
// 0.
struct Matrix {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t ld = 0;

  Matrix() = default;
  Matrix(void* d, DType t, int64_t r, int64_t c) : data(d), dtype(t), rows(r), cols(c), ld(c) {}
  Matrix(void* d, DType t, int64_t r, int64_t c, int64_t l) : data(d), dtype(t), rows(r), cols(c), ld(l) {}
  char* At(int64_t row, int64_t col) const {
    return static_cast<char*>(data) + (row * ld + col) * SizeOf(dtype);
  }
  Matrix Rows(int64_t begin, int64_t end) const { return Matrix(At(begin, 0), dtype, end - begin, cols, ld); }
  Matrix Cols(int64_t begin, int64_t end) const { return Matrix(At(0, begin), dtype, rows, end - begin, ld); }
  bool contiguous() const { return ld == cols; }
  int64_t bytes() const { return rows * cols * SizeOf(dtype); }  // of the elements, not of the gaps
  bool empty() const { return rows == 0 || cols == 0; }
};

class Device;

// Device memory, freed (returned to the device's accounting) on destruction. Movable. Must not outlive its
// device. The owner makes sure that no enqueued operation still uses it.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device* device, void* data, int64_t bytes) : device_(device), data_(data), bytes_(bytes) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();
  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  Device* device_ = nullptr;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

enum class NormKind { kNone, kLayerNorm, kRmsNorm };
enum class MlpKind { kNone, kGelu, kGeluTanh, kSwiglu };

// One tile of attention: every query of q against every key of k that its index range allows, for local
// heads. Local query head i is global head heads.q_begin + i and uses local KV head (heads.q_begin + i) /
// group - heads.kv_begin.
struct AttentionTile {
  int64_t batch = 1;
  HeadRange heads;
  int group = 1;
  int head_dim = 0;
  float scale = 1;      // 1 / sqrt(head_dim); applied to q . k
  int64_t queries = 0;  // tokens; q has queries * batch rows
  int64_t keys = 0;     // tokens; k and v have keys * batch rows
  // Index range of keys for each query (see KeyRanges). Must stay valid until the kernel has happened.
  std::shared_ptr<const KeyRanges> ranges;
  // What the ranges came from, for backends that derive masks themselves.
  const Mask* mask = nullptr;
  TokenShare query_positions, key_positions;

  Matrix q;  // [queries * batch, q_heads * head_dim]
  Matrix k;  // [keys * batch, kv_heads * head_dim]
  Matrix v;  // [keys * batch, kv_heads * head_dim]
};

struct DeviceInfo {
  std::string kind;    // of device_models.h
  std::string name;    // processor or GPU name
  std::string kernel;  // the attention kernel in use, e.g. "avx2", "scalar"
  int threads = 1;
  int64_t memory_bytes = 0;  // what this device may use
};

// What attention has run on so far.
struct AttentionUse {
  std::string kernel;         // of several, joined by +
  bool deterministic = true;  // the same bits from run to run
  // What a library had to make for a shape before it could compute it, and how long that took the host: by
  // PrepareAttention, and by calls that found nothing made, which waited for it.
  int64_t made_ahead = 0, made_late = 0;
  double ahead_seconds = 0, late_seconds = 0;
};

struct MemoryUse {
  int64_t used_bytes = 0;
  int64_t peak_bytes = 0;
};

// Thread-safe for allocation and stream creation; kernels on one stream from one thread at a time.
class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  virtual AttentionUse attention_use() const { return {info().kernel, true}; }

  // RESOURCE_EXHAUSTED (reason OUT_OF_MEMORY, with what was asked, used and allowed) past the limit. 64-byte
  // aligned. Contents undefined. `what` names the use in errors.
  virtual absl::StatusOr<Buffer> Allocate(int64_t bytes, const char* what) = 0;
  virtual MemoryUse memory() const = 0;
  // Grows while kernels run, also inside a long one: what tells a slow device from a stuck one. From any
  // thread.
  virtual int64_t work_done() const = 0;
  virtual void ResetPeak() = 0;
  virtual std::unique_ptr<Stream> CreateStream(const std::string& name) = 0;

  // --- movement ---
  virtual void CopyFromHost(Stream& s, const void* from, void* to,
                            int64_t bytes) = 0;  // `from` valid until happened
  virtual void CopyToHost(Stream& s, const void* from, void* to, int64_t bytes) = 0;
  virtual void Zero(Stream& s, void* to, int64_t bytes) = 0;
  // Same shape, any strides and dtypes; converts. Regions do not overlap.
  virtual void Copy(Stream& s, const Matrix& from, const Matrix& to) = 0;

  // --- arithmetic, elementwise ---
  // to = a + b (any dtypes, same shape; `to` may be a or b).
  virtual void Add(Stream& s, const Matrix& a, const Matrix& b, const Matrix& to) = 0;
  // to = sum of terms in order, in float32, rounded once. All the same shape; `to` may be one of the terms.
  virtual void SumInOrder(Stream& s, const std::vector<Matrix>& terms, const Matrix& to) = 0;
  // sums[0, cols) += column sums of x; float32.
  virtual void AddColumnSums(Stream& s, const Matrix& x, float* sums) = 0;

  // --- products ---
  // c = op(a) op(b) [+ c if accumulate] [+ bias over columns, same dtype as c's weights, may be null]. op
  // transposes where the flag says so. c float32 or the storage type; a and b of one dtype. [m, k] x [k, n]
  // -> [m, n].
  virtual void Gemm(Stream& s, const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b,
                    const Matrix& c, bool accumulate, const Matrix* bias) = 0;
  // c = op(a) op(b) + addend, of c's type and shape and in other memory. A device that cannot add while it
  // multiplies rounds the product first.
  virtual void GemmPlus(Stream& s, const Matrix& a, bool transpose_a, const Matrix& b, bool transpose_b,
                        const Matrix& addend, const Matrix& c) {
    Gemm(s, a, transpose_a, b, transpose_b, c, false, nullptr);
    Add(s, addend, c, c);
  }

  // --- norms; weight and bias are [1, cols] of the storage type, bias null for RMSNorm ---
  // y = norm(x). stats: float32 [rows, 2] = (mean, 1 / deviation); mean is 0 for RMSNorm.
  virtual void NormForward(Stream& s, NormKind kind, const Matrix& x, const Matrix& weight,
                           const Matrix* bias, float eps, const Matrix& y, float* stats) = 0;
  // dx = gradient through the norm [+ residual if given: the gradient that went around it]; dweight[cols] and
  // dbias[cols] (null for RMSNorm) are added to, float32. dx may be dy, x or the residual.
  virtual void NormBackward(Stream& s, NormKind kind, const Matrix& x, const Matrix& weight,
                            const float* stats, const Matrix& dy, const Matrix* residual, const Matrix& dx,
                            float* dweight, float* dbias) = 0;

  // --- activations: y = gelu(up), gelu_tanh(up), or silu(gate) * up; gate is null unless kSwiglu ---
  virtual void ActivationForward(Stream& s, MlpKind kind, const Matrix* gate, const Matrix& up,
                                 const Matrix& y) = 0;
  // dup (and dgate) from dy, and y again where it is not null. They may be the same memory as up (and gate),
  // y as dy.
  virtual void ActivationBackward(Stream& s, MlpKind kind, const Matrix* gate, const Matrix& up,
                                  const Matrix& dy, const Matrix* dgate, const Matrix& dup,
                                  const Matrix* y) = 0;

  // --- rotary embedding (rotate_half), in place on x [tokens * batch, heads * head_dim]; table: device
  // float32 [tokens, head_dim]: cosines of the head_dim / 2 angles, then sines. inverse rotates back (for
  // gradients). head_dim is even. ---
  virtual void Rotary(Stream& s, const Matrix& x, int64_t batch, int head_dim, const float* table,
                      bool inverse) = 0;

  // --- attention ---
  // Makes now what AttentionForward, or where `backward` AttentionBackward, of such a tile would make when a
  // first one comes, up to a bound of the device's own: what is left is made then. Of q, k and v only types,
  // shapes and strides are looked at, their data may be null; dout's are q's. Work of the host alone:
  // nothing is enqueued. From the thread that enqueues kernels.
  virtual void PrepareAttention(const AttentionTile& tile, bool backward) = 0;
  // Partial attention of the tile, merged into out float32 [queries * batch, q_heads * head_dim] and lse
  // float32 [queries * batch, q_heads] (natural log-sum-exp of the scaled scores; -inf where no key was seen,
  // and then out is 0). first: out and lse hold nothing yet and are overwritten. Merging never exponentiates
  // a positive difference.
  virtual void AttentionForward(Stream& s, const AttentionTile& tile, const Matrix& out, const Matrix& lse,
                                bool first) = 0;
  // delta float32 [queries * batch, q_heads] = for each head sum over head_dim of dout * out.
  virtual void AttentionDelta(Stream& s, int head_dim, const Matrix& dout, const Matrix& out,
                              const Matrix& delta) = 0;
  // Adds to dq float32 [as q], dk, dv float32 [as k, v]. dout has the storage type; lse and delta as above,
  // of all keys of the query, not only of this tile. KV heads shared by several query heads are summed.
  virtual void AttentionBackward(Stream& s, const AttentionTile& tile, const Matrix& dout, const Matrix& lse,
                                 const Matrix& delta, const Matrix& dq, const Matrix& dk,
                                 const Matrix& dv) = 0;
  // The same for a tile that is all there is of its queries' attention and of its keys' gradients: nothing is
  // merged or added, and results have any type, rounded once. `sum`, and the matrices of `sums`: memory to
  // compute in, float32 without gaps, of the shape of what they are the sums of; a result of float32 is its
  // own sum. dkv is [keys * batch, 2 * kv_heads * head_dim], gradients of keys beside those of values. dq may
  // lie over q, and dkv over the matrix that k and v are halves of.
  struct AttentionGradients {
    Matrix dq, dkv;
  };
  virtual void WholeAttentionForward(Stream& s, const AttentionTile& tile, const Matrix& out,
                                     const Matrix& lse, const Matrix& sum);
  virtual void WholeAttentionBackward(Stream& s, const AttentionTile& tile, const Matrix& dout,
                                      const Matrix& lse, const Matrix& delta, const AttentionGradients& to,
                                      const AttentionGradients& sums);

 private:
  friend class Buffer;
  virtual void Free(void* data, int64_t bytes) = 0;
};

inline void Device::WholeAttentionForward(Stream& s, const AttentionTile& tile, const Matrix& out,
                                          const Matrix& lse, const Matrix& sum) {
  AttentionForward(s, tile, sum, lse, /*first=*/true);
  if (sum.data != out.data) Copy(s, sum, out);
}
inline void Device::WholeAttentionBackward(Stream& s, const AttentionTile& tile, const Matrix& dout,
                                           const Matrix& lse, const Matrix& delta,
                                           const AttentionGradients& to, const AttentionGradients& sums) {
  const Matrix &dq = sums.dq, &dkv = sums.dkv;
  Zero(s, dq.data, dq.bytes());
  Zero(s, dkv.data, dkv.bytes());
  AttentionBackward(s, tile, dout, lse, delta, dq, dkv.Cols(0, dkv.cols / 2),
                    dkv.Cols(dkv.cols / 2, dkv.cols));
  if (dq.data != to.dq.data) Copy(s, dq, to.dq);
  if (dkv.data != to.dkv.data) Copy(s, dkv, to.dkv);
}

inline Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    if (data_) device_->Free(data_, bytes_);
    device_ = other.device_;
    data_ = other.data_;
    bytes_ = other.bytes_;
    other.data_ = nullptr;
    other.bytes_ = 0;
  }
  return *this;
}
inline Buffer::~Buffer() {
  if (data_) device_->Free(data_, bytes_);
}

}  // namespace seqpar

#endif  // SEQPAR_COMMON_DEVICE_DEVICE_H_
