// The products of a layer beside this machine's float32 peak, by the CPU time of the thread that computes.
// Shapes are a layer's (D 512, 8 heads of 64, SwiGLU 1408, 4,096 tokens): rows of activations times weights,
// and weight gradients, which are accumulated. Repetitions of all shapes are interleaved; the peak is
// measured beside each product. Printed are the best and, in brackets, the median.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "common/base/check.h"
#include "tests/bench/cpu_seconds.h"
#include "tests/bench/usage.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cpu/peak.h"

namespace seqpar {
namespace {

constexpr char kUsage[] = R"(usage: gemm_bench [REPETITIONS]

The products of a layer (D 512, 8 heads of 64, SwiGLU 1408, 4,096 tokens) on one thread, as percent of this machine's
float32 peak, measured beside each: the best and, in brackets, the median of so many REPETITIONS [7].

Example: gemm_bench 15
)";

struct Shape {
  const char* what;
  int64_t m, n, k;
  bool transpose_a, transpose_b, accumulate;
  DType dtype;
};

constexpr Shape kShapes[] = {
    {"x Wq'", 4096, 512, 512, false, true, false, DType::kF32},
    {"x [Wg; Wu]'", 4096, 2816, 512, false, true, false, DType::kF32},
    {"x Wd'", 4096, 512, 1408, false, true, false, DType::kF32},
    {"dy Wd", 4096, 1408, 512, false, false, false, DType::kF32},
    {"dy [Wg; Wu]", 4096, 512, 2816, false, false, false, DType::kF32},
    {"dy' x", 512, 512, 4096, true, false, true, DType::kF32},
    {"dy' x", 2816, 512, 4096, true, false, true, DType::kF32},
    {"x [Wg; Wu]'", 4096, 2816, 512, false, true, false, DType::kBF16},
    {"dy [Wg; Wu]", 4096, 512, 2816, false, false, false, DType::kBF16},
    {"dy' x", 2816, 512, 4096, true, false, true, DType::kBF16},
    {"few rows", 64, 2816, 512, false, true, false, DType::kF32},
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

class Case {
 public:
  Case(Device& device, const Shape& shape) : device_(device), shape_(shape) {
    const Shape& s = shape;
    a_ = NewMatrix(device, &memory_, s.dtype, s.transpose_a ? s.k : s.m, s.transpose_a ? s.m : s.k);
    b_ = NewMatrix(device, &memory_, s.dtype, s.transpose_b ? s.n : s.k, s.transpose_b ? s.k : s.n);
    // Weight gradients are float32, activations of the storage type.
    c_ = NewMatrix(device, &memory_, s.accumulate ? DType::kF32 : s.dtype, s.m, s.n);
  }

  void Run(Stream& stream) {
    const double peak = MeasureFmaPeak(0.005);
    const double seconds = CpuSeconds(stream, [&] {
      device_.Gemm(stream, a_, shape_.transpose_a, b_, shape_.transpose_b, c_, shape_.accumulate, nullptr);
    });
    const double flops = 2.0 * static_cast<double>(shape_.m * shape_.n) * static_cast<double>(shape_.k);
    fractions_.push_back(flops / seconds / peak);
  }

  void Forget() { fractions_.clear(); }

  void Print() {
    std::sort(fractions_.begin(), fractions_.end());
    std::printf("%-12s %5lld x %4lld x %4lld  %-8s  %5.1f %% (%5.1f %%)\n", shape_.what,
                static_cast<long long>(shape_.m), static_cast<long long>(shape_.n),
                static_cast<long long>(shape_.k), JobName(shape_.dtype), 100 * fractions_.back(),
                100 * fractions_[fractions_.size() / 2]);
  }

 private:
  Device& device_;
  const Shape shape_;
  std::vector<Buffer> memory_;
  Matrix a_, b_, c_;
  std::vector<double> fractions_;
};

void Main(int repetitions) {
  const auto device = MakeCpuDevice({1, 0, "auto"});
  SEQPAR_CHECK(device.ok());
  const auto stream = (*device)->CreateStream("bench");
  std::vector<std::unique_ptr<Case>> cases;
  for (const Shape& shape : kShapes) {
    cases.push_back(std::make_unique<Case>(**device, shape));
    cases.back()->Run(*stream);  // makes the library's kernel
    cases.back()->Forget();
  }
  for (int i = 0; i < repetitions; ++i) {
    for (const auto& one : cases) one->Run(*stream);
  }
  std::printf("%s, one thread, percent of the float32 peak beside each run\n",
              (*device)->info().name.c_str());
  for (const auto& one : cases) one->Print();
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) {
  const std::vector<std::string> words = seqpar::BenchWords(argc, argv, seqpar::kUsage);
  seqpar::Main(static_cast<int>(seqpar::BenchNumber(words, 0, "REPETITIONS", 7)));
}
