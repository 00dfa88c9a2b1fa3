// One transformer layer on one thread, forward and backward: its rate as a fraction of this machine's float32
// peak, and which kernels the time goes to, by the CPU time of the thread that computes. D 512, 8 heads of
// 64, SwiGLU 1408, RMSNorm, rotary embedding, causal.
//
// Repetitions of all lengths are interleaved; printed are the best and, in brackets, the median. The flops
// are the layer's own: products, and attention of the pairs that the mask allows (4 flops a pair and head
// dimension forward, 2.5 times that backward). The peak is the best seen in the run. Bandwidths are those of
// the bytes that a kernel cannot do without, as fractions of what a copy of 64 MiB beside each repetition
// moves (read and written).
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "common/base/check.h"
#include "common/comm/exchange_communicator.h"
#include "common/comm/in_process.h"
#include "common/layers/layer_stack.h"
#include "common/tensor/seeded.h"
#include "tests/bench/timed_device.h"
#include "tests/bench/usage.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cpu/peak.h"

namespace seqpar {
namespace {

constexpr char kUsage[] = R"(usage: layer_bench [REPETITIONS] [DTYPE] [TOKENS...]

One transformer layer (D 512, 8 heads of 64, SwiGLU 1408, RMSNorm, rotary embedding, causal) on one thread, forward and
backward: percent of this machine's float32 peak, and which kernels the time goes to.

  REPETITIONS   of all lengths, interleaved [7]
  DTYPE         float32 or bfloat16 [float32]
  TOKENS        of the sequence [4096 16384]

Example: layer_bench 5 bfloat16 2048
)";

ModelConfig Config() {
  ModelConfig config;
  config.hidden_size = 512;
  config.heads = config.kv_heads = 8;
  config.head_dim = 64;
  config.intermediate_size = 1408;
  config.layers = 1;
  config.rope_theta = 10'000;
  return config;
}

template <typename T>
T Value(absl::StatusOr<T> result) {
  SEQPAR_CHECK(result.ok());
  return std::move(result).value();
}

void FillUniform(const std::string& name, double variance, const Matrix& m) {
  const int64_t n = m.rows * m.cols;
  std::vector<float> values(n);
  SeededUniform(1, name, variance, 0, n, values.data());
  ConvertElements(values.data(), DType::kF32, m.data, m.dtype, n);
}

struct Repetition {
  double seconds = 0, attention_flops = 0, copy_bytes_per_second = 0;
  KernelUses uses;
};

// A layer of one length, ready to be run again and again.
class Case {
 public:
  Case(Device* device, DType dtype, int64_t tokens) : timed_(device), tokens_(tokens) {
    LayerPlan plan;
    plan.config = Config();
    plan.dtype = dtype;
    plan.mask = MaskSpec().Make(tokens);
    plan.tokens = TokenLayout(Mesh(), LayoutKind::kContiguous, tokens);
    plan.backward = true;
    compute_ = device->CreateStream("compute");
    comm_ = device->CreateStream("comm");
    streams_ = {&timed_, compute_.get(), comm_.get()};
    world_ = MakeExchangeCommunicator(MakeInProcessWorld(1)[0], device, nullptr);
    groups_ =
        std::make_unique<RankGroups>(Value(RankGroups::Create(world_.get(), plan.mesh(), plan.Heads())));
    layer_ = Value(TransformerLayer::Create(plan, streams_, groups_.get()));
    weights_ =
        std::make_unique<WeightSet>(Value(WeightSet::Create(&layer_->table(), device, dtype, "weights")));
    for (const WeightSlice& slice : layer_->table().slices()) {
      const Matrix m = weights_->Get(slice.id);
      FillUniform(slice.suffix, 1.0 / static_cast<double>(m.cols), m);
    }
    stack_ = Value(LayerStack::Create(layer_.get(), streams_, groups_.get(), {weights_.get()}));
    FillUniform("input", 1, stack_->input());
    FillUniform("output gradient", 1, stack_->output_gradient());
  }

  Repetition Run() {
    const double pairs = 0.5 * static_cast<double>(tokens_) * static_cast<double>(tokens_ + 1);
    Repetition r;
    r.attention_flops = 3.5 * 4 * pairs * 64 * 8;
    r.copy_bytes_per_second = CopyRate();
    timed_.ResetUses();
    const double start = Now();
    SEQPAR_CHECK(stack_->Forward(nullptr).ok());
    SEQPAR_CHECK(stack_->Backward(nullptr).ok());
    r.seconds = Now() - start;
    r.uses = timed_.uses();
    return r;
  }

 private:
  // The CPU time of the thread that computes.
  double Now() {
    double seconds = 0;
    compute_->HostFunction([&] {
      seconds = ThreadCpuSeconds();
      return absl::OkStatus();
    });
    SEQPAR_CHECK(compute_->Synchronize().ok());
    return seconds;
  }

