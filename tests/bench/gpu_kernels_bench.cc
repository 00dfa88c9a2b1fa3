// The kernels of the first GPU: attention, products and what reads memory once, each a median of five timings
// by the stream's own clock, on random data. Rates are printed beside two ceilings measured in the same run:
// a large product of the same type, and a copy.
//
// --on-request is for gpu_attention_peer.py: a line "shape HEAD_DIM:TOKENS:full|causal:HEADS/KV_HEADS"
// makes operands of bfloat16. After it each line "go" is answered by "FLOPS FORWARD BACKWARD", flops of a
// forward pass and the seconds of one call of each, attention that is whole, with results of bfloat16;
// "steps" by "FIRST MERGED ALONE ADDED", seconds of a ring's steps: forward with results of float32, given
// and merged into those that are there; backward with results of bfloat16, and added to sums of float32;
// "times" and "step_times" by "KERNEL US ..." of those two backward passes; "kernel" by what attention has
// run on.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/parallel/mask.h"
#include "tests/bench/kernel_timeline.h"
#include "tests/bench/random_fill.h"
#include "tests/bench/usage.h"
#include "worker/backend/backend.h"

namespace seqpar {
namespace {

constexpr char kUsage[] = R"(usage: gpu_kernels_bench [LONGEST]
       gpu_kernels_bench --on-request [--deterministic]

The kernels of the first GPU, medians of five timings on random data, beside a large product and a copy of the same run.

  LONGEST           tokens of the longest attention [32768]
  --on-request      answers lines of input (gpu_attention_peer.py)
  --deterministic   attention's backward pass in a fixed order

Example: gpu_kernels_bench 131072
)";

constexpr int kRounds = 5;

class Bench {
 public:
  explicit Bench(Device* device) : device_(device), stream_(device->CreateStream("bench")) {}

  Matrix New(DType type, int64_t rows, int64_t cols) {
    auto buffer = device_->Allocate(rows * cols * SizeOf(type), "bench");
    SEQPAR_CHECK(buffer.ok());
    const Matrix m(buffer->data(), type, rows, cols);
    memory_.push_back(std::move(buffer).value());
    FillNormal(device_, *stream_, &random_, 1, m);
    return m;
  }
  void Clear() { memory_.clear(); }

  // Of one call.
  double SecondsOnce(const std::function<void(Stream&)>& call) {
    const double before = stream_->times().busy_seconds;
    call(*stream_);
    const absl::Status status = stream_->Synchronize();
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
      std::exit(1);
    }
    return stream_->times().busy_seconds - before;
  }
  // Median of several, after one that warms up.
  double Seconds(const std::function<void(Stream&)>& call) {
    std::vector<double> all;
    SecondsOnce(call);
    for (int round = 0; round < kRounds; ++round) all.push_back(SecondsOnce(call));
    std::sort(all.begin(), all.end());
    return all[all.size() / 2];
  }

