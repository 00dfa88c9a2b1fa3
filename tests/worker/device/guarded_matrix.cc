#include "tests/worker/device/guarded_matrix.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>

#include "common/base/check.h"

namespace seqpar {
namespace {

constexpr uint32_t kGapF32 = 0x7fc5a5a5;  // a NaN
constexpr uint16_t kGapBF16 = 0x7fc5;     // a NaN

void Put(DType type, void* at, double value) {
  if (type == DType::kF32) {
    *static_cast<float*>(at) = static_cast<float>(value);
  } else {
    *static_cast<BF16*>(at) = ToBF16(static_cast<float>(value));
  }
}

void PutGap(DType type, void* at) {
  if (type == DType::kF32) {
    *static_cast<uint32_t*>(at) = kGapF32;
  } else {
    *static_cast<uint16_t*>(at) = kGapBF16;
  }
}

bool IsGap(DType type, const void* at) {
  return type == DType::kF32 ? *static_cast<const uint32_t*>(at) == kGapF32
                             : *static_cast<const uint16_t*>(at) == kGapBF16;
}

}  // namespace

GuardedMatrix::GuardedMatrix(DType type, int64_t rows, int64_t cols, int64_t gap, Guard guard,
                             const std::function<double(int64_t, int64_t)>& value) {
  const int64_t ld = cols + gap;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  // The last row has no gap: its end is the matrix's.
  const size_t bytes = rows == 0 ? 0 : ((rows - 1) * ld + cols) * SizeOf(type);
  const size_t data_pages = std::max<size_t>(1, (bytes + page - 1) / page);
  mapped_bytes_ = (data_pages + 2) * page;
  mapping_ = mmap(nullptr, mapped_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  SEQPAR_CHECK(mapping_ != MAP_FAILED);
  char* begin = static_cast<char*>(mapping_) + page;
  SEQPAR_CHECK(mprotect(begin, data_pages * page, PROT_READ | PROT_WRITE) == 0);
  matrix_ = Matrix(guard == Guard::kBefore ? begin : begin + data_pages * page - bytes, type, rows, cols, ld);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) Put(type, matrix_.At(row, col), value(row, col));
    if (row + 1 == rows) break;
    for (int64_t col = cols; col < ld; ++col) PutGap(type, matrix_.At(row, col));
  }
}

GuardedMatrix::~GuardedMatrix() { munmap(mapping_, mapped_bytes_); }

std::vector<double> GuardedMatrix::Values() const {
  std::vector<double> values;
  for (int64_t row = 0; row < matrix_.rows; ++row) {
    for (int64_t col = 0; col < matrix_.cols; ++col) {
      const void* at = matrix_.At(row, col);
      values.push_back(matrix_.dtype == DType::kF32 ? *static_cast<const float*>(at)
                                                    : ToFloat(*static_cast<const BF16*>(at)));
    }
  }
  return values;
}

bool GuardedMatrix::GapsIntact() const {
  for (int64_t row = 0; row + 1 < matrix_.rows; ++row) {
    for (int64_t col = matrix_.cols; col < matrix_.ld; ++col) {
      if (!IsGap(matrix_.dtype, matrix_.At(row, col))) return false;
    }
  }
  return true;
}

}  // namespace seqpar
