// How good the planner's choice is: every feasible mesh of a set of jobs is run, the choice beside the best
// of them. Ranks are threads of this process with one core each; rates and links are measured first, as
// workers do when they join.
//
// For each job: seconds of the chosen mesh and of the best, the regret (chosen over best), and how far the
// prediction of the chosen mesh was off. All meshes of a job take turns, so that a slow minute of the machine
// meets all of them; each counts with its fastest repetition. The choice runs twice in each turn: by what two
// such series of one plan differ (the control, SpreadOfBest), a regret counts as none.
//
// Memory stays with the process: what a job touches for the first time is alike for its meshes, and takes
// from one to twenty times as long on a virtual machine, as it happens. So it is neither measured nor
// predicted.
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/cgroup.h"
#include "common/base/check.h"
#include "common/base/data_roots.h"
#include "common/base/flag_checks.h"
#include "common/base/status.h"
#include "common/comm/measure_link.h"
#include "common/layers/rank_groups.h"
#include "coordinator/planner/explain.h"
#include "coordinator/planner/planner.h"
#include "tests/oracle/run_ranks.h"
#include "tests/support/spread.h"
#include "worker/device/cpu/calibrate.h"
#include "worker/executor/shard.h"
#include "worker/executor/transfer.h"

namespace seqpar {
namespace {

constexpr double kSlowedBytes = 1e8;  // a thousand tokens' K and V of the bench's jobs take ten milliseconds

struct Options {
  bool all = false;      // jobs of up to 64K tokens
  bool verbose = false;  // every mesh
  int repetitions = 3;
  double seconds = 4;
  int ranks = 2;
  std::string jobs;  // part of their names
  std::vector<std::string> links = {"even", "slowed"};
};

struct BenchJob {
  std::string name;
  JobSpec job;
};

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

// --- what the planner knows ---

NodeSnapshot MeasureNode(int ranks, double bytes_per_second) {
  NodeSnapshot node;
  node.name = "bench";
  node.cores = UsableCores();
  std::vector<DeviceRates> rates(ranks);
  std::vector<MeasuredLink> links(ranks);
  RunRanksOptions options;
  options.bytes_per_second = bytes_per_second;
  const absl::Status measured = RunRanks(
      ranks,
      [&](TestRank& self) -> absl::Status {
        CpuCalibration how;
        how.by_cpu_time = true;  // as workers with slots of one thread
        how.together = [&self] {
          self.world->Barrier(*self.comm);
          return self.comm->Synchronize();
        };
        SEQPAR_ASSIGN_OR_RETURN(rates[self.rank], MeasureCpuRates(*self.device, how));
        if (ranks == 1) return absl::OkStatus();
        SEQPAR_ASSIGN_OR_RETURN(links[self.rank],
                                MeasureLink(*self.device, *self.world, *self.compute, *self.comm));
        return absl::OkStatus();
      },
      options);
  SEQPAR_CHECK(measured.ok());
  const double share =
      std::min(1.0, static_cast<double>(node.cores) / ranks);  // of a core, while all are busy
  DeviceSpec slot{"cpu", "bench", int64_t{6} << 30, 1, Scaled(MeanRates(rates), share)};
  slot.rates.touch_bytes = 0;  // none is new
  node.devices.assign(ranks, slot);
  node.free.assign(ranks, true);
  for (const MeasuredLink& link : links) {
    node.local.latency += link.latency / ranks;
    node.local.bandwidth += link.bandwidth / ranks;
  }
  return node;
}

void PrintNode(const NodeSnapshot& node, int ranks, const std::string& link) {
  const DeviceRates& rates = node.devices.front().rates;
  const AttentionRates attention = AttentionRatesAt(rates, 64);
  std::printf(
      "%d ranks on %d cores, %s link: latency %.1f us, %.2f GB/s; products %.1f GFLOP/s, attention %.1f and "
      "%.1f, pointwise %.1f GB/s, copies %.1f, an operation %.2f us\n",
      ranks, node.cores, link.c_str(), 1e6 * node.local.latency, 1e-9 * node.local.bandwidth,
      1e-9 * rates.gemm_flops, 1e-9 * attention.forward_flops, 1e-9 * attention.backward_flops,
      1e-9 * rates.pointwise_bytes, 1e-9 * rates.copy_bytes, 1e6 * rates.operation_seconds);
}

// --- running a plan ---

// Seconds of the step, of the slowest rank.
double RunPlan(const JobSpec& job, const Plan& plan, double bytes_per_second) {
  std::vector<double> seconds(plan.mesh.size());
  const DataRoots roots = DataRoots::Create({}).value();
  RunRanksOptions options;
  options.bytes_per_second = bytes_per_second;
  const absl::Status ran = RunRanks(
      plan.mesh.size(),
      [&](TestRank& self) -> absl::Status {
        const HeadLayout heads(plan.mesh, job.config.heads, job.config.kv_heads);
        SEQPAR_ASSIGN_OR_RETURN(const RankGroups groups, RankGroups::Create(self.world, plan.mesh, heads));
        Transfers transfers(self.device, self.compute, [] {});
        const RankStreams streams{self.device, self.compute, self.comm};
        SEQPAR_ASSIGN_OR_RETURN(ShardedModel model, LoadShard(job, plan, self.rank, roots, streams, &groups,
                                                              v1::Checkpoints(), &transfers));
        self.world->Barrier(*self.comm);
        SEQPAR_RETURN_IF_ERROR(self.comm->Synchronize());
        const auto start = Clock::now();
        SEQPAR_RETURN_IF_ERROR(model.stack->Forward({}));
        if (job.backward()) SEQPAR_RETURN_IF_ERROR(model.stack->Backward({}));
        seconds[self.rank] = SecondsSince(start);
        self.world->Barrier(*self.comm);
        return self.comm->Synchronize();
      },
      options);
  if (!ran.ok()) std::fprintf(stderr, "%s\n", std::string(ran.message()).c_str());
  SEQPAR_CHECK(ran.ok());
  return *std::max_element(seconds.begin(), seconds.end());
}

struct Entry {
  Plan plan;
  std::string name;
  std::vector<double> seconds;
  double best() const { return BestOf(seconds); }
  double error() const { return plan.prediction.step_seconds / best() - 1; }
};

// Every mesh that the job allows and that fits, the planner's choice first.
std::vector<Entry> Candidates(const JobSpec& job, const ClusterSnapshot& cluster) {
  const auto planned = PlanJob(job, cluster, Calibration(), {.all_candidates = true});
  SEQPAR_CHECK(planned.ok());
  std::vector<Entry> entries;
  for (const Candidate& candidate : planned->explanation.all) {
    if (!candidate.feasible) continue;
    JobSpec fixed = job;
    fixed.min_workers = fixed.max_workers = candidate.mesh.size();
    fixed.parallelism = {};
    fixed.parallelism.strategy = candidate.strategy;
    fixed.parallelism.tensor = candidate.mesh.tensor;
    fixed.parallelism.ulysses = candidate.mesh.ulysses;
    fixed.parallelism.ring = candidate.mesh.ring;
    fixed.parallelism.inner = candidate.mesh.inner;
    fixed.parallelism.core = candidate.core;
    fixed.parallelism.layout = candidate.layout;
    const auto one = PlanJob(fixed, cluster, Calibration(), {});
    SEQPAR_CHECK(one.ok());
    entries.push_back({one->plan, NameOf(candidate), {}});
  }
  SEQPAR_CHECK(!entries.empty());
  return entries;
}

struct Outcome {
  double regret = 1, raw = 1, spread = 1, error = 0;
  std::vector<double> errors;  // of every mesh
};

Outcome RunJob(const BenchJob& bench, const NodeSnapshot& node, double bytes_per_second,
               const Options& options) {
  ClusterSnapshot cluster;
  cluster.nodes = {node};
  std::vector<Entry> entries = Candidates(bench.job, cluster);
  // The control: the choice once more, as if it were another mesh.
  Entry control = entries.front();
  const auto begin = Clock::now();
  for (int done = 0; done < options.repetitions || SecondsSince(begin) < options.seconds; ++done) {
    for (Entry& entry : entries) {
      entry.seconds.push_back(RunPlan(bench.job, entry.plan, bytes_per_second));
    }
    control.seconds.push_back(RunPlan(bench.job, control.plan, bytes_per_second));
  }
  const Entry& chosen = entries.front();
  const Entry* best = &chosen;
  for (const Entry& entry : entries) {
    if (entry.best() < best->best()) best = &entry;
  }
  Outcome outcome;
  outcome.spread = SpreadOfBest(chosen.seconds, control.seconds);
  outcome.raw = chosen.best() / best->best();
  outcome.regret = outcome.raw <= outcome.spread ? 1 : outcome.raw;
  outcome.error = chosen.error();
  std::printf(
      "%-40s %-22s %8.4f s  best %-22s %8.4f s  regret %.3f (raw %.3f, control %.3f, %zu turns)  error "
      "%+.1f %%\n",
      bench.name.c_str(), chosen.name.c_str(), chosen.best(), best->name.c_str(), best->best(),
      outcome.regret, outcome.raw, outcome.spread, chosen.seconds.size(), 100 * outcome.error);
  for (const Entry& entry : entries) {
    outcome.errors.push_back(std::abs(entry.error()));
    if (!options.verbose) continue;
    const Prediction& p = entry.plan.prediction;
    std::printf(
        "    %-26s %8.4f s  predicted %8.4f (%+.1f %%): attention %.4f products %.4f pointwise %.4f "
        "exposed %.4f\n",
        entry.name.c_str(), entry.best(), p.step_seconds, 100 * entry.error(), p.attention_seconds,
        p.product_seconds, p.pointwise_seconds, p.communication_seconds);
  }
  std::fflush(stdout);
  return outcome;
}

// --- the jobs ---

BenchJob MakeJob(const std::string& name, int64_t tokens, int heads, int kv_heads, int ranks,
                 const std::function<void(JobSpec*)>& change = {}) {
  BenchJob bench{absl::StrCat(name, ", ", tokens, " tokens, heads ", heads, "/", kv_heads), {}};
  JobSpec& job = bench.job;
  job.config = {.hidden_size = 256,
                .heads = heads,
                .kv_heads = kv_heads,
                .head_dim = 64,
                .intermediate_size = 704,
                .layers = 1};
  job.config.rope_theta = 10000;
  job.tokens = tokens;
  job.max_workers = ranks;
  job.weights.seed = job.input.seed = job.grad_output.seed = 1;
  if (change) change(&job);
  return bench;
}

std::vector<BenchJob> Jobs(const Options& options) {
  const auto backward = [](JobSpec* job) { job->pass = JobPass::kForwardBackward; };
  const auto full = [](JobSpec* job) { job->mask.kind = MaskKind::kFull; };
  const auto window = [](JobSpec* job) { job->mask = {MaskKind::kWindow, 511, 0, {}}; };
  const auto packed = [](JobSpec* job) {
    for (int64_t at = 0, length = 300; at < job->tokens; at += length, length = length * 3 / 2) {
      job->mask.documents.push_back(std::min(length, job->tokens - at));
    }
  };
  const auto wide = [](JobSpec* job) {
    job->config.hidden_size = 512;
    job->config.intermediate_size = 1408;
  };
  const int ranks = options.ranks;
  std::vector<BenchJob> jobs = {
      MakeJob("causal, forward", 1024, 4, 4, ranks),
      MakeJob("causal, backward too", 1024, 4, 4, ranks, backward),
      MakeJob("causal, forward", 4096, 4, 4, ranks),
      MakeJob("causal, backward too", 4096, 4, 2, ranks, backward),
      MakeJob("full, forward", 2048, 4, 4, ranks, full),
      MakeJob("window 512, forward", 8192, 4, 4, ranks, window),
      MakeJob("packed, forward", 8192, 4, 4, ranks, packed),
      MakeJob("wide, causal, forward", 2048, 8, 8, ranks, wide),
      MakeJob("odd heads, causal, forward", 4099, 5, 5, ranks),
      MakeJob("one head, causal, forward", 4096, 1, 1, ranks),
      MakeJob("causal, forward", 8192, 4, 1, ranks),
  };
  if (!options.all) return jobs;
  for (const int64_t tokens : {16384, 32768, 65536}) {
    jobs.push_back(MakeJob("causal, forward", tokens, 4, 4, ranks));
    jobs.push_back(MakeJob("window 512, forward", tokens, 4, 4, ranks, window));
    jobs.push_back(MakeJob("packed, forward", tokens, 4, 4, ranks, packed));
  }
  jobs.push_back(MakeJob("causal, backward too", 16384, 4, 4, ranks, backward));
  jobs.push_back(MakeJob("full, backward too", 8192, 4, 4, ranks, [&](JobSpec* job) {
    full(job);
    backward(job);
  }));
  jobs.push_back(MakeJob("wide, causal, backward too", 8192, 8, 2, ranks, [&](JobSpec* job) {
    wide(job);
    backward(job);
  }));
  return jobs;
}

constexpr char kExamples[] = R"(
Examples:
  regret_bench
      two ranks, jobs of up to 8K tokens: some two minutes on two cores
  regret_bench --jobs "1024 tokens" --link even --verbose
      what every mesh of two short jobs takes and was predicted to take
  regret_bench --long --ranks 4 --repetitions 5
      jobs of up to 64K tokens on four ranks

The regret of a job is the time of the planner's choice over that of the fastest mesh; it counts as none where
runs of one plan differ as much (control). Exits with 0 whatever the regret.)";

void KeepMemory() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_ARENA_MAX, 1);  // of all ranks, whose threads come and go
}