  double Product(DType type, int64_t m, int64_t n, int64_t k) {
    const Matrix a = New(type, m, k), b = New(type, n, k), c = New(type, m, n);
    const double seconds =
        Seconds([&](Stream& s) { device_->Gemm(s, a, false, b, true, c, false, nullptr); });
    Clear();
    return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) / seconds;
  }

  double CopyRate() {
    const Matrix a = New(DType::kF32, 1 << 16, 1 << 12), b = New(DType::kF32, 1 << 16, 1 << 12);
    const double seconds = Seconds([&](Stream& s) { device_->Copy(s, a, b); });
    const double rate = 2.0 * static_cast<double>(a.bytes()) / seconds;
    Clear();
    return rate;
  }

  // One tile of every query and key, with what it needs in device memory until Clear().
  struct AttentionProblem {
    Mask mask;
    AttentionTile tile;
    double flops = 0;  // forward
    Matrix out, lse, dout, delta, dq, dkv;
    Matrix whole_out, whole_dq, whole_dkv;  // of the storage type

    Matrix dk() const { return dkv.Cols(0, dkv.cols / 2); }
    Matrix dv() const { return dkv.Cols(dkv.cols / 2, dkv.cols); }
  };
  std::unique_ptr<AttentionProblem> NewAttention(DType type, int head_dim, int heads, int kv_heads, int64_t n,
                                                 MaskKind kind) {
    auto problem = std::make_unique<AttentionProblem>();
    AttentionProblem& p = *problem;
    p.mask = Mask(kind, n);
    const TokenShare all({{0, n, 1}});
    AttentionTile& tile = p.tile;
    tile.group = heads / kv_heads;
    tile.heads = MakeHeadRange(0, heads, tile.group);
    tile.head_dim = head_dim;
    tile.scale = 1 / std::sqrt(static_cast<float>(head_dim));
    tile.queries = tile.keys = n;
    const auto ranges = std::make_shared<KeyRanges>(ComputeKeyRanges(p.mask, all, all));
    tile.ranges = ranges;
    tile.mask = &p.mask;
    tile.query_positions = tile.key_positions = all;
    tile.q = New(type, n, int64_t{heads} * head_dim);
    tile.k = New(type, n, int64_t{kv_heads} * head_dim);
    tile.v = New(type, n, int64_t{kv_heads} * head_dim);
    p.flops = 4 * ranges->pairs * heads * head_dim;
    p.out = New(DType::kF32, n, tile.q.cols), p.lse = New(DType::kF32, n, heads);
    p.dout = New(type, n, tile.q.cols), p.delta = New(DType::kF32, n, heads);
    p.dq = New(DType::kF32, n, tile.q.cols), p.dkv = New(DType::kF32, n, 2 * tile.k.cols);
    p.whole_out = New(type, n, tile.q.cols), p.whole_dq = New(type, n, tile.q.cols),
    p.whole_dkv = New(type, n, 2 * tile.k.cols);
    return problem;
  }
  void Forward(const AttentionProblem& p, Stream& s, bool first) {
    device_->AttentionForward(s, p.tile, p.out, p.lse, first);
  }
  void Backward(const AttentionProblem& p, Stream& s) {
    device_->AttentionDelta(s, p.tile.head_dim, p.dout, p.out, p.delta);
    device_->AttentionBackward(s, p.tile, p.dout, p.lse, p.delta, p.dq, p.dk(), p.dv());
  }
  void WholeForward(const AttentionProblem& p, Stream& s) {
    device_->WholeAttentionForward(s, p.tile, p.whole_out, p.lse, p.out);
  }
  void WholeBackward(const AttentionProblem& p, Stream& s) {
    device_->AttentionDelta(s, p.tile.head_dim, p.dout, p.whole_out, p.delta);
    device_->WholeAttentionBackward(s, p.tile, p.dout, p.lse, p.delta, {p.whole_dq, p.whole_dkv},
                                    {p.dq, p.dkv});
  }

  void Attention(DType type, int head_dim, int heads, int kv_heads, int64_t n, MaskKind kind,
                 double ceiling) {
    const auto problem = NewAttention(type, head_dim, heads, kv_heads, n, kind);
    const Bench::AttentionProblem& p = *problem;
    const double flops = p.flops;
    const double forward = Seconds([&](Stream& s) { Forward(p, s, true); });
    const double merged = Seconds([&](Stream& s) { Forward(p, s, false); });
    Forward(p, *stream_, true);
    const double backward = Seconds([&](Stream& s) { Backward(p, s); });
    std::printf(
        "attention %-8s Dh %3d heads %d/%-2d N %6lld %-6s forward %6.1f  merged %6.1f  backward %6.1f "
        "TFLOP/s  (%.2f / %.2f of the product rate)\n",
        type == DType::kF32 ? "float32" : "bfloat16", head_dim, heads, kv_heads, static_cast<long long>(n),
        kind == MaskKind::kFull ? "full" : "causal", flops / forward / 1e12, flops / merged / 1e12,
        2.5 * flops / backward / 1e12, flops / forward / ceiling, 2.5 * flops / backward / ceiling);
    std::fflush(stdout);
    Clear();
  }

  void Pointwise(double copy_rate) {
    const int64_t rows = 32768, cols = 4096;
    const DType type = DType::kBF16;
    const Matrix x = New(type, rows, cols), y = New(type, rows, cols), z = New(type, rows, cols);
    const Matrix weight = New(type, 1, cols), stats = New(DType::kF32, rows, 2),
                 sums = New(DType::kF32, 1, cols);
    const Matrix table = New(DType::kF32, rows, 128);
    const double bytes = static_cast<double>(x.bytes());
    const auto row = [&](const char* what, double moved, double seconds) {
      std::printf("%-22s %6.0f GB/s  %.2f of the copy rate\n", what, moved / seconds / 1e9,
                  moved / seconds / copy_rate);
    };
    float* s_stats = static_cast<float*>(stats.data);
    row("norm forward", 2 * bytes, Seconds([&](Stream& s) {
          device_->NormForward(s, NormKind::kRmsNorm, x, weight, nullptr, 1e-5f, y, s_stats);
        }));
    row("norm backward", 3 * bytes, Seconds([&](Stream& s) {
          device_->NormBackward(s, NormKind::kRmsNorm, x, weight, s_stats, y, nullptr, z,
                                static_cast<float*>(sums.data), nullptr);
        }));
    row("swiglu forward", 3 * bytes,
        Seconds([&](Stream& s) { device_->ActivationForward(s, MlpKind::kSwiglu, &x, y, z); }));
    row("swiglu backward", 5 * bytes, Seconds([&](Stream& s) {
          device_->ActivationBackward(s, MlpKind::kSwiglu, &x, y, z, &x, y, nullptr);
        }));
    row("swiglu backward, with y", 6 * bytes,
        Seconds([&](Stream& s) { device_->ActivationBackward(s, MlpKind::kSwiglu, &x, y, z, &x, y, &z); }));
    row("rotary", 2 * bytes + static_cast<double>(table.bytes()),
        Seconds([&](Stream& s) { device_->Rotary(s, z, 1, 128, static_cast<float*>(table.data), false); }));
    row("add", 3 * bytes, Seconds([&](Stream& s) { device_->Add(s, x, y, z); }));
    Clear();
  }

 private:
  Device* const device_;
  const std::unique_ptr<Stream> stream_;
  std::vector<Buffer> memory_;
  std::mt19937 random_{1};
};

