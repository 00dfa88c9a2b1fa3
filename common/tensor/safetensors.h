// The safetensors format: an 8-byte little-endian header length, a JSON header, then the tensors' bytes.
// Headers come from outside: everything in them is checked before it is used.
#ifndef SEQPAR_COMMON_TENSOR_SAFETENSORS_H_
#define SEQPAR_COMMON_TENSOR_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tensor/dtype.h"

namespace seqpar {

struct TensorInfo {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  int64_t offset = 0;  // bytes from the start of the file
  int64_t bytes = 0;
  int64_t elements() const;
};

struct SafetensorsHeader {
  std::map<std::string, TensorInfo> tensors;
  // Names of tensors whose dtype is known to the format but not to us (I64, BOOL, ...), with that dtype.
  std::map<std::string, std::string> other_dtypes;
  std::map<std::string, std::string> metadata;
  int64_t file_bytes = 0;  // header and data

  // NOT_FOUND where there is no such tensor, INVALID_ARGUMENT where its dtype is not supported.
  absl::StatusOr<TensorInfo> Find(const std::string& name) const;
};

// Bytes of length and header, from the first 8 bytes of a file of `file_bytes` bytes: how much of it to read.
// INVALID_ARGUMENT for a length past the file or above 100 MB.
absl::StatusOr<int64_t> SafetensorsHeaderBytes(const std::string& head, int64_t file_bytes);

// Parses the header in `head`, the first bytes of a file of `file_bytes` bytes; `head` must hold the whole
// header. INVALID_ARGUMENT (with what and where) for: a length past the file or above 100 MB, JSON that is
// not an object, duplicate names, dtypes other than F64/F32/BF16/F16 (other known dtypes are refused only
// when the tensor is looked up: they are left out of `tensors`), shapes with negative or overflowing
// products, offsets that overlap, leave holes, run past the file, or do not match shape and dtype.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(const std::string& head, int64_t file_bytes);

// Reads and parses the header of the file behind `fd` by pread.
absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(int fd);

struct NamedTensorShape {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
};
// Lays out a file with these tensors in this order. The result's bytes are the header (8-byte length, JSON
// padded with spaces to a multiple of 8), `layout` says where each tensor goes. Deterministic. REQUIRES:
// distinct names, none of them "__metadata__"; shapes whose bytes do not overflow.
std::string BuildSafetensorsHeader(const std::vector<NamedTensorShape>& tensors,
                                   const std::map<std::string, std::string>& metadata,
                                   SafetensorsHeader* layout);

// pread/pwrite of exactly `bytes` bytes; retries EINTR and short transfers. DATA_LOSS on end of file,
// RESOURCE_EXHAUSTED on a full disk, INTERNAL otherwise.
absl::Status PreadAll(int fd, void* data, int64_t bytes, int64_t offset);
absl::Status PwriteAll(int fd, const void* data, int64_t bytes, int64_t offset);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_TENSOR_SAFETENSORS_H_
