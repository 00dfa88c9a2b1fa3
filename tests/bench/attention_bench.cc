// The attention kernel beside this machine's float32 peak, measured in the same minute: forward and backward,
// full and causal, by the CPU time of the thread that computes. Backward counts 2.5 times forward's flops, as
// flash kernels do.
//
//   attention_bench [repetitions] [tokens] [kernel]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "common/base/check.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cpu/peak.h"

namespace seqpar {
namespace {

constexpr int kHeads = 8;

struct Work {
  int head_dim;
  bool causal;
  AttentionTile tile;
  std::vector<Buffer> memory;
  Matrix dout, out, lse, delta, dq, dk, dv;
  std::vector<double> forward, backward;  // fractions of the peak
};

Matrix NewMatrix(Device& device, Work* work, int64_t rows, int64_t cols) {
  auto buffer = device.Allocate(rows * cols * 4, "bench");
  SEQPAR_CHECK(buffer.ok());
  float* values = static_cast<float*>(buffer->data());
  for (int64_t i = 0; i < rows * cols; ++i)
    values[i] = static_cast<float>(std::rand() % 1024) / 1024.0f - 0.5f;
  work->memory.push_back(std::move(buffer).value());
  return Matrix(values, DType::kF32, rows, cols);
}

std::unique_ptr<Work> MakeWork(Device& device, int64_t tokens, int head_dim, bool causal) {
  auto work = std::make_unique<Work>();
  work->head_dim = head_dim;
  work->causal = causal;
  AttentionTile& tile = work->tile;
  tile.heads = MakeHeadRange(0, kHeads, 1);
  tile.head_dim = head_dim;
  tile.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim)));
  tile.queries = tile.keys = tokens;
  auto ranges = std::make_shared<KeyRanges>();
  for (int64_t i = 0; i < tokens; ++i) {
    ranges->lo.push_back(0);
    ranges->hi.push_back(static_cast<int32_t>(causal ? i + 1 : tokens));
    ranges->pairs += ranges->hi.back();
  }
  tile.ranges = ranges;
  const int64_t cols = int64_t{kHeads} * head_dim;
  for (Matrix* m : {&tile.q, &tile.k, &tile.v, &work->dout, &work->out, &work->dq, &work->dk, &work->dv}) {
    *m = NewMatrix(device, work.get(), tokens, cols);
  }
  work->lse = NewMatrix(device, work.get(), tokens, kHeads);
  work->delta = NewMatrix(device, work.get(), tokens, kHeads);
  return work;
}

// CPU seconds of the stream's thread in what `enqueue` enqueues.
template <typename Fn>
double CpuSeconds(Stream& stream, const Fn& enqueue) {
  double start = 0, end = 0;
  stream.HostFunction([&] {
    start = ThreadCpuSeconds();
    return absl::OkStatus();
  });
  enqueue();
  stream.HostFunction([&] {
    end = ThreadCpuSeconds();
    return absl::OkStatus();
  });
  SEQPAR_CHECK(stream.Synchronize().ok());
  return end - start;
}

void RunOnce(Device& device, Stream& stream, Work* w) {
  const double peak = MeasureFmaPeak(0.02);
  const double flops = 4 * w->tile.ranges->pairs * w->head_dim * kHeads;
  const double forward =
      CpuSeconds(stream, [&] { device.AttentionForward(stream, w->tile, w->out, w->lse, true); });
  device.AttentionDelta(stream, w->head_dim, w->dout, w->out, w->delta);
  const double backward = CpuSeconds(stream, [&] {
    device.AttentionBackward(stream, w->tile, w->dout, w->lse, w->delta, w->dq, w->dk, w->dv);
  });
  w->forward.push_back(flops / forward / peak);
  w->backward.push_back(2.5 * flops / backward / peak);
}

void Print(const Work& w, const char* pass, std::vector<double> fractions) {
  std::sort(fractions.begin(), fractions.end());
  std::printf("head_dim %3d  %-6s  %-8s  median %5.1f %%  best %5.1f %%\n", w.head_dim,
              w.causal ? "causal" : "full", pass, 100 * fractions[fractions.size() / 2],
              100 * fractions.back());
}

void Main(int repetitions, int64_t tokens, const std::string& kernel) {
  auto device = MakeCpuDevice({1, 0, kernel});
  SEQPAR_CHECK(device.ok());
  const auto stream = (*device)->CreateStream("bench");
  std::printf(
      "%s, kernel %s, %lld tokens, %d heads, one thread; peak %.1f GFLOP/s; percent of the peak beside each "
      "run\n",
      (*device)->info().name.c_str(), (*device)->info().kernel.c_str(), static_cast<long long>(tokens),
      kHeads, MeasureFmaPeak(0.2) / 1e9);
  std::vector<std::unique_ptr<Work>> works;
  for (int head_dim : {64, 128}) {
    for (bool causal : {false, true}) works.push_back(MakeWork(**device, tokens, head_dim, causal));
  }
  for (int i = 0; i < repetitions; ++i) {
    for (const auto& work : works)
      RunOnce(**device, *stream, work.get());  // interleaved: noise hits all alike
  }
  for (const auto& work : works) {
    Print(*work, "forward", work->forward);
    Print(*work, "backward", work->backward);
  }
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) {
  seqpar::Main(argc > 1 ? std::atoi(argv[1]) : 5, argc > 2 ? std::atoll(argv[2]) : 2048,
               argc > 3 ? argv[3] : "auto");
}