// "NAME US ..." of the call's kernels, the most first; "none WHY".
std::string KernelTimes(const absl::StatusOr<std::unique_ptr<KernelTimeline>>& timeline, Bench* bench,
                        const std::function<void(Stream&)>& call) {
  const auto record = [&]() -> absl::StatusOr<std::vector<DeviceWork>> {
    SEQPAR_RETURN_IF_ERROR(timeline.status());
    SEQPAR_RETURN_IF_ERROR((*timeline)->Start());
    bench->SecondsOnce(call);
    return (*timeline)->Stop();
  };
  const absl::StatusOr<std::vector<DeviceWork>> work = record();
  if (!work.ok()) return absl::StrCat("none ", work.status().message());
  std::string text;
  for (const auto& [name, ns] : TimesByName(*work)) {
    absl::StrAppend(&text, text.empty() ? "" : " ", ShortName(name), " ", static_cast<double>(ns) / 1e3);
  }
  return text;
}

// See the head of the file.
int Serve(Bench* bench, const Device& device,
          const absl::StatusOr<std::unique_ptr<KernelTimeline>>& timeline) {
  std::unique_ptr<Bench::AttentionProblem> problem;
  bool turn = true;
  for (std::string word; std::cin >> word;) {
    if (word == "shape") {
      std::string shape;
      std::cin >> shape;
      int head_dim = 0, heads = 0, kv_heads = 0;
      long long tokens = 0;
      char mask[16];
      if (std::sscanf(shape.c_str(), "%d:%lld:%15[a-z]:%d/%d", &head_dim, &tokens, mask, &heads, &kv_heads) !=
          5) {
        std::fprintf(stderr, "%s: not HEAD_DIM:TOKENS:MASK:HEADS/KV_HEADS\n", shape.c_str());
        return 2;
      }
      bench->Clear();
      problem = bench->NewAttention(DType::kBF16, head_dim, heads, kv_heads, tokens,
                                    std::string(mask) == "full" ? MaskKind::kFull : MaskKind::kCausal);
    } else if (word == "go" && problem != nullptr) {
      const Bench::AttentionProblem& p = *problem;
      const double forward = bench->SecondsOnce([&](Stream& s) { bench->WholeForward(p, s); });
      const double backward = bench->SecondsOnce([&](Stream& s) { bench->WholeBackward(p, s); });
      std::printf("%.9g %.9g %.9g\n", p.flops, forward, backward);
    } else if (word == "steps" && problem != nullptr) {
      // A card slows down as it warms up: of two neither is always the later.
      double first = 0, merged = 0, alone = 0, added = 0;
      for (const bool is_first : {turn, !turn}) {
        (is_first ? first : merged) =
            bench->SecondsOnce([&](Stream& s) { bench->Forward(*problem, s, is_first); });
      }
      for (const bool adds : {turn, !turn}) {
        (adds ? added : alone) = bench->SecondsOnce(
            [&](Stream& s) { adds ? bench->Backward(*problem, s) : bench->WholeBackward(*problem, s); });
      }
      turn = !turn;
      std::printf("%.9g %.9g %.9g %.9g\n", first, merged, alone, added);
    } else if ((word == "times" || word == "step_times") && problem != nullptr) {
      const bool adds = word == "step_times";
      const std::string text = KernelTimes(timeline, bench, [&](Stream& s) {
        adds ? bench->Backward(*problem, s) : bench->WholeBackward(*problem, s);
      });
      std::printf("%s\n", text.c_str());
    } else if (word == "kernel") {
      std::printf("%s\n", device.attention_use().kernel.c_str());
    } else {
      std::fprintf(stderr, "%s: not shape, go, steps, times, step_times or kernel\n", word.c_str());
      return 2;
    }
    std::fflush(stdout);
  }
  return 0;
}

