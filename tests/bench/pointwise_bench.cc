// The pointwise kernels of a layer (norm, rotary embedding, activation, residual) on one thread, as fractions
// of what a copy moves, by the CPU time of the thread that computes.
//
// Bytes are those that a kernel cannot do without: each operand read once, each result written once. Each
// kernel runs twice: on matrices that no cache holds, and again and again on matrices that the second level
// cache holds, which is what its arithmetic alone allows (the bound: where it is low, no way through memory
// makes the kernel faster). Both are over a copy of 64 MiB, read and written, measured beside each
// repetition. Repetitions of all kernels are interleaved; printed are the median and the best.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/base/check.h"
#include "common/base/flag_checks.h"
#include "tests/bench/cpu_seconds.h"
#include "tests/bench/random_fill.h"
#include "worker/device/cpu/cpu_device.h"

namespace seqpar {
namespace {

struct Options {
  int repetitions = 7;
  std::string kernel = "auto";
  std::string only;  // part of a line's name
};

// Matrices of one size for one kernel, of the layer that docs/performance.md measures: hidden 512, MLP 1408
// with the projections of gate and up side by side, heads of 64.
class Operands {
 public:
  static constexpr int64_t kHidden = 512, kMlp = 1408, kHeadDim = 64;

  Operands(Device* device, Stream* stream, DType dtype, int64_t rows)
      : device_(device), stream_(stream), dtype_(dtype), rows_(rows) {}

  Matrix New(int64_t cols) { return New(dtype_, rows_, cols); }
  Matrix NewRow(int64_t cols) { return New(dtype_, 1, cols); }
  float* NewFloats(int64_t rows, int64_t cols) {
    return static_cast<float*>(New(DType::kF32, rows, cols).data);
  }
  int64_t rows() const { return rows_; }

 private:
  Matrix New(DType dtype, int64_t rows, int64_t cols) {
    auto buffer = device_->Allocate(rows * cols * SizeOf(dtype), "bench");
    SEQPAR_CHECK(buffer.ok());
    const Matrix m(buffer->data(), dtype, rows, cols);
    FillNormal(device_, *stream_, &random_, 1, m);
    memory_.push_back(std::move(buffer).value());
    return m;
  }

