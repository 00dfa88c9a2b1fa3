#include "worker/executor/transfer.h"

#include <algorithm>

#include "common/base/check.h"
#include "common/base/failpoints.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr int64_t kPieceBytes = 4 << 20;

// Calls use(block of at most kPieceBytes, the matrix's rows for it).
template <typename Use>
absl::Status ForEachPiece(const TensorBlock& block, const Matrix& matrix, Use use) {
  SEQPAR_CHECK(matrix.rows == block.row_count() && matrix.cols == block.cols.size());
  if (matrix.empty()) return absl::OkStatus();
  const int64_t at_once = std::max<int64_t>(1, kPieceBytes / (matrix.cols * SizeOf(matrix.dtype)));
  for (int64_t begin = 0; begin < matrix.rows; begin += at_once) {
    const int64_t end = std::min(matrix.rows, begin + at_once);
    TensorBlock piece = block;
    piece.rows.begin = block.rows.begin + begin * block.row_stride;
    piece.rows.end = std::min(block.rows.end, block.rows.begin + end * block.row_stride);
    SEQPAR_RETURN_IF_ERROR(use(piece, matrix.Rows(begin, end)));
  }
  return absl::OkStatus();
}

// Calls use(block, the matrix's rows for it) for every run of tokens of one batch row.
template <typename Use>
absl::Status ForEachTokenBlock(const WeightInfo& tensor, const TokenShare& share, const Matrix& matrix,
                               Use use) {
  SEQPAR_CHECK(tensor.shape.size() == 3);
  const int64_t batch = tensor.shape[0], tokens = tensor.shape[1];
  for (int64_t index = 0; index < batch; ++index) {
    int64_t first = 0;
    for (const Segment& segment : share.segments()) {
      const TensorBlock block{{index * tokens + segment.begin, index * tokens + segment.end},
                              segment.stride,
                              {0, tensor.shape[2]}};
      const Matrix rows(matrix.At(first * batch + index, 0), matrix.dtype, segment.size(), matrix.cols,
                        matrix.ld * batch);
      SEQPAR_RETURN_IF_ERROR(use(block, rows));
      first += segment.size();
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Transfers::Load(TensorReader* reader, const WeightInfo& tensor, const TensorBlock& block,
                             const Matrix& to) {
  return ForEachPiece(block, to, [&](const TensorBlock& piece, const Matrix& rows) {
    host_.resize(static_cast<size_t>(rows.bytes()));
    SEQPAR_RETURN_IF_ERROR(Failpoint("executor.shard.read"));
    SEQPAR_RETURN_IF_ERROR(reader->Read(tensor, piece, to.dtype, host_.data()));
    const int64_t row_bytes = rows.cols * SizeOf(rows.dtype);
    if (rows.contiguous()) {
      device_->CopyFromHost(*stream_, host_.data(), rows.data, rows.bytes());
    } else {
      for (int64_t row = 0; row < rows.rows; ++row) {
        device_->CopyFromHost(*stream_, host_.data() + row * row_bytes, rows.At(row, 0), row_bytes);
      }
    }
    SEQPAR_RETURN_IF_ERROR(stream_->Synchronize());
    on_piece_();
    return absl::OkStatus();
  });
}

absl::Status Transfers::Store(const Matrix& from, StagingFile* file, const std::string& tensor,
                              const TensorBlock& block) {
  return ForEachPiece(block, from, [&](const TensorBlock& piece, const Matrix& rows) {
    host_.resize(static_cast<size_t>(rows.bytes()));
    const int64_t row_bytes = rows.cols * SizeOf(rows.dtype);
    if (rows.contiguous()) {
      device_->CopyToHost(*stream_, rows.data, host_.data(), rows.bytes());
    } else {
      for (int64_t row = 0; row < rows.rows; ++row) {
        device_->CopyToHost(*stream_, rows.At(row, 0), host_.data() + row * row_bytes, row_bytes);
      }
    }
    SEQPAR_RETURN_IF_ERROR(stream_->Synchronize());
    SEQPAR_RETURN_IF_ERROR(file->Write(tensor, piece, host_.data()));
    on_piece_();
    return absl::OkStatus();
  });
}

absl::Status Transfers::LoadTokens(TensorReader* reader, const WeightInfo& tensor, const TokenShare& share,
                                   const Matrix& to) {
  return ForEachTokenBlock(tensor, share, to, [&](const TensorBlock& block, const Matrix& rows) {
    return Load(reader, tensor, block, rows);
  });
}

absl::Status Transfers::StoreTokens(const Matrix& from, const TokenShare& share, StagingFile* file,
                                    const WeightInfo& tensor) {
  return ForEachTokenBlock(tensor, share, from, [&](const TensorBlock& block, const Matrix& rows) {
    return Store(rows, file, tensor.name, block);
  });
}

}  // namespace seqpar
