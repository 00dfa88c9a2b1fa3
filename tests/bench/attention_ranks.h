// One mesh's attention, forward and backward, on ranks that are threads of this process: for benches that
// compare meshes in one run. Memory is allocated and touched once.
#ifndef SEQPAR_TESTS_BENCH_ATTENTION_RANKS_H_
#define SEQPAR_TESTS_BENCH_ATTENTION_RANKS_H_

#include <memory>
#include <string>
#include <vector>

#include "common/attention/strategies.h"

namespace seqpar {

struct AttentionRanksOptions {
  std::string name;
  Mesh mesh;
  CoreKind core = CoreKind::kRing;
  LayoutKind layout = LayoutKind::kContiguous;
  MaskKind mask = MaskKind::kCausal;
  int64_t tokens = 0;
  int heads = 8;
  int head_dim = 64;
  int threads = 1;  // of each rank
  bool backward = true;
  bool one_stream = false;      // communication and kernels one after the other
  double bytes_per_second = 0;  // of each link between threads, 0: unlimited
  std::string ucx;              // UCX's transports; "": between threads
};

// Of one run; means over the ranks but for `seconds`.
struct AttentionTimes {
  double seconds = 0;         // from the moment when all ranks are ready to the end of the last
  double kernel_seconds = 0;  // of the compute stream: its operations
  double wait_seconds = 0;    // of the compute stream: for communication
};

class AttentionRanks {
 public:
  explicit AttentionRanks(const AttentionRanksOptions& options);
  ~AttentionRanks();
  const AttentionRanksOptions& options() const { return options_; }
  AttentionTimes Run();

 private:
  struct Rank;
  const AttentionRanksOptions options_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

double Median(std::vector<double> values);

}  // namespace seqpar

#endif  // SEQPAR_TESTS_BENCH_ATTENTION_RANKS_H_
