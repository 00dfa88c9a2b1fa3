// The attention kernels beside this machine's float32 peak, measured beside each run, by the CPU time of the
// thread that computes. Backward counts 2.5 times forward's flops, as flash kernels do; flops are those of
// attended pairs, whatever else a kernel computes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
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

constexpr char kUsage[] =
    R"(usage: attention_bench [--kernel NAME] [--repetitions N] [--on-request] [SHAPE...]

The attention kernels of this machine's processor on one thread, as percent of its float32 peak, measured beside each run.

  SHAPE           HEAD_DIM:TOKENS:MASK[:HEADS[/KV_HEADS]], its mask full, causal, windowLEFT (causal, with LEFT keys
                  before each query's own) or documentsLENGTH (causal in pieces of that length). Without shapes a set
                  that shows edges: head dimensions, lengths, masks and groups
  --kernel        auto [auto], or an instruction set: AVX3, AVX2, SSE4, NEON, scalar
  --repetitions   of every shape, interleaved [7]
  --on-request    one repetition of all shapes for each line of input; prints each shape's seconds forward, backward and
                  the peak, for whoever interleaves them with something else (attention_peer.py)

Example: attention_bench --kernel AVX2 --repetitions 5 128:4096:causal:8/2 64:4096:window512
)";

struct Shape {
  std::string name;
  int head_dim = 0, heads = 1, kv_heads = 1;
  int64_t tokens = 0, window = -1, document = 0;
  bool causal = true;
};

const char* const kDefaultShapes[] = {
    "64:2048:full:4",         "64:2048:causal:4", "128:2048:full:2",  "128:2048:causal:2",
    "40:2048:causal:4",       "80:2048:causal:2", "96:2048:causal:2", "64:2048:causal:4/1",
    "128:2048:causal:4/1",    "64:4096:causal:2", "64:16384:causal",  "64:16384:window1023",
    "64:16384:documents1024",
};

Shape ParseShape(const std::string& name) {
  Shape shape;
  shape.name = name;
  char mask[32] = "";
  long long tokens = 0;
  const int fields = std::sscanf(name.c_str(), "%d:%lld:%31[a-z0-9]:%d/%d", &shape.head_dim, &tokens, mask,
                                 &shape.heads, &shape.kv_heads);
  shape.tokens = tokens;
  if (fields < 5) shape.kv_heads = shape.heads;
  long long length = 0;
  const std::string kind = mask;
  shape.causal = kind != "full";
  if (std::sscanf(mask, "window%lld", &length) == 1) {
    shape.window = length;
  } else if (std::sscanf(mask, "documents%lld", &length) == 1) {
    shape.document = length;
  } else if (kind != "full" && kind != "causal") {
    shape.tokens = 0;
  }
  if (fields < 3 || shape.head_dim < 1 || shape.tokens < 1 || shape.kv_heads < 1 ||
      shape.heads % shape.kv_heads != 0) {
    std::fprintf(stderr, "SHAPE: '%s' is not HEAD_DIM:TOKENS:MASK[:HEADS[/KV_HEADS]] (--help)\n",
                 name.c_str());
    std::exit(2);
  }
  return shape;
}

struct Seconds {
  double forward, backward, peak;  // peak in flops a second
};

