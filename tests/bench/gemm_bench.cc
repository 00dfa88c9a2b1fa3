// The products of a layer beside this machine's float32 peak: ours and OpenBLAS's, interleaved, by the CPU
// time of the thread that computes. Shapes are a layer's: rows of activations times weights, and weight
// gradients.
//
//   gemm_bench [repetitions]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "common/base/check.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cpu/peak.h"

namespace seqpar {
namespace {

struct Case {
  const char* what;
  int64_t m, n, k;
  bool transpose_a, transpose_b;
  DType dtype;
};

constexpr Case kCases[] = {
    {"forward   x w^T", 2048, 512, 512, false, true, DType::kF32},
    {"forward   x w^T", 2048, 1408, 512, false, true, DType::kF32},
    {"forward   x w^T", 2048, 1408, 512, false, true, DType::kBF16},
    {"backward  dy w", 2048, 512, 1408, false, false, DType::kF32},
    {"weights   dy^T x", 1408, 512, 2048, true, false, DType::kF32},
    {"weights   dy^T x", 1408, 512, 2048, true, false, DType::kBF16},
    {"narrow    x w^T", 2048, 64, 512, false, true, DType::kF32},
};

// Zeros would do for speed, but for denormals and what a library may skip.
Matrix NewMatrix(Device& device, std::vector<Buffer>* memory, DType dtype, int64_t rows, int64_t cols) {
  auto buffer = device.Allocate(rows * cols * SizeOf(dtype), "bench");
  SEQPAR_CHECK(buffer.ok());
  Matrix m(buffer->data(), dtype, rows, cols);
  for (int64_t i = 0; i < rows * cols; ++i) {
    const float value = static_cast<float>(i % 17) * 0.125f - 1;
    if (dtype == DType::kF32) {
      static_cast<float*>(m.data)[i] = value;
    } else {
      static_cast<BF16*>(m.data)[i] = ToBF16(value);
    }
  }
  memory->push_back(std::move(buffer).value());
  return m;
}

double FractionOfPeak(Device& device, Stream& stream, const Case& c, const Matrix& a, const Matrix& b,
                      const Matrix& to) {
  double start = 0, end = 0;
  const double peak = MeasureFmaPeak(0.005);
  stream.HostFunction([&] {
    start = ThreadCpuSeconds();
    return absl::OkStatus();
  });
  device.Gemm(stream, a, c.transpose_a, b, c.transpose_b, to, false, nullptr);
  stream.HostFunction([&] {
    end = ThreadCpuSeconds();
    return absl::OkStatus();
  });
  SEQPAR_CHECK(stream.Synchronize().ok());
  return 2.0 * c.m * c.n * c.k / (end - start) / peak;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Main(int repetitions) {
  auto ours = MakeCpuDevice({1, 0, "auto"}), library = MakeCpuDevice({1, 0, "scalar"});
  SEQPAR_CHECK(ours.ok() && library.ok());
  const auto stream = (*ours)->CreateStream("bench");
  std::printf("%s, kernels %s, one thread; median percent of the float32 peak beside each run\n",
              (*ours)->info().name.c_str(), (*ours)->info().kernel.c_str());
  for (const Case& c : kCases) {
    std::vector<Buffer> memory;
    const Matrix a =
        NewMatrix(**ours, &memory, c.dtype, c.transpose_a ? c.k : c.m, c.transpose_a ? c.m : c.k);
    const Matrix b =
        NewMatrix(**ours, &memory, c.dtype, c.transpose_b ? c.n : c.k, c.transpose_b ? c.k : c.n);
    const Matrix to = NewMatrix(**ours, &memory, DType::kF32, c.m, c.n);
    std::vector<double> of_ours, of_library;
    for (int i = 0; i < repetitions; ++i) {
      of_ours.push_back(FractionOfPeak(**ours, *stream, c, a, b, to));
      of_library.push_back(FractionOfPeak(**library, *stream, c, a, b, to));
    }
    std::printf("%-17s %5lld x %4lld x %4lld  %-8s  ours %5.1f %%  OpenBLAS %5.1f %%\n", c.what,
                static_cast<long long>(c.m), static_cast<long long>(c.n), static_cast<long long>(c.k),
                JobName(c.dtype), 100 * Median(of_ours), 100 * Median(of_library));
  }
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) { seqpar::Main(argc > 1 ? std::atoi(argv[1]) : 9); }