int Main(int argc, char** argv) {
  const std::vector<std::string> words = BenchWords(argc, argv, kUsage, {"--on-request", "--deterministic"});
  const bool on_request = !words.empty() && words[0] == "--on-request";
  const int64_t longest = on_request ? 0 : BenchNumber(words, 0, "LONGEST", 32768);
  BackendConfig config;
  config.kind = "cuda";
  config.deterministic = on_request && words.size() > 1 && words[1] == "--deterministic";
  const auto timeline = KernelTimeline::Create();
  auto backend = MakeRankBackend(config);
  if (!backend.ok()) {
    std::printf("skipped: %s\n", std::string(backend.status().message()).c_str());
    return 0;
  }
  Bench bench((*backend)->device());
  if (on_request) return Serve(&bench, *(*backend)->device(), timeline);
  std::printf("%s\n", (*backend)->device()->info().name.c_str());
  const double single = bench.Product(DType::kF32, 8192, 8192, 8192);
  const double half = bench.Product(DType::kBF16, 8192, 8192, 8192);
  const double copy = bench.CopyRate();
  std::printf(
      "product 8192^3: float32 %.1f, bfloat16 %.1f TFLOP/s; 32768 x 14336 x 4096 bfloat16 %.1f; copy %.0f "
      "GB/s\n",
      single / 1e12, half / 1e12, bench.Product(DType::kBF16, 32768, 14336, 4096) / 1e12, copy / 1e9);
  bench.Pointwise(copy);
  for (int64_t n = 8192; n <= longest; n *= 4) {
    for (const int head_dim : {64, 128}) {
      for (const MaskKind kind : {MaskKind::kCausal, MaskKind::kFull}) {
        if (n > 8192 && kind == MaskKind::kFull) continue;
        bench.Attention(DType::kF32, head_dim, 8, 8, n, kind, single);
        bench.Attention(DType::kBF16, head_dim, 32, 32, n, kind, half);
      }
    }
    bench.Attention(DType::kBF16, 128, 32, 8, n, MaskKind::kCausal, half);
  }
  return 0;
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) { return seqpar::Main(argc, argv); }