struct Work {
  Shape shape;
  AttentionTile tile;
  std::vector<Buffer> memory;
  Matrix dout, out, lse, delta, dq, dk, dv;
  double flops = 0;  // forward
  std::vector<Seconds> runs;
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

std::shared_ptr<const KeyRanges> RangesOf(const Shape& shape) {
  auto ranges = std::make_shared<KeyRanges>();
  for (int64_t i = 0; i < shape.tokens; ++i) {
    const int64_t lo = shape.document > 0  ? i / shape.document * shape.document
                       : shape.window >= 0 ? std::max<int64_t>(0, i - shape.window)
                                           : 0;
    const int64_t hi = shape.causal ? i + 1 : shape.tokens;
    ranges->lo.push_back(static_cast<int32_t>(lo));
    ranges->hi.push_back(static_cast<int32_t>(hi));
    ranges->pairs += static_cast<double>(hi - lo);
  }
  return ranges;
}

std::unique_ptr<Work> MakeWork(Device& device, const Shape& shape) {
  auto work = std::make_unique<Work>();
  work->shape = shape;
  AttentionTile& tile = work->tile;
  tile.heads = {0, shape.heads, 0, shape.kv_heads};
  tile.group = shape.heads / shape.kv_heads;
  tile.head_dim = shape.head_dim;
  tile.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  tile.queries = tile.keys = shape.tokens;
  tile.ranges = RangesOf(shape);
  work->flops = 4 * static_cast<double>(tile.ranges->pairs) * shape.head_dim * shape.heads;
  const int64_t cols = int64_t{shape.heads} * shape.head_dim;
  const int64_t kv_cols = int64_t{shape.kv_heads} * shape.head_dim;
  for (Matrix* m : {&tile.q, &work->dout, &work->out, &work->dq})
    *m = NewMatrix(device, work.get(), shape.tokens, cols);
  for (Matrix* m : {&tile.k, &tile.v, &work->dk, &work->dv})
    *m = NewMatrix(device, work.get(), shape.tokens, kv_cols);
  work->lse = NewMatrix(device, work.get(), shape.tokens, shape.heads);
  work->delta = NewMatrix(device, work.get(), shape.tokens, shape.heads);
  return work;
}

// Delta is part of backward.
Seconds RunOnce(Device& device, Stream& stream, const Work& w) {
  Seconds s;
  s.peak = MeasureFmaPeak(0.02);
  s.forward = CpuSeconds(stream, [&] { device.AttentionForward(stream, w.tile, w.out, w.lse, true); });
  s.backward = CpuSeconds(stream, [&] {
    device.AttentionDelta(stream, w.shape.head_dim, w.dout, w.out, w.delta);
    device.AttentionBackward(stream, w.tile, w.dout, w.lse, w.delta, w.dq, w.dk, w.dv);
  });
  return s;
}

void Print(const Work& w) {
  std::vector<double> forward, backward;
  for (const Seconds& s : w.runs) {
    forward.push_back(100 * w.flops / s.forward / s.peak);
    backward.push_back(250 * w.flops / s.backward / s.peak);
  }
  std::sort(forward.begin(), forward.end());
  std::sort(backward.begin(), backward.end());
  std::printf("%-24s forward median %5.1f %%  best %5.1f %%   backward median %5.1f %%  best %5.1f %%\n",
              w.shape.name.c_str(), forward[forward.size() / 2], forward.back(),
              backward[backward.size() / 2], backward.back());
}

struct Options {
  std::string kernel = "auto";
  int repetitions = 7;
  bool on_request = false;
  std::vector<Shape> shapes;
};

void Main(const Options& options) {
  auto device = MakeCpuDevice({1, 0, options.kernel});
  SEQPAR_CHECK(device.ok());
  const auto stream = (*device)->CreateStream("bench");
  std::vector<std::unique_ptr<Work>> works;
  for (const Shape& shape : options.shapes) works.push_back(MakeWork(**device, shape));
  if (options.on_request) {
    for (std::string line; std::getline(std::cin, line);) {
      for (const auto& work : works) {
        const Seconds s = RunOnce(**device, *stream, *work);
        std::cout << work->shape.name << " " << work->flops << " " << s.forward << " " << s.backward << " "
                  << s.peak << std::endl;
      }
    }
    return;
  }
  std::printf("%s, kernel %s, one thread; peak %.1f GFLOP/s; percent of the peak beside each run\n",
              (*device)->info().name.c_str(), (*device)->info().kernel.c_str(), MeasureFmaPeak(0.2) / 1e9);
  for (int i = 0; i < options.repetitions; ++i) {
    for (const auto& work : works) {
      work->runs.push_back(RunOnce(**device, *stream, *work));  // interleaved: noise hits all alike
    }
  }
  for (const auto& work : works) Print(*work);
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) {
  const std::vector<std::string> words =
      seqpar::BenchWords(argc, argv, seqpar::kUsage, {"--kernel", "--repetitions", "--on-request"});
  seqpar::Options options;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--kernel" && i + 1 < words.size()) {
      options.kernel = words[++i];
    } else if (words[i] == "--repetitions" && i + 1 < words.size()) {
      options.repetitions = static_cast<int>(seqpar::BenchNumber(words, ++i, "--repetitions", 7));
    } else if (words[i] == "--on-request") {
      options.on_request = true;
    } else {
      options.shapes.push_back(seqpar::ParseShape(words[i]));
    }
  }
  if (options.shapes.empty()) {
    for (const char* name : seqpar::kDefaultShapes) options.shapes.push_back(seqpar::ParseShape(name));
  }
  seqpar::Main(options);
}