  // Of memory that no cache holds, as the activations of a layer when their turn comes.
  double CopyRate() {
    constexpr int64_t kBytes = int64_t{64} << 20;
    if (from_.data() == nullptr) {
      from_ = Value(timed_.Allocate(kBytes, "copied"));
      to_ = Value(timed_.Allocate(kBytes, "copy"));
      std::memset(from_.data(), 1, kBytes);
    }
    double best = 0;
    for (int i = 0; i < 3; ++i) {
      timed_.ResetUses();
      timed_.Copy(*compute_, Matrix(from_.data(), DType::kF32, 1 << 15, kBytes >> 17),
                  Matrix(to_.data(), DType::kF32, 1 << 15, kBytes >> 17));
      SEQPAR_CHECK(compute_->Synchronize().ok());
      const KernelUse& copy = timed_.uses()[static_cast<int>(KernelKind::kCopy)];
      best = std::max(best, copy.bytes / copy.seconds);
    }
    return best;
  }

  TimedDevice timed_;
  const int64_t tokens_;
  Buffer from_, to_;
  std::unique_ptr<Stream> compute_, comm_;
  RankStreams streams_;
  std::unique_ptr<Communicator> world_;
  std::unique_ptr<RankGroups> groups_;
  std::unique_ptr<TransformerLayer> layer_;
  std::unique_ptr<WeightSet> weights_;
  std::unique_ptr<LayerStack> stack_;
};

double Best(const std::vector<double>& values) { return *std::max_element(values.begin(), values.end()); }
double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Print(int64_t tokens, double peak, const std::vector<Repetition>& repetitions) {
  std::vector<double> fractions, copies;
  for (const Repetition& r : repetitions) {
    double flops = r.attention_flops;
    for (const KernelUse& use : r.uses) flops += use.flops;
    fractions.push_back(flops / r.seconds / peak);
    copies.push_back(r.copy_bytes_per_second);
  }
  std::printf("%lld tokens: %.3f (%.3f) of the peak; %.0f tokens/s; copy %.1f GB/s\n",
              static_cast<long long>(tokens), Best(fractions), Median(fractions),
              static_cast<double>(tokens) / repetitions[0].seconds, Best(copies) / 1e9);
  for (int kind = 0; kind < kKernelKinds; ++kind) {
    std::vector<double> shares, rates;
    for (const Repetition& r : repetitions) {
      const KernelUse& use = r.uses[kind];
      if (use.calls == 0) continue;
      const bool attention = kind == static_cast<int>(KernelKind::kAttention);
      const double flops = attention ? r.attention_flops : use.flops;
      shares.push_back(use.seconds / r.seconds);
      rates.push_back(flops > 0 ? flops / use.seconds / peak
                                : use.bytes / use.seconds / r.copy_bytes_per_second);
    }
    if (shares.empty()) continue;
    const bool by_flops = kind <= static_cast<int>(KernelKind::kProduct);
    std::printf("  %-10s %5.1f %% of the time, %.2f (%.2f) of %s\n",
                KernelName(static_cast<KernelKind>(kind)), 100 * Median(shares), Best(rates), Median(rates),
                by_flops ? "the peak" : "a copy");
  }
}

void Main(int repetitions, DType dtype, const std::vector<int64_t>& lengths) {
  const auto device = Value(MakeCpuDevice({1, 0, "auto"}));
  std::printf("%s, kernels %s, one thread, %s\n", device->info().name.c_str(), device->info().kernel.c_str(),
              JobName(dtype));
  std::vector<std::unique_ptr<Case>> cases;
  std::vector<std::vector<Repetition>> results(lengths.size());
  for (const int64_t tokens : lengths) {
    cases.push_back(std::make_unique<Case>(device.get(), dtype, tokens));
    cases.back()->Run();  // touches all memory
  }
  double peak = MeasureFmaPeak(0.1);
  for (int i = 0; i < repetitions; ++i) {
    for (size_t c = 0; c < cases.size(); ++c) {
      results[c].push_back(cases[c]->Run());
      peak = std::max(peak, MeasureFmaPeak(0.05));
    }
  }
  std::printf("float32 peak %.1f GFLOP/s\n", peak / 1e9);
  for (size_t c = 0; c < cases.size(); ++c) Print(lengths[c], peak, results[c]);
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) {
  const std::vector<std::string> words = seqpar::BenchWords(argc, argv, seqpar::kUsage);
  const auto repetitions = static_cast<int>(seqpar::BenchNumber(words, 0, "REPETITIONS", 7));
  const bool single = words.size() <= 1 || words[1] == "float32";
  if (!single && words[1] != "bfloat16") {
    std::fprintf(stderr, "DTYPE: is '%s'; must be float32 or bfloat16 (--help)\n", words[1].c_str());
    return 2;
  }
  std::vector<int64_t> lengths;
  for (size_t i = 2; i < words.size(); ++i) lengths.push_back(seqpar::BenchNumber(words, i, "TOKENS", 0));
  if (lengths.empty()) lengths = {4096, 16384};
  seqpar::Main(repetitions, single ? seqpar::DType::kF32 : seqpar::DType::kBF16, lengths);
}
