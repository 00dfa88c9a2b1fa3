// Several matrices in one allocation, or in memory that somebody else has.
#ifndef SEQPAR_COMMON_DEVICE_CARVE_H_
#define SEQPAR_COMMON_DEVICE_CARVE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/status.h"
#include "common/device/device.h"

namespace seqpar {

// What stands between two matrices begins on a boundary of 64 bytes.
constexpr int64_t CarvedBytes(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Add what is wanted, then Allocate or Place once: the matrices then point into that memory, 64-byte aligned.
class Carver {
 public:
  // `matrix` must stay where it is until then.
  void Add(Matrix* matrix, DType dtype, int64_t rows, int64_t cols) {
    *matrix = Matrix(nullptr, dtype, rows, cols);
    wanted_.push_back({matrix, bytes_});
    bytes_ += CarvedBytes(matrix->bytes());
  }

  // Of all that was added.
  int64_t bytes() const { return bytes_; }

  // `memory`: bytes() of it, 64-byte aligned; may be null where nothing has elements.
  void Place(void* memory) const {
    for (const Wanted& wanted : wanted_) {
      if (bytes_ > 0) wanted.matrix->data = static_cast<char*>(memory) + wanted.offset;
    }
  }

  // An empty buffer where nothing has elements.
  absl::StatusOr<Buffer> Allocate(Device* device, const char* what) {
    Buffer buffer;
    if (bytes_ > 0) {
      SEQPAR_ASSIGN_OR_RETURN(buffer, device->Allocate(bytes_, what));
    }
    Place(buffer.data());
    return absl::StatusOr<Buffer>(std::move(buffer));
  }

 private:
  struct Wanted {
    Matrix* matrix;
    int64_t offset;
  };
  std::vector<Wanted> wanted_;
  int64_t bytes_ = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_DEVICE_CARVE_H_
