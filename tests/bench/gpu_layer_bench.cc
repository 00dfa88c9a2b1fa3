// One transformer layer on the first GPU, forward and backward: D 4096, 32 heads over 8 KV heads of 128,
// SwiGLU 14336, RMSNorm, rotary embedding, causal, bfloat16, random data. The flops are the layer's own:
// products, and attention of the pairs that the mask allows (4 flops a pair and head dimension forward, 2.5
// times that backward).
//
// Gaps are those of the compute stream longer than 50 microseconds, by CUPTI's records of one forward and
// backward that follows another, as steps do that are timed; beside them those of the one before, whose host
// and device had been idle. --on-request is for gpu_layer_peer.py; each line is a request, all but the first
// two are answered by a line:
//   tokens N[:RECOMPUTE]  makes the layer for N tokens     none       gives its memory back
//   go STEPS    seconds a step, of so many one after the other
//   product STEPS  flops/s of the layer's largest product, so many one after the other
//   flops       of a step                        memory     bytes at the peak, scratch of kernels included
//   gaps        LONGER_THAN_50_US LONGEST_US IDLE_FRACTION OPERATIONS AFTER BEFORE, of the step that follows,
//               and the same of the one from idle; or "none WHY"
//   kernel      what attention has run on
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/comm/exchange_communicator.h"
#include "common/comm/in_process.h"
#include "common/layers/transformer_layer.h"
#include "tests/bench/kernel_timeline.h"
#include "tests/bench/random_fill.h"
#include "tests/bench/usage.h"
#include "worker/backend/backend.h"

namespace seqpar {
namespace {

constexpr char kUsage[] = R"(usage: gpu_layer_bench [TOKENS[:RECOMPUTE] ...]
       gpu_layer_bench --on-request [--deterministic]

One transformer layer of Llama-3-8B on the first GPU, forward and backward, bfloat16: time, rate, memory and gaps.

  TOKENS            of the sequence [8192 32768 131072 131072:mlp]
  RECOMPUTE         what backward computes again: none, mlp, attention or layer
  --on-request      answers lines of input (gpu_layer_peer.py)
  --deterministic   attention's backward pass in a fixed order

Example: gpu_layer_bench 32768 131072:mlp
)";

constexpr int64_t kGapNs = 50'000;
constexpr int kRounds = 5;

ModelConfig Config() {
  ModelConfig config;
  config.hidden_size = 4096;
  config.heads = 32;
  config.kv_heads = 8;
  config.head_dim = 128;
  config.intermediate_size = 14336;
  config.layers = 1;
  config.rope_theta = 500'000;
  return config;
}

[[noreturn]] void Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}
void Check(const absl::Status& status) {
  if (!status.ok()) Fail(status);
}
template <typename T>
T Value(absl::StatusOr<T> result) {
  if (!result.ok()) Fail(result.status());
  return std::move(result).value();
}

struct Size {
  int64_t tokens = 0;
  Recompute recompute = Recompute::kNone;
};

Size SizeOf(const std::string& text) {
  Size size{std::atoll(text.c_str())};
  const size_t colon = text.find(':');
  if (colon == std::string::npos) return size;
  const std::string name = text.substr(colon + 1);
  for (const Recompute r : {Recompute::kNone, Recompute::kMlp, Recompute::kAttention, Recompute::kLayer}) {
    size.recompute = r;
    if (name == RecomputeName(r)) return size;
  }
  Fail(absl::InvalidArgumentError(absl::StrCat(text, ": not TOKENS:none, mlp, attention or layer")));
}

// The layer of one rank with inputs, weights and gradients.
class Layer {
 public:
  Layer(const RankStreams& streams, const Size& size)
      : device_(streams.device), tokens_(size.tokens), streams_(streams) {
    Device* const device = device_;
    const int64_t tokens = size.tokens;
    device->ResetPeak();
    LayerPlan plan;
    plan.config = Config();
    plan.dtype = DType::kBF16;
    plan.mask = Mask(MaskKind::kCausal, tokens);
    plan.tokens = TokenLayout(Mesh(), LayoutKind::kContiguous, tokens);
    plan.backward = true;
    plan.recompute = size.recompute;
    world_ = MakeExchangeCommunicator(MakeInProcessWorld(1)[0], device, nullptr);
    groups_ =
        std::make_unique<RankGroups>(Value(RankGroups::Create(world_.get(), plan.mesh(), plan.Heads())));
    layer_ = Value(TransformerLayer::Create(plan, streams_, groups_.get()));
    weights_ = std::make_unique<WeightSet>(
        Value(WeightSet::Create(&layer_->table(), device, plan.dtype, "weights")));
    gradients_ = std::make_unique<WeightSet>(
        Value(WeightSet::Create(&layer_->table(), device, DType::kF32, "weight gradients")));
    kept_ = Value(layer_->NewActivations());
    for (Matrix* m : {&x_, &y_, &dx_}) {
      *m = Matrix(nullptr, plan.dtype, tokens, plan.config.hidden_size);
      memory_.push_back(Value(device->Allocate(m->bytes(), "hidden states")));
      m->data = memory_.back().data();
    }
    std::mt19937 random(1);
    for (const WeightSlice& slice : layer_->table().slices()) {
      const Matrix m = weights_->Get(slice.id);
      FillNormal(device, *streams_.compute, &random, 1 / std::sqrt(static_cast<float>(m.cols)), m);
    }
    FillNormal(device, *streams_.compute, &random, 1, x_);
  }