int Main(int argc, char** argv) {
  KeepMemory();
  Options options;
  CLI::App app("Runs every mesh that the planner could choose, and prints what its choice costs.",
               "regret_bench");
  app.footer(kExamples);
  app.add_flag("--long", options.all, "also jobs of 16K to 64K tokens");
  app.add_flag("--verbose", options.verbose, "every mesh with its prediction");
  app.add_option("--repetitions", options.repetitions, "turns of each job's meshes, at least")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "of each job, turns go on for so long")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  app.add_option("--ranks", options.ranks, "of one thread each")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--jobs", options.jobs, "only jobs whose names have this in them");
  app.add_option("--link", options.links, "even, slowed (100 MB/s), or both")
      ->check(CLI::IsMember({"even", "slowed"}))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return AnswerParseError(app, error);
  }
  std::vector<BenchJob> jobs = Jobs(options);
  const auto unasked = [&](const BenchJob& job) { return job.name.find(options.jobs) == std::string::npos; };
  jobs.erase(std::remove_if(jobs.begin(), jobs.end(), unasked), jobs.end());
  if (jobs.empty()) {
    std::fprintf(stderr, "--jobs: no job has '%s' in its name; there are:\n", options.jobs.c_str());
    for (const BenchJob& job : Jobs(options)) std::fprintf(stderr, "  %s\n", job.name.c_str());
    return 2;
  }
  std::vector<double> regrets, errors, all_errors;
  for (const std::string& link : options.links) {
    const double bytes_per_second = link == "slowed" ? kSlowedBytes : 0;
    const NodeSnapshot node = MeasureNode(options.ranks, bytes_per_second);
    PrintNode(node, options.ranks, link);
    for (const BenchJob& job : jobs) {
      const Outcome outcome = RunJob(job, node, bytes_per_second, options);
      regrets.push_back(outcome.regret);
      errors.push_back(std::abs(outcome.error));
      all_errors.insert(all_errors.end(), outcome.errors.begin(), outcome.errors.end());
    }
  }
  std::printf("regret: median %.3f, worst %.3f (targets 1.02 and 1.15)\n", Median(regrets),
              *std::max_element(regrets.begin(), regrets.end()));
  std::printf("step time: median error %.1f %% of the chosen, %.1f %% of all %zu meshes (target 15 %%)\n",
              100 * Median(errors), 100 * Median(all_errors), all_errors.size());
  return 0;
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) { return seqpar::Main(argc, argv); }