  Device* const device_;
  Stream* const stream_;
  const DType dtype_;
  const int64_t rows_;
  std::mt19937 random_{1};
  std::vector<Buffer> memory_;
};

struct Kernel {
  std::string name;
  int64_t row_elements;  // of storage type, read and written, of each row
  // Enqueues the kernel once.
  std::function<std::function<void(Device&, Stream&)>(Operands&)> make;
};

Kernel NormForward(const char* name, NormKind kind) {
  return {name, 2 * Operands::kHidden, [kind](Operands& in) {
            const Matrix x = in.New(Operands::kHidden), y = in.New(Operands::kHidden);
            const Matrix weight = in.NewRow(Operands::kHidden), bias = in.NewRow(Operands::kHidden);
            float* stats = in.NewFloats(in.rows(), 2);
            return [=](Device& device, Stream& s) {
              device.NormForward(s, kind, x, weight, kind == NormKind::kLayerNorm ? &bias : nullptr, 1e-5f, y,
                                 stats);
            };
          }};
}

Kernel NormBackward(const char* name, NormKind kind) {
  return {name, 4 * Operands::kHidden, [kind](Operands& in) {
            const Matrix x = in.New(Operands::kHidden), dy = in.New(Operands::kHidden);
            const Matrix residual = in.New(Operands::kHidden), dx = in.New(Operands::kHidden);
            const Matrix weight = in.NewRow(Operands::kHidden);
            float *stats = in.NewFloats(in.rows(), 2), *sums = in.NewFloats(2, Operands::kHidden);
            return [=](Device& device, Stream& s) {
              device.NormBackward(s, kind, x, weight, stats, dy, &residual, dx, sums,
                                  kind == NormKind::kLayerNorm ? sums + Operands::kHidden : nullptr);
            };
          }};
}

Kernel Rotary() {
  return {"rotary", 2 * Operands::kHidden, [](Operands& in) {
            const Matrix x = in.New(Operands::kHidden);
            // All angles alike, and none that lets the numbers grow.
            float* table = in.NewFloats(in.rows(), Operands::kHeadDim);
            for (int64_t i = 0; i < in.rows() * Operands::kHeadDim; ++i) {
              table[i] = i % Operands::kHeadDim < Operands::kHeadDim / 2 ? 0.8f : 0.6f;
            }
            return
                [=](Device& device, Stream& s) { device.Rotary(s, x, 1, Operands::kHeadDim, table, false); };
          }};
}

Kernel ActivationForward(const char* name, MlpKind kind) {
  const bool gated = kind == MlpKind::kSwiglu;
  return {name, (gated ? 3 : 2) * Operands::kMlp, [kind, gated](Operands& in) {
            const Matrix both = in.New((gated ? 2 : 1) * Operands::kMlp), y = in.New(Operands::kMlp);
            const Matrix gate = both.Cols(0, Operands::kMlp);
            const Matrix up = gated ? both.Cols(Operands::kMlp, both.cols) : both;
            return [=](Device& device, Stream& s) {
              device.ActivationForward(s, kind, gated ? &gate : nullptr, up, y);
            };
          }};
}

enum class Again { kNo, kYes };  // the activation too, over the gradient, as a layer has it

Kernel ActivationBackward(const char* name, MlpKind kind, Again again = Again::kNo) {
  const bool gated = kind == MlpKind::kSwiglu, with_y = again == Again::kYes;
  return {name, ((gated ? 5 : 3) + (with_y ? 1 : 0)) * Operands::kMlp, [kind, gated, with_y](Operands& in) {
            const Matrix both = in.New((gated ? 2 : 1) * Operands::kMlp);
            const Matrix dboth = in.New((gated ? 2 : 1) * Operands::kMlp), dy = in.New(Operands::kMlp);
            const Matrix gate = both.Cols(0, Operands::kMlp), dgate = dboth.Cols(0, Operands::kMlp);
            const Matrix up = gated ? both.Cols(Operands::kMlp, both.cols) : both;
            const Matrix dup = gated ? dboth.Cols(Operands::kMlp, both.cols) : dboth;
            return [=](Device& device, Stream& s) {
              device.ActivationBackward(s, kind, gated ? &gate : nullptr, up, dy, gated ? &dgate : nullptr,
                                        dup, with_y ? &dy : nullptr);
            };
          }};
}

Kernel Residual() {
  return {"residual", 3 * Operands::kHidden, [](Operands& in) {
            const Matrix a = in.New(Operands::kHidden), b = in.New(Operands::kHidden);
            const Matrix to = in.New(Operands::kHidden);
            return [=](Device& device, Stream& s) { device.Add(s, a, b, to); };
          }};
}

std::vector<Kernel> Kernels() {
  return {NormForward("RMSNorm", NormKind::kRmsNorm),
          NormBackward("RMSNorm backward", NormKind::kRmsNorm),
          NormForward("LayerNorm", NormKind::kLayerNorm),
          NormBackward("LayerNorm backward", NormKind::kLayerNorm),
          Rotary(),
          ActivationForward("SwiGLU", MlpKind::kSwiglu),
          ActivationBackward("SwiGLU backward", MlpKind::kSwiglu),
          ActivationBackward("SwiGLU backward with the activation", MlpKind::kSwiglu, Again::kYes),
          ActivationForward("GELU", MlpKind::kGelu),
          ActivationBackward("GELU backward", MlpKind::kGelu),
          ActivationBackward("GELU backward with the activation", MlpKind::kGelu, Again::kYes),
          ActivationForward("GELU tanh", MlpKind::kGeluTanh),
          ActivationBackward("GELU tanh backward", MlpKind::kGeluTanh),
          Residual()};
}

// A kernel on matrices of about `bytes` in all.
class Run {
 public:
  Run(Device* device, Stream* stream, const Kernel& kernel, DType dtype, int64_t bytes, int calls)
      : device_(device),
        stream_(stream),
        operands_(device, stream, dtype, std::max<int64_t>(1, bytes / (kernel.row_elements * SizeOf(dtype)))),
        bytes_(static_cast<double>(operands_.rows() * kernel.row_elements * SizeOf(dtype))),
        calls_(calls),
        enqueue_(kernel.make(operands_)) {}

