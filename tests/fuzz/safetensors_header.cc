// Headers of safetensors files, and the index of a checkpoint: whatever bytes a file has, it is read or
// refused, and what is read lies within the file.
#include <cstdint>
#include <limits>
#include <string>

#include "common/base/check.h"
#include "common/tensor/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seqpar;
  const std::string head(reinterpret_cast<const char*>(data), size);
  // As large a file as the header asks for, and one that ends with it.
  for (const int64_t file_bytes :
       {static_cast<int64_t>(size), int64_t{1} << 40, std::numeric_limits<int64_t>::max()}) {
    const absl::StatusOr<int64_t> bytes = SafetensorsHeaderBytes(head, file_bytes);
    if (!bytes.ok()) continue;
    SEQPAR_CHECK(*bytes >= 8 && *bytes <= file_bytes);
    const absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(head, file_bytes);
    if (!header.ok()) continue;
    SEQPAR_CHECK(*bytes <= static_cast<int64_t>(size));
    for (const auto& [name, tensor] : header->tensors) {
      SEQPAR_CHECK(tensor.offset >= *bytes && tensor.bytes >= 0 &&
                   tensor.offset <= file_bytes - tensor.bytes);
      SEQPAR_CHECK(tensor.elements() * static_cast<int64_t>(SizeOf(tensor.dtype)) == tensor.bytes);
      SEQPAR_CHECK(header->Find(name).ok());
    }
  }
  return 0;
}