  // Enqueues a forward and a backward pass. The gradient of the output is the output, as of half the sum of
  // its squares.
  void Step() {
    layer_->Forward(*weights_, x_, kept_, y_);
    layer_->Backward(*weights_, x_, kept_, y_, *gradients_, dx_);
  }
  // Mean of so many, by the stream's clock.
  double Seconds(int steps) {
    const double before = Elapsed();
    for (int i = 0; i < steps; ++i) Step();
    Check(streams_.compute->Synchronize());
    return (Elapsed() - before) / steps;
  }
  double ProductRate(int steps) {
    const ModelConfig config = Config();
    if (products_.empty()) {
      std::mt19937 random(2);
      for (const auto& [rows, cols] : {std::pair{tokens_, config.hidden_size},
                                       {config.intermediate_size, config.hidden_size},
                                       {tokens_, config.intermediate_size}}) {
        Matrix m(nullptr, DType::kBF16, rows, cols);
        memory_.push_back(Value(device_->Allocate(m.bytes(), "a product")));
        m.data = memory_.back().data();
        FillNormal(device_, *streams_.compute, &random, 1, m);
        products_.push_back(m);
      }
    }
    const double before = Elapsed();
    for (int i = 0; i < steps; ++i) {
      device_->Gemm(*streams_.compute, products_[0], false, products_[1], true, products_[2], false, nullptr);
    }
    Check(streams_.compute->Synchronize());
    return 2.0 * steps * static_cast<double>(tokens_) * static_cast<double>(config.hidden_size) *
           static_cast<double>(config.intermediate_size) / (Elapsed() - before);
  }

  double Flops() const {
    const ModelConfig config = Config();
    double weights = 0;
    for (const WeightSlice& slice : layer_->table().slices()) {
      const Matrix m = weights_->Get(slice.id);
      if (m.rows > 1) weights += static_cast<double>(m.rows * m.cols);
    }
    const double tokens = static_cast<double>(tokens_), pairs = tokens * (tokens + 1) / 2;
    return 3 * 2 * tokens * weights + 3.5 * 4 * pairs * config.heads * config.head_dim;
  }

 private:
  double Elapsed() const {
    const StreamTimes times = streams_.compute->times();
    return times.busy_seconds + times.wait_seconds;
  }

  Device* const device_;
  const int64_t tokens_;
  const RankStreams streams_;
  std::unique_ptr<Communicator> world_;
  std::unique_ptr<RankGroups> groups_;
  std::unique_ptr<TransformerLayer> layer_;
  std::unique_ptr<WeightSet> weights_, gradients_;
  LayerActivations kept_;
  std::vector<Buffer> memory_;
  Matrix x_, y_, dx_;
  std::vector<Matrix> products_;
};

// What two steps did, one straight after the other, the first of them after the device was idle. The last
// operation of that one stands at the head of the other, so that the gap between them is seen, too.
struct Recording {
  std::vector<DeviceWork> from_idle, following;
};
absl::StatusOr<Recording> Record(KernelTimeline* timeline, Layer* layer) {
  SEQPAR_RETURN_IF_ERROR(timeline->Start());
  layer->Seconds(1);  // CUPTI itself stops the host where it first meets an operation of each kind
  layer->Seconds(2);
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<DeviceWork> work, timeline->Stop());
  if (work.size() < 3) return absl::DataLossError("CUPTI recorded no steps");
  const auto step = static_cast<int64_t>(work.size() / 3);
  const auto second = work.begin() + step, third = second + step;
  return Recording{{second, third}, {third - 1, work.end()}};
}

std::string GapsText(const absl::StatusOr<std::unique_ptr<KernelTimeline>>& timeline, Layer* layer) {
  if (!timeline.ok()) return absl::StrCat("none ", timeline.status().message());
  const auto recorded = Record(timeline->get(), layer);
  if (!recorded.ok()) return absl::StrCat("none ", recorded.status().message());
  const auto text = [](const std::vector<DeviceWork>& work) {
    const StreamGaps gaps = GapsOf(work, kGapNs);
    return absl::StrCat(
        gaps.longer, " ", static_cast<double>(gaps.longest_ns) / 1e3, " ",
        static_cast<double>(gaps.idle_ns) / static_cast<double>(std::max<int64_t>(1, gaps.span_ns)), " ",
        gaps.operations, " ", ShortName(gaps.longest_after), " ", ShortName(gaps.longest_before));
  };
  return absl::StrCat(text(recorded->following), " ", text(recorded->from_idle));
}

