// How much of the ring's communication hides behind its tiles, forward and backward, between threads.
//
// Slowed link: the rate is such that K/V of a share take as long as the tile that hides them (measured
// first). Ring of 2, contiguous, full mask, forward: one step with a transfer, and a last tile. The step is
// what remains of the wall clock without the last tile; beside it stands the same on one stream, where the
// transfer and the tile follow one another.
//
// Unslowed link: the time that kernels wait for communication, over the time of the kernels.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "tests/bench/attention_ranks.h"
#include "tests/bench/usage.h"

namespace seqpar {
namespace {

constexpr char kUsage[] = R"(usage: overlap_bench [TOKENS] [REPETITIONS]

How much of a ring's communication hides behind its tiles: on a link slowed until a transfer takes as long as a tile, and on
one as it is, between two threads.

  TOKENS        of the sequence [8192]
  REPETITIONS   of each [7]

Example: overlap_bench 4096 5
)";

AttentionRanksOptions Forward(int64_t tokens, double bytes_per_second, bool one_stream) {
  AttentionRanksOptions options;
  options.mesh = Mesh{1, 1, 2, 2};
  options.mask = MaskKind::kFull;
  options.tokens = tokens;
  options.backward = false;
  options.bytes_per_second = bytes_per_second;
  options.one_stream = one_stream;
  return options;
}

double Best(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }

void SlowedLink(int64_t tokens, int repetitions) {
  AttentionRanks unslowed(Forward(tokens, 0, false));
  std::vector<double> tiles;
  for (int i = 0; i < repetitions; ++i) tiles.push_back(unslowed.Run().kernel_seconds / 2);
  const double transfer = Best(tiles);
  const double bytes = static_cast<double>(tokens / 2) * 2 * 8 * 64 * 4;
  AttentionRanks overlapped(Forward(tokens, bytes / transfer, false));
  AttentionRanks in_turn(Forward(tokens, bytes / transfer, true));
  std::vector<double> with, without;
  for (int i = 0; i < repetitions; ++i) {
    const AttentionTimes a = overlapped.Run(), b = in_turn.Run();
    const double tile = a.kernel_seconds / 2;
    with.push_back((a.seconds - tile) / std::max(tile, transfer));
    // On one stream the exchange is an operation of it, too.
    const double tile_in_turn = (b.kernel_seconds - transfer) / 2;
    without.push_back((b.seconds - tile_in_turn) / std::max(tile_in_turn, transfer));
  }
  std::printf("slowed link, %lld tokens, K/V of a share %.1f MB in %.1f ms, as long as a tile\n",
              static_cast<long long>(tokens), bytes / 1e6, transfer * 1e3);
  std::printf("  step over the larger of the two: median %.3f, best %.3f\n", Median(with), Best(with));
  std::printf("  one after the other:             median %.3f, best %.3f\n", Median(without), Best(without));
}

void UnslowedLink(int64_t tokens, int repetitions, bool backward) {
  AttentionRanksOptions options;
  options.mesh = Mesh{1, 1, 2, 2};
  options.layout = LayoutKind::kZigzag;
  options.tokens = tokens;
  options.backward = backward;
  AttentionRanks ring(options);
  ring.Run();  // touches the memory
  std::vector<double> waits;
  for (int i = 0; i < repetitions; ++i) {
    const AttentionTimes times = ring.Run();
    waits.push_back(times.wait_seconds / times.kernel_seconds);
  }
  std::printf(
      "unslowed link, %lld tokens, zigzag, causal, %s: waits over kernels median %.3f %%, best %.3f %%\n",
      static_cast<long long>(tokens), backward ? "forward and backward" : "forward", 100 * Median(waits),
      100 * Best(waits));
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) {
  const std::vector<std::string> words = seqpar::BenchWords(argc, argv, seqpar::kUsage);
  const int64_t tokens = seqpar::BenchNumber(words, 0, "TOKENS", 8192, 2);
  const int repetitions = static_cast<int>(seqpar::BenchNumber(words, 1, "REPETITIONS", 7));
  seqpar::SlowedLink(tokens / 2, repetitions);
  seqpar::UnslowedLink(tokens, repetitions, false);
  seqpar::UnslowedLink(tokens, repetitions, true);
}
