// Attention on several ranks of one thread beside one rank of one thread, and beside a control: one rank of
// two threads. Forward and backward, 8 heads of 64, causal; all in one run, interleaved.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "tests/bench/attention_ranks.h"
#include "tests/bench/usage.h"

namespace seqpar {
namespace {

constexpr char kUsage[] = R"(usage: scaling_bench [TOKENS] [REPETITIONS] [TRANSPORTS]

Attention on two and four ranks of one thread beside one rank of one thread, and beside one rank of two threads.

  TOKENS        of the sequence [8192]
  REPETITIONS   of each, interleaved [7]
  TRANSPORTS    UCX_TLS between ranks that are processes, or threads, where ranks are threads [threads]

Example: scaling_bench 8192 3 posix,cma,self
)";

AttentionRanksOptions Options(const char* name, const Mesh& mesh, int64_t tokens, CoreKind core,
                              LayoutKind layout) {
  AttentionRanksOptions options;
  options.name = name;
  options.mesh = mesh;
  options.tokens = tokens;
  options.core = core;
  options.layout = layout;
  return options;
}

// How much faster than `base`: the median of the ratios within a repetition, and the ratio of the best.
void Print(const char* title, const std::vector<double>& base, const std::vector<double>& times) {
  std::vector<double> ratios;
  for (size_t i = 0; i < times.size(); ++i) ratios.push_back(base[i] / times[i]);
  std::printf("   %s: median %5.3f, best over best %5.3f", title, Median(ratios),
              *std::min_element(base.begin(), base.end()) / *std::min_element(times.begin(), times.end()));
}

void Main(int64_t tokens, int repetitions, const std::string& transports) {
  const Mesh one{1, 1, 1, 1}, ring2{1, 1, 2, 2}, ulysses2{1, 2, 1, 1}, ring4{1, 1, 4, 4}, hybrid{1, 2, 2, 2};
  constexpr auto kRing = CoreKind::kRing;
  constexpr auto kContiguous = LayoutKind::kContiguous, kZigzag = LayoutKind::kZigzag;
  std::vector<AttentionRanksOptions> table = {
      Options("one rank of one thread", one, tokens, kRing, kContiguous),
      Options("one rank of two threads", one, tokens, kRing, kContiguous),
      Options("zigzag ring 2", ring2, tokens, kRing, kZigzag),
      Options("ulysses 2", ulysses2, tokens, kRing, kContiguous),
      Options("zigzag gather 2", ring2, tokens, CoreKind::kGather, kZigzag),
      Options("zigzag ring 4", ring4, tokens, kRing, kZigzag),
      Options("hybrid 2 x 2, zigzag", hybrid, tokens, kRing, kZigzag),
  };
  table[1].threads = 2;
  std::vector<std::unique_ptr<AttentionRanks>> worlds;
  for (AttentionRanksOptions& options : table) {
    if (transports != "threads") options.ucx = transports;
    worlds.push_back(std::make_unique<AttentionRanks>(options));
  }
  std::vector<std::vector<double>> seconds(table.size());
  std::vector<std::vector<double>> waits(table.size());
  for (int i = 0; i <= repetitions; ++i) {
    for (size_t w = 0; w < worlds.size(); ++w) {
      const AttentionTimes times = worlds[w]->Run();
      if (i == 0 && repetitions > 1) continue;  // touches memory, connects
      seconds[w].push_back(times.seconds);
      waits[w].push_back(times.wait_seconds / times.kernel_seconds);
    }
  }
  std::printf("%lld tokens, causal, 8 heads of 64, forward and backward, %s, %zu repetitions\n",
              static_cast<long long>(tokens),
              transports == "threads" ? "between threads" : ("UCX " + transports).c_str(), seconds[0].size());
  for (size_t w = 0; w < table.size(); ++w) {
    std::printf("%-24s median %8.4f s, waits %5.2f %%", table[w].name.c_str(), Median(seconds[w]),
                100 * Median(waits[w]));
    Print("speed", seconds[0], seconds[w]);
    if (w >= 2) Print("of the control", seconds[1], seconds[w]);
    std::printf("\n");
  }
  std::printf("time of the hybrid over ring 4");
  Print("", seconds[6], seconds[5]);
  std::printf("\n");
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) {
  const std::vector<std::string> words = seqpar::BenchWords(argc, argv, seqpar::kUsage);
  seqpar::Main(seqpar::BenchNumber(words, 0, "TOKENS", 8192, 4),
               static_cast<int>(seqpar::BenchNumber(words, 1, "REPETITIONS", 7)),
               words.size() > 2 ? words[2] : "threads");
}
