// Parts of tensors, read from files or made from a seed: a part of a tensor is the same whoever reads it.
#ifndef SEQPAR_WORKER_EXECUTOR_TENSOR_READER_H_
#define SEQPAR_WORKER_EXECUTOR_TENSOR_READER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/fd.h"
#include "common/device/device.h"
#include "common/job/tensors.h"
#include "common/parallel/mask.h"
#include "common/tensor/checkpoint.h"

namespace seqpar {

// A tensor seen as a matrix: the last dimension is the columns, all others together the rows. A vector of n
// elements is n rows of one column, so that biases are cut by rows as the matrices of their layers are.
struct MatrixShape {
  int64_t rows = 0;
  int64_t cols = 0;
};
MatrixShape MatrixShapeOf(const std::vector<int64_t>& shape);

// Rows rows.begin, rows.begin + row_stride, ... below rows.end, and of each the columns [cols.begin,
// cols.end).
struct TensorBlock {
  IndexRange rows;
  int64_t row_stride = 1;
  IndexRange cols;
  int64_t row_count() const {
    return rows.end <= rows.begin ? 0 : (rows.end - rows.begin + row_stride - 1) / row_stride;
  }
};

// One thread at a time.
class TensorReader {
 public:
  virtual ~TensorReader() = default;
  // Fills out (host memory: block.row_count() rows, rows of the block's columns one after the other) with
  // elements of `dtype`, each rounded once. `tensor` says name and shape, and what its seeded values are.
  virtual absl::Status Read(const WeightInfo& tensor, const TensorBlock& block, DType dtype, void* out) = 0;
};

// From the file or folder at `path`; only the block's bytes are read. Errors: as Checkpoint::Open; NOT_FOUND
// or INVALID_ARGUMENT by name for a tensor that is missing or has another shape; STORAGE errors of pread.
absl::StatusOr<std::unique_ptr<TensorReader>> OpenTensorReader(const std::string& path,
                                                               const FileOpener& open = OpenAnyFile);

// Seeded values (common/tensor/seeded.h): uniform with the tensor's variance, or its constant.
std::unique_ptr<TensorReader> MakeSeededReader(uint64_t seed);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_TENSOR_READER_H_
