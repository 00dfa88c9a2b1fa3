// Launchers of the CUDA kernels: what the device enqueues, in plain types, so that the .cu files need neither
// Abseil nor the interfaces above them.
//
// Every launcher enqueues on `stream` and returns the launch's error. Shapes were checked by the caller.
// Arithmetic is float32, rounded once on storing. All kernels give the same bits from run to run: no atomics.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_KERNELS_H_
#define SEQPAR_WORKER_DEVICE_CUDA_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace seqpar::cuda {

enum class Type : int32_t { kF32, kBF16 };

// A row-major matrix in device memory; ld in elements.
struct View {
  void* data;
  Type type;
  int64_t rows, cols, ld;
};

enum class Activation : int32_t { kGelu, kGeluTanh, kSwiglu };

// Terms of a sum that one launch takes.
inline constexpr int kSumTermsMax = 512;

cudaError_t Copy(cudaStream_t stream, const View& from, const View& to);
// to = sum of terms in order. REQUIRES: 1 <= count <= kSumTermsMax.
cudaError_t SumInOrder(cudaStream_t stream, const View* terms, int count, const View& to);
// sums[cols] += column sums of x, float32. `partial`: scratch of CudaColumnSumScratchBytes(x.rows, x.cols).
cudaError_t AddColumnSums(cudaStream_t stream, const View& x, float* partial, float* sums);

// Every row of `to` += row [1, cols].
cudaError_t AddRow(cudaStream_t stream, const View& row, const View& to);

// Pieces of memory copied by one launch; the two lists have the same total length.
struct Piece {
  char* data;
  int64_t bytes;
};
cudaError_t CopyPieces(cudaStream_t stream, const Piece* from, int from_count, const Piece* to, int to_count);

// stats [rows, 2] = (mean or 0, 1 / deviation). bias may be null.
cudaError_t NormForward(cudaStream_t stream, bool layer_norm, const View& x, const View& weight,
                        const View* bias, float eps, const View& y, float* stats);
// dx = gradient [+ residual]; dweight and dbias (may be null) are added to. `partial`: scratch of
// CudaNormScratchBytes(rows, cols).
cudaError_t NormBackward(cudaStream_t stream, bool layer_norm, const View& x, const View& weight,
                         const float* stats, const View& dy, const View* residual, const View& dx,
                         float* partial, float* dweight, float* dbias);

// gate and dgate are null unless kSwiglu, y of the backward pass where it is not wanted.
cudaError_t ActivationForward(cudaStream_t stream, Activation kind, const View* gate, const View& up,
                              const View& y);
cudaError_t ActivationBackward(cudaStream_t stream, Activation kind, const View* gate, const View& up,
                               const View& dy, const View* dgate, const View& dup, const View* y);

cudaError_t Rotary(cudaStream_t stream, const View& x, int64_t batch, int head_dim, const float* table,
                   bool inverse);

// One tile of attention as common/device/device.h describes it. Rows of every matrix are token * batch +
// batch index. lo and hi: device memory, one a query, neither descends.
struct Tile {
  int64_t batch, queries, keys;
  int q_heads, kv_heads, head_dim;
  int first_q_head, first_kv_head,
      group;  // local query head i uses local KV head (first_q_head + i) / group - first_kv_head
  float scale;
  const int32_t *lo, *hi;
  View q, k, v;
};
// Head dimensions up to this are served.
inline constexpr int kHeadDimMax = 256;
// True float32 (no TF32) on any architecture, for both storage types: the reference of all other kernels.
cudaError_t AttentionForward(cudaStream_t stream, const Tile& tile, const View& out, const View& lse,
                             bool first);
cudaError_t AttentionDelta(cudaStream_t stream, int head_dim, const View& dout, const View& out,
                           const View& delta);
cudaError_t AttentionBackward(cudaStream_t stream, const Tile& tile, const View& dout, const View& lse,
                              const View& delta, const View& dq, const View& dk, const View& dv);

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_KERNELS_H_
