// Small jobs, plans and results for the coordinator's tests.
#ifndef SEQPAR_TESTS_COORDINATOR_JOB_MACHINE_SAMPLES_H_
#define SEQPAR_TESTS_COORDINATOR_JOB_MACHINE_SAMPLES_H_

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/job/job.h"
#include "common/job/plan.h"
#include "seqpar/v1/fleet.pb.h"
#include "tests/support/sharded_plan.h"

namespace seqpar {

inline JobSpec SampleSpec() {
  JobSpec spec;
  spec.name = "sample";
  spec.config.hidden_size = 16;
  spec.config.heads = 4;
  spec.config.kv_heads = 2;
  spec.config.head_dim = 4;
  spec.config.intermediate_size = 24;
  spec.config.layers = 2;
  spec.weights.seed = 1;
  spec.input.seed = 2;
  spec.tokens = 64;
  spec.output_hidden_states = true;
  return spec;
}

// A ring of `ranks`, spread over `nodes` ("a", "b", ...) in order.
inline Plan SamplePlan(const JobSpec& spec, int ranks, int nodes) {
  Mesh mesh;
  mesh.ring = mesh.inner = ranks;
  Plan plan = ShardedPlan(spec, mesh, LayoutKind::kContiguous, CoreKind::kRing);
  plan.strategy = StrategyKind::kRing;
  plan.reason = "a sample";
  plan.prediction.step_seconds = plan.prediction.compute_seconds = 1;
  const int per_node = (ranks + nodes - 1) / nodes;
  for (RankPlan& rank : plan.ranks) {
    rank.predicted_peak_bytes = 1000;
    rank.node = std::string(1, static_cast<char>('a' + rank.rank / per_node));
    rank.device = rank.rank % per_node;
  }
  return plan;
}

inline v1::RankEvent SampleResult(int rank) {
  v1::RankEvent event;
  event.set_rank(rank);
  event.set_kind(v1::RankEvent::FINISHED);
  v1::RankReport* report = event.mutable_report();
  report->set_rank(rank);
  report->set_tokens(32);
  report->set_compute_seconds(0.5);
  report->set_execute_seconds(1 + 0.5 * rank);
  report->set_cpu_seconds(0.5);
  report->set_flops(1e6);
  report->set_peak_flops(1e9);
  report->set_peak_bytes(900);
  v1::PhaseSeconds* phase = event.add_phases();
  phase->set_phase("execute");
  phase->set_seconds(1 + 0.5 * rank);
  return event;
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_COORDINATOR_JOB_MACHINE_SAMPLES_H_
