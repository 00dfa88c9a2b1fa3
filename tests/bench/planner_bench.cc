// How long planning takes, what is chosen, and how long it takes to know that something fits: for each
// example cluster one job, in milliseconds of processor time.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <string>
#include <utility>

#include "coordinator/planner/planner.h"
#include "tests/bench/usage.h"
#include "tests/coordinator/planner/clusters.h"

namespace seqpar {
namespace {

constexpr char kUsage[] = R"(usage: planner_bench

How long planning takes and whether a job fits is known, in milliseconds of processor time, and what is chosen: a job on each
of some clusters, up to 10,000 devices.

Example: planner_bench | grep '1,250 x 8'
)";

void Bench(const char* name, const JobSpec& job, const ClusterSnapshot& cluster) {
  const auto ms_of = [&](const PlanOptions& options, auto&& use) {
    const std::clock_t begin = std::clock();
    use(PlanJob(job, cluster, Calibration(), options));
    return 1e3 * static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  };
  absl::StatusOr<PlannedJob> planned;
  const double took_ms = ms_of({.all_candidates = true}, [&](auto found) { planned = std::move(found); });
  const double fits_ms = ms_of({.first_that_fits = true}, [](const auto&) {});
  if (!planned.ok()) {
    std::printf("%-34s %9.2f ms  whether it fits %9.2f ms  %s\n", name, took_ms, fits_ms,
                std::string(planned.status().message()).c_str());
    return;
  }
  std::printf("%-34s %9.2f ms  whether it fits %9.2f ms  %lld shapes  %s\n", name, took_ms, fits_ms,
              static_cast<long long>(planned->explanation.considered), planned->plan.reason.c_str());
}

JobSpec Packed(JobSpec job, int64_t length) {
  for (int64_t at = 0; at < job.tokens; at += length) {
    job.mask.documents.push_back(std::min(length, job.tokens - at));
  }
  return job;
}

JobSpec Window(JobSpec job, int64_t left) {
  job.mask.kind = MaskKind::kWindow;
  job.mask.left = left;
  job.mask.right = 0;
  return job;
}

// Each node's links to the next three, as they are measured while no job waits.
ClusterSnapshot Measured(ClusterSnapshot cluster) {
  const size_t nodes = cluster.nodes.size();
  for (size_t a = 0; a < nodes; ++a) {
    for (size_t step = 1; step <= 3; ++step) {
      const std::string &x = cluster.nodes[a].name, &y = cluster.nodes[(a + step) % nodes].name;
      cluster.links.push_back({"cuda", std::min(x, y), std::max(x, y), cluster.network});
    }
  }
  return cluster;
}

int Main() {
  Bench("text, 4 slots", TextJob(), FourSlots());
  Bench("text window, 4 slots", Window(TextJob(), 255), FourSlots());
  Bench("128K, 8 x H100", LlamaJob(131072), EightH100());
  Bench("1M, 8 x H100", LlamaJob(1 << 20), EightH100());
  Bench("1M, slow network", LlamaJob(1 << 20), SlowNetwork());
  Bench("1M, 16 x 8 H200", LlamaJob(1 << 20), SixteenNodes());
  Bench("4M, 16 x 8 H200", LlamaJob(int64_t{4} << 20), SixteenNodes());
  Bench("4M window 4095, 16 x 8 H200", Window(LlamaJob(int64_t{4} << 20), 4095), SixteenNodes());
  Bench("4M in 1,024 documents, 16 x 8 H200", Packed(LlamaJob(int64_t{4} << 20), 4096), SixteenNodes());
  Bench("4M, 1,250 x 8 H200", LlamaJob(int64_t{4} << 20),
        MakeCluster(1250, 8, H200(), {10e-6, 350e9}, {15e-6, 45e9}));
  const ClusterSnapshot thousand = MakeCluster(1000, 8, H200(), {10e-6, 350e9}, {15e-6, 45e9});
  Bench("1M on 64 of 1,000 x 8 H200", WithWorkers(LlamaJob(1 << 20), 64, 64), thousand);
  Bench("... links measured", WithWorkers(LlamaJob(1 << 20), 64, 64), Measured(thousand));
  Bench("1M on 1,000 x 8 H200", LlamaJob(1 << 20), thousand);
  Bench("... links measured", LlamaJob(1 << 20), Measured(thousand));
  return 0;
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) {
  seqpar::BenchWords(argc, argv, seqpar::kUsage);
  return seqpar::Main();
}
