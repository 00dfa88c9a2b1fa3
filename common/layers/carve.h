// Several matrices in one allocation.
#ifndef SEQPAR_COMMON_LAYERS_CARVE_H_
#define SEQPAR_COMMON_LAYERS_CARVE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/status.h"
#include "common/device/device.h"

namespace seqpar {

// Add what is wanted, then Allocate once: the matrices then point into the buffer, 64-byte aligned.
class Carver {
 public:
  // `matrix` must stay where it is until Allocate.
  void Add(Matrix* matrix, DType dtype, int64_t rows, int64_t cols) {
    *matrix = Matrix(nullptr, dtype, rows, cols);
    wanted_.push_back({matrix, bytes_});
    bytes_ += (matrix->bytes() + 63) / 64 * 64;
  }

  // An empty buffer where nothing has elements.
  absl::StatusOr<Buffer> Allocate(Device* device, const char* what) {
    Buffer buffer;
    if (bytes_ > 0) {
      SEQPAR_ASSIGN_OR_RETURN(buffer, device->Allocate(bytes_, what));
    }
    for (const Wanted& wanted : wanted_) {
      if (bytes_ > 0) wanted.matrix->data = static_cast<char*>(buffer.data()) + wanted.offset;
    }
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

#endif  // SEQPAR_COMMON_LAYERS_CARVE_H_
