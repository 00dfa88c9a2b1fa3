#include "worker/executor/tensor_reader.h"

#include <fcntl.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/tensor/seeded.h"

namespace seqpar {
namespace {

constexpr int64_t kReadBytes = 4 << 20;  // converted at once

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) absl::StrAppend(&text, i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

// Calls run(first flat index, elements, elements already done) for each run of consecutive elements of the
// block.
template <typename Run>
absl::Status ForEachRun(const MatrixShape& shape, const TensorBlock& block, Run run) {
  const int64_t width = block.cols.size();
  if (width == 0) return absl::OkStatus();
  int64_t done = 0;
  if (width == shape.cols && block.row_stride == 1) {
    return run(block.rows.begin * shape.cols, block.row_count() * width, done);
  }
  for (int64_t row = block.rows.begin; row < block.rows.end; row += block.row_stride, done += width) {
    SEQPAR_RETURN_IF_ERROR(run(row * shape.cols + block.cols.begin, width, done));
  }
  return absl::OkStatus();
}

class FileReader : public TensorReader {
 public:
  FileReader(std::string path, Checkpoint checkpoint, FileOpener open)
      : path_(std::move(path)), checkpoint_(std::move(checkpoint)), open_(std::move(open)) {}

  absl::Status Read(const WeightInfo& tensor, const TensorBlock& block, DType dtype, void* out) override {
    const TensorLocation* location = checkpoint_.Find(tensor.name);
    if (location == nullptr) {
      return MakeError(absl::StatusCode::kNotFound, reason::kInputChanged,
                       absl::StrCat(path_, " has no tensor ", tensor.name));
    }
    if (location->info.shape != tensor.shape) {
      return MakeError(absl::StatusCode::kInvalidArgument, reason::kInputChanged,
                       absl::StrCat(path_, ": ", tensor.name, " is ", ShapeText(location->info.shape),
                                    ", not ", ShapeText(tensor.shape)));
    }
    SEQPAR_ASSIGN_OR_RETURN(const int fd, Descriptor(location->file));
    const DType stored = location->info.dtype;
    return ForEachRun(MatrixShapeOf(tensor.shape), block, [&](int64_t first, int64_t count, int64_t done) {
      char* to = static_cast<char*>(out) + done * SizeOf(dtype);
      const absl::Status read =
          ReadRun(fd, location->info.offset + first * SizeOf(stored), stored, count, dtype, to);
      return Annotate(read, absl::StrCat("reading ", tensor.name, " of ", location->file));
    });
  }

 private:
  absl::StatusOr<int> Descriptor(const std::string& file) {
    UniqueFd& fd = files_[file];
    if (!fd.valid()) {
      SEQPAR_ASSIGN_OR_RETURN(fd, open_(file, O_RDONLY));
    }
    return fd.get();
  }

  absl::Status ReadRun(int fd, int64_t offset, DType stored, int64_t count, DType dtype, char* to) {
    if (stored == dtype) return PreadAll(fd, to, count * SizeOf(stored), offset);
    const int64_t at_once = kReadBytes / SizeOf(stored);
    buffer_.resize(static_cast<size_t>(std::min(count, at_once) * SizeOf(stored)));
    for (int64_t begin = 0; begin < count; begin += at_once) {
      const int64_t n = std::min(at_once, count - begin);
      SEQPAR_RETURN_IF_ERROR(
          PreadAll(fd, buffer_.data(), n * SizeOf(stored), offset + begin * SizeOf(stored)));
      ConvertElements(buffer_.data(), stored, to + begin * SizeOf(dtype), dtype, n);
    }
    return absl::OkStatus();
  }

  const std::string path_;
  const Checkpoint checkpoint_;
  const FileOpener open_;
  std::map<std::string, UniqueFd> files_;
  std::vector<char> buffer_;
};

class SeededReader : public TensorReader {
 public:
  explicit SeededReader(uint64_t seed) : seed_(seed) {}

  absl::Status Read(const WeightInfo& tensor, const TensorBlock& block, DType dtype, void* out) override {
    return ForEachRun(MatrixShapeOf(tensor.shape), block, [&](int64_t first, int64_t count, int64_t done) {
      constexpr int64_t kAtOnce = 1 << 16;
      buffer_.resize(static_cast<size_t>(std::min(count, kAtOnce)));
      for (int64_t begin = 0; begin < count; begin += kAtOnce) {
        const int64_t n = std::min(kAtOnce, count - begin);
        if (tensor.seeded_variance > 0) {
          SeededUniform(seed_, tensor.name, tensor.seeded_variance, first + begin, n, buffer_.data());
        } else {
          std::fill_n(buffer_.begin(), n, tensor.seeded_constant);
        }
        char* to = static_cast<char*>(out) + (done + begin) * SizeOf(dtype);
        ConvertElements(buffer_.data(), DType::kF64, to, dtype, n);
      }
      return absl::OkStatus();
    });
  }

 private:
  const uint64_t seed_;
  std::vector<double> buffer_;
};

}  // namespace

MatrixShape MatrixShapeOf(const std::vector<int64_t>& shape) {
  MatrixShape matrix{1, 1};
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i + 1 < shape.size() || shape.size() == 1) {
      matrix.rows *= shape[i];
    } else {
      matrix.cols = shape[i];
    }
  }
  return matrix;
}

absl::StatusOr<std::unique_ptr<TensorReader>> OpenTensorReader(const std::string& path,
                                                               const FileOpener& open) {
  SEQPAR_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::Open(path, open));
  return std::unique_ptr<TensorReader>(new FileReader(path, std::move(checkpoint), open));
}

std::unique_ptr<TensorReader> MakeSeededReader(uint64_t seed) { return std::make_unique<SeededReader>(seed); }

}  // namespace seqpar