  double BytesPerSecond() {
    return bytes_ * calls_ / CpuSeconds(*stream_, [&] {
             for (int i = 0; i < calls_; ++i) enqueue_(*device_, *stream_);
           });
  }

 private:
  Device* const device_;
  Stream* const stream_;
  Operands operands_;
  const double bytes_;
  const int calls_;
  const std::function<void(Device&, Stream&)> enqueue_;
};

struct Line {
  std::string name;
  DType dtype;
  std::unique_ptr<Run> memory, cache;
  std::vector<double> of_memory, of_cache;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}
double Best(const std::vector<double>& values) { return *std::max_element(values.begin(), values.end()); }

void Main(const Options& options) {
  constexpr int64_t kCopied = int64_t{64} << 20, kCached = int64_t{256} << 10;
  const auto device = MakeCpuDevice({1, 0, options.kernel});
  if (!device.ok()) {
    std::fprintf(stderr, "%s\n", std::string(device.status().message()).c_str());
    std::exit(2);
  }
  const auto stream = (*device)->CreateStream("bench");
  std::vector<Line> lines;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Kernel& kernel : Kernels()) {
      if ((kernel.name + " " + JobName(dtype)).find(options.only) == std::string::npos) continue;
      lines.push_back({kernel.name,
                       dtype,
                       std::make_unique<Run>(device->get(), stream.get(), kernel, dtype, kCopied, 1),
                       std::make_unique<Run>(device->get(), stream.get(), kernel, dtype, kCached, 100),
                       {},
                       {}});
    }
  }
  Operands copied(device->get(), stream.get(), DType::kF32, kCopied / 4096);
  const Matrix from = copied.New(1024), to = copied.New(1024);
  std::vector<double> copies;
  for (int i = 0; i < options.repetitions; ++i) {
    for (Line& line : lines) {
      const double copy = 2.0 * static_cast<double>(kCopied) /
                          CpuSeconds(*stream, [&] { (*device)->Copy(*stream, from, to); });
      copies.push_back(copy);
      line.of_memory.push_back(line.memory->BytesPerSecond() / copy);
      line.of_cache.push_back(line.cache->BytesPerSecond() / copy);
    }
  }
  std::printf("%s, kernels %s, one thread; over a copy of %.1f GB/s (best %.1f): median / best\n",
              (*device)->info().name.c_str(), (*device)->info().kernel.c_str(), Median(copies) / 1e9,
              Best(copies) / 1e9);
  for (const Line& line : lines) {
    std::printf("%-35s %-8s  from memory %.2f / %.2f, from cache %.2f / %.2f\n", line.name.c_str(),
                JobName(line.dtype), Median(line.of_memory), Best(line.of_memory), Median(line.of_cache),
                Best(line.of_cache));
  }
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) {
  seqpar::Options options;
  CLI::App app("The pointwise kernels of a layer, as fractions of what a copy moves.");
  app.add_option("--repetitions", options.repetitions, "of every kernel")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--kernel", options.kernel, "auto, or an instruction set: AVX3, AVX2, SSE4, NEON, scalar")
      ->capture_default_str();
  app.add_option("--only", options.only, "kernels whose name and type contain this, such as \"SwiGLU\"");
  app.footer("Example: pointwise_bench --kernel AVX2 --only 'backward bfloat16'");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return seqpar::AnswerParseError(app, error);
  }
  seqpar::Main(options);
}
