// Our half of safetensors_python_test.py: `write FILE` writes known tensors, `read FILE` prints what a file
// holds.
#include <fcntl.h>

#include <cstdio>
#include <cstring>
#include <iostream>
#include <numeric>

#include "common/base/fd.h"
#include "common/base/status.h"
#include "common/tensor/safetensors.h"

namespace seqpar {
namespace {

// Element i of every tensor is i - 2.
absl::Status Write(const char* path) {
  const UniqueFd fd(open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600));
  SafetensorsHeader layout;
  const std::string head = BuildSafetensorsHeader({{"z", DType::kF32, {3, 5}},
                                                   {"bf", DType::kBF16, {7}},
                                                   {"empty", DType::kF32, {4, 0}},
                                                   {"a \"quoted\" n\xc3\xa4me", DType::kF16, {1, 2, 3}},
                                                   {"scalar", DType::kF64, {}}},
                                                  {{"producer", "seqpar"}}, &layout);
  SEQPAR_RETURN_IF_ERROR(PwriteAll(fd.get(), head.data(), static_cast<int64_t>(head.size()), 0));
  for (const auto& entry : layout.tensors) {
    const TensorInfo& info = entry.second;
    std::vector<double> values(static_cast<size_t>(info.elements()));
    std::iota(values.begin(), values.end(), -2.0);
    std::string bytes(static_cast<size_t>(info.bytes), '\0');
    ConvertElements(values.data(), DType::kF64, bytes.data(), info.dtype, info.elements());
    SEQPAR_RETURN_IF_ERROR(PwriteAll(fd.get(), bytes.data(), info.bytes, info.offset));
  }
  return absl::OkStatus();
}

// A line for each tensor: name, dtype, shape, values; unsupported ones as name and dtype; then the metadata.
absl::Status Read(const char* path) {
  const UniqueFd fd(open(path, O_RDONLY));
  SEQPAR_ASSIGN_OR_RETURN(const SafetensorsHeader header, ReadSafetensorsHeader(fd.get()));
  for (const auto& entry : header.tensors) {
    const TensorInfo& info = entry.second;
    std::string bytes(static_cast<size_t>(info.bytes), '\0');
    SEQPAR_RETURN_IF_ERROR(PreadAll(fd.get(), bytes.data(), info.bytes, info.offset));
    std::vector<double> values(static_cast<size_t>(info.elements()));
    ConvertElements(bytes.data(), info.dtype, values.data(), DType::kF64, info.elements());
    std::cout << entry.first << " " << SafetensorsName(info.dtype) << " [";
    for (int64_t dimension : info.shape) std::cout << dimension << ",";
    std::cout << "]";
    for (double value : values) std::cout << " " << value;
    std::cout << "\n";
  }
  for (const auto& entry : header.other_dtypes) std::cout << entry.first << " other " << entry.second << "\n";
  for (const auto& entry : header.metadata) std::cout << entry.first << "=" << entry.second << "\n";
  return absl::OkStatus();
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: safetensors_interop write|read FILE\n";
    return 2;
  }
  const absl::Status status =
      std::strcmp(argv[1], "write") == 0 ? seqpar::Write(argv[2]) : seqpar::Read(argv[2]);
  if (status.ok()) return 0;
  std::cerr << status << "\n";
  return 1;
}