int Serve(const RankStreams& streams, const absl::StatusOr<std::unique_ptr<KernelTimeline>>& timeline) {
  Device* const device = streams.device;
  std::unique_ptr<Layer> layer;
  for (std::string word; std::cin >> word;) {
    long long n = 0;
    if (std::string size; word == "tokens" && std::cin >> size) {
      layer = nullptr;
      layer = std::make_unique<Layer>(streams, SizeOf(size));
      continue;
    }
    if (word == "none") {
      layer = nullptr;
      continue;
    }
    if (word == "kernel") {
      std::printf("%s\n", device->attention_use().kernel.c_str());
    } else if (layer == nullptr) {
      std::fprintf(stderr, "%s: tokens first\n", word.c_str());
      return 2;
    } else if (word == "go" && std::cin >> n) {
      std::printf("%.9g\n", layer->Seconds(static_cast<int>(n)));
    } else if (word == "product" && std::cin >> n) {
      std::printf("%.9g\n", layer->ProductRate(static_cast<int>(n)));
    } else if (word == "flops") {
      std::printf("%.9g\n", layer->Flops());
    } else if (word == "memory") {
      std::printf("%lld\n", static_cast<long long>(device->memory().peak_bytes));
    } else if (word == "gaps") {
      std::printf("%s\n", GapsText(timeline, layer.get()).c_str());
    } else {
      std::fprintf(stderr, "%s: not tokens, none, go, product, flops, memory, gaps or kernel\n",
                   word.c_str());
      return 2;
    }
    std::fflush(stdout);
  }
  return 0;
}

void Print(const RankStreams& streams, const absl::StatusOr<std::unique_ptr<KernelTimeline>>& timeline,
           const std::string& size) {
  Device* const device = streams.device;
  Layer layer(streams, SizeOf(size));
  layer.Seconds(1);
  std::vector<double> seconds;
  for (int round = 0; round < kRounds; ++round) seconds.push_back(layer.Seconds(1));
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  std::printf("%11s tokens: %8.2f ms, %5.1f TFLOP/s, %6.2f GiB, attention %s\n", size.c_str(), median * 1e3,
              layer.Flops() / median / 1e12, static_cast<double>(device->memory().peak_bytes) / (1 << 30),
              device->attention_use().kernel.c_str());
  if (!timeline.ok()) {
    std::printf("  no records: %s\n", std::string(timeline.status().message()).c_str());
    return;
  }
  const Recording recorded = Value(Record(timeline->get(), &layer));
  int64_t span_ns = 0;
  for (const auto& [what, work] :
       {std::pair("after another", &recorded.following), std::pair("from idle", &recorded.from_idle)}) {
    const StreamGaps gaps = GapsOf(*work, kGapNs);
    std::printf(
        "  %s: %lld operations, %lld gaps longer than 50 us, idle %.3f %% of %.2f ms; longest %.1f us, "
        "after %s, before %s\n",
        what, static_cast<long long>(gaps.operations), static_cast<long long>(gaps.longer),
        100.0 * static_cast<double>(gaps.idle_ns) / static_cast<double>(gaps.span_ns),
        static_cast<double>(gaps.span_ns) / 1e6, static_cast<double>(gaps.longest_ns) / 1e3,
        ShortName(gaps.longest_after).c_str(), ShortName(gaps.longest_before).c_str());
    span_ns = gaps.span_ns;
  }
  for (const auto& [name, ns] : TimesByName(recorded.from_idle)) {
    if (ns * 200 < span_ns) break;
    std::printf("  %8.3f ms %5.1f %%  %s\n", static_cast<double>(ns) / 1e6,
                100.0 * static_cast<double>(ns) / static_cast<double>(span_ns), ShortName(name).c_str());
  }
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  std::vector<std::string> arguments = BenchWords(argc, argv, kUsage, {"--on-request", "--deterministic"});
  const auto take = [&](const char* flag) {
    const auto found = std::find(arguments.begin(), arguments.end(), flag);
    if (found == arguments.end()) return false;
    arguments.erase(found);
    return true;
  };
  BackendConfig config;
  config.kind = "cuda";
  config.deterministic = take("--deterministic");
  const bool on_request = take("--on-request");
  const auto timeline = KernelTimeline::Create();
  auto backend = MakeRankBackend(config);
  if (!backend.ok()) {
    std::printf("skipped: %s\n", std::string(backend.status().message()).c_str());
    return 0;
  }
  Device* const device = (*backend)->device();
  // One pair for all lengths: what kernels computed in stays with the stream.
  const std::unique_ptr<Stream> compute = device->CreateStream("compute"),
                                comm = device->CreateStream("comm");
  const RankStreams streams{device, compute.get(), comm.get()};
  if (on_request) return Serve(streams, timeline);
  std::printf("%s\n", device->info().name.c_str());
  if (arguments.empty()) arguments = {"8192", "32768", "131072", "131072:mlp"};
  for (const std::string& size : arguments) Print(streams, timeline, size);
  return 0;
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) { return seqpar::Main(argc, argv); }
