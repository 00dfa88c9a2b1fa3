// Between files and device memory, in pieces of a few MiB.
#ifndef SEQPAR_WORKER_EXECUTOR_TRANSFER_H_
#define SEQPAR_WORKER_EXECUTOR_TRANSFER_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/device/device.h"
#include "common/parallel/token_layout.h"
#include "worker/executor/staging_file.h"
#include "worker/executor/tensor_reader.h"

namespace seqpar {

// Moves blocks of tensors. One thread; every call returns when it has happened. `on_piece` is called after
// each piece.
class Transfers {
 public:
  Transfers(Device* device, Stream* stream, std::function<void()> on_piece)
      : device_(device), stream_(stream), on_piece_(std::move(on_piece)) {}

  // to: the block's rows and columns, any ld, float32 or bfloat16.
  absl::Status Load(TensorReader* reader, const WeightInfo& tensor, const TensorBlock& block,
                    const Matrix& to);
  // from: as `to`, of the tensor's type in the file.
  absl::Status Store(const Matrix& from, StagingFile* file, const std::string& tensor,
                     const TensorBlock& block);

  // The rows of a [batch, tokens, hidden] tensor at the positions of `share`; the matrix has rows token *
  // batch + batch index.
  absl::Status LoadTokens(TensorReader* reader, const WeightInfo& tensor, const TokenShare& share,
                          const Matrix& to);
  absl::Status StoreTokens(const Matrix& from, const TokenShare& share, StagingFile* file,
                           const WeightInfo& tensor);

 private:
  Device* const device_;
  Stream* const stream_;
  const std::function<void()> on_piece_;
  std::vector<char> host_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_TRANSFER_H_
