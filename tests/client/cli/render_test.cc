#include "client/cli/render.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "common/base/status.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

template <typename Message>
Message FromText(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message));
  return message;
}

TEST(RenderReport, Golden) {
  const auto report = FromText<v1::Report>(R"(
    attempt: 1 strategy: "ring" mesh: "R2" layout: "zigzag" core: "ring" recompute: "none" reason: "least predicted time"
    tokens: 35149 layers: 2 predicted_step_seconds: 40 step_seconds: 42 tokens_per_second: 836.9 model_flops: 4.8e12
    flops_per_second: 1.14e11 fraction_of_peak: 0.55 output: "/data/out.safetensors" ignored_tensors: 3
    phases { phase: "bootstrap" seconds: 0.25 } phases { phase: "execute" seconds: 42 predicted: 40 }
    phases { phase: "execute/attention" seconds: 20 predicted: 25 }
    ranks { rank: 0 device: "local/0" kernel: "avx2" tokens: 17575 deterministic: true compute_seconds: 41 communication_exposed_seconds: 0.5
      communication_hidden_seconds: 1.5 peak_bytes: 104857600 predicted_peak_bytes: 94371840 execute_seconds: 42
      traffic { operation: "ring" pass: "forward" bytes: 1000 messages: 2 }
      traffic { operation: "ring" pass: "backward" bytes: 4000 messages: 4 } }
    ranks { rank: 1 device: "local/1" kernel: "avx2" tokens: 17574 deterministic: true compute_seconds: 40 execute_seconds: 41
      peak_bytes: 104857600 predicted_peak_bytes: 94371840
      traffic { operation: "ring" pass: "forward" bytes: 3000 messages: 2 } }
    verification { ran: true rows: 8 max_error: 1e-4 worst_error: 2.5e-7 worst_layer: 1 worst_tensor: "dk"
      layers { layer: 0 tensor: "hidden_states" error: 1e-7 } layers { layer: 1 tensor: "dk" error: 2.5e-7 } }
    passes { pass: "forward" seconds: 12 compute_seconds: 11 communication_exposed_seconds: 0.25
      communication_hidden_seconds: 0.5 }
    passes { pass: "backward" seconds: 30 compute_seconds: 29 communication_exposed_seconds: 0.25 }
    predicted_passes { pass: "forward" seconds: 10 compute_seconds: 9.5 communication_exposed_seconds: 0.5 }
    predicted_passes { pass: "backward" seconds: 30 compute_seconds: 29 communication_exposed_seconds: 1 }
  )");
  EXPECT_EQ(RenderReport(report),
            R"(plan          ring, mesh R2, layout zigzag, core ring, recompute none
why           least predicted time
step          42.0 s, predicted 40.0 s (+5.0%)
rate          837 tokens/s, 114 GFLOP/s, 55.0% of the measured peak (4.80 TFLOP, 35149 tokens, 2 layers)
verification  passed: worst error 2.50e-07 (dk, layer 1), bound 1.00e-04, 8 rows a layer in float64
  layer 0  hidden_states 1.00e-07
  layer 1  dk 2.50e-07
bits          the same from run to run
output        /data/out.safetensors
ignored       3 tensors outside the layers used

passes, of the slowest rank (exposed and hidden: communication)
  pass      seconds  predicted  compute  predicted  exposed  predicted  hidden
  forward    12.0 s     10.0 s   11.0 s     9.50 s   250 ms     500 ms  500 ms
  backward   30.0 s     30.0 s   29.0 s     29.0 s   250 ms     1.00 s     0 s

phases, of the slowest rank
  phase              measured  predicted
  bootstrap            250 ms
  execute              42.0 s     40.0 s   +5.0%
  execute/attention    20.0 s     25.0 s  -20.0%

ranks, all passes
  rank  device   kernel  tokens  compute  exposed  hidden  execute     peak  predicted      sent
     0  local/0  avx2     17575   41.0 s   500 ms  1.50 s   42.0 s  100 MiB   90.0 MiB  4.88 KiB
     1  local/1  avx2     17574   40.0 s      0 s     0 s   41.0 s  100 MiB   90.0 MiB  2.93 KiB

traffic, sent by all ranks
  operation  pass      bytes            messages  most by a rank
  ring       forward    4000  3.91 KiB         4        2.93 KiB
  ring       backward   4000  3.91 KiB         4        3.91 KiB
)");
}

TEST(RenderReport, OneRankOfManyOrdersIsSaid) {
  const auto report = FromText<v1::Report>(
      "ranks { rank: 0 kernel: 'AVX2' deterministic: true } ranks { rank: 1 kernel: 'fa4_sm90' "
      "deterministic: false }");
  EXPECT_NE(RenderReport(report).find("bits          gradients' last ones may differ"), std::string::npos);
}

TEST(RenderReport, AFailedVerificationStandsOut) {
  v1::Report report;
  report.mutable_verification()->set_ran(true);
  report.mutable_verification()->set_worst_error(1);
  report.mutable_verification()->set_max_error(0.5);
  EXPECT_NE(RenderReport(report).find("verification  FAILED: worst error 1.00e+00"), std::string::npos);
}

TEST(RenderJob, TellsTheFirstCauseFromWhatFollowed) {
  v1::Job job = FromText<v1::Job>(R"(
    id: "j-1" name: "demo" state: JOB_STATE_PENDING phase: JOB_PHASE_PLACE attempt: 1 reason: "waits for a node"
    create_time { seconds: 1795532400 nanos: 5 }
    attempts { attempt: 1 mesh: "U4" devices: "a/0" devices: "a/1" consequences: "rank 2: peer lost" })");
  *job.mutable_attempts(0)->mutable_error() =
      StatusToProto(MakeError(absl::StatusCode::kUnavailable, reason::kRankLost, "rank 1 died in execute"));
  EXPECT_EQ(RenderJob(job),
            "job           j-1  demo\n"
            "state         PENDING  place  waits for a node\n"
            "created       2026-11-24T15:00:00Z\n"
            "attempt 1     U4 on a/0 a/1\n"
            "  first cause  rank 1 died in execute [RANK_LOST]\n"
            "  then         rank 2: peer lost\n");
}

TEST(RenderPlan, Golden) {
  const auto answer = FromText<v1::PlanJobResponse>(R"(
    plan { mesh { tensor: 1 ulysses: 2 ring: 1 inner: 1 } strategy: STRATEGY_ULYSSES core: CORE_RING
      layout: LAYOUT_CONTIGUOUS recompute: RECOMPUTE_NONE reason: "fits and is fastest"
      prediction { step_seconds: 2 compute_seconds: 1.5 communication_seconds: 0.25 peak_bytes: 2097152 bytes_sent: 1024
        model_flops: 1e12 forward { compute_seconds: 0.5 communication_seconds: 0.25 }
        backward { compute_seconds: 1.25 } }
      ranks { rank: 0 segments { begin: 0 end: 5 stride: 1 } heads { q_begin: 0 q_end: 2 kv_begin: 0 kv_end: 1 }
        attended_pairs: 15 predicted_peak_bytes: 2097152 node: "n" device: 3 }
      ranks { rank: 1 segments { begin: 5 end: 10 stride: 2 } heads { q_begin: 2 q_end: 4 kv_begin: 1 kv_end: 2 } } }
    explanation { considered: 9 feasible: 2
      best { mesh { tensor: 1 ulysses: 2 ring: 1 inner: 1 } strategy: STRATEGY_ULYSSES core: CORE_RING
        layout: LAYOUT_CONTIGUOUS recompute: RECOMPUTE_NONE feasible: true reason: "least time"
        prediction { step_seconds: 2 peak_bytes: 2097152 bytes_sent: 1024 } }
      best { mesh { tensor: 1 ulysses: 1 ring: 2 inner: 2 } strategy: STRATEGY_RING core: CORE_GATHER
        layout: LAYOUT_ZIGZAG recompute: RECOMPUTE_LAYER feasible: true reason: "12% slower"
        prediction { step_seconds: 2.24 peak_bytes: 1048576 bytes_sent: 2048 } }
      slower { reason: "feasible, and slower" count: 5 nearest { mesh { tensor: 2 ulysses: 1 ring: 1 inner: 1 }
        strategy: STRATEGY_MEGATRON_SP reason: "30.0 % slower" } }
      rejected { reason: "exceeds memory" count: 7 nearest { mesh { tensor: 1 ulysses: 1 ring: 1 inner: 1 }
        strategy: STRATEGY_RING reason: "needs 9.00 GiB, has 8.00 GiB" } } }
  )");
  EXPECT_EQ(RenderPlan(answer),
            R"(plan      ulysses, mesh U2 (2 ranks), layout contiguous, core ring, recompute none
why       fits and is fastest
step      2.00 s predicted: forward 750 ms and backward 1.25 s; compute 1.50 s, exposed communication 250 ms
a rank    2.00 MiB of memory, 1.00 KiB sent, at most
work      1.00 TFLOP

  rank  device  tokens  heads             attended pairs    memory
     0  n/3          5  [0, 2) kv [0, 1)              15  2.00 MiB
     1  -            3  [2, 4) kv [1, 2)               0       0 B

9 considered, 2 feasible
  mesh  strategy  layout      core    recompute    step  memory/rank  sent/rank  why not
  U2    ulysses   contiguous  ring    none       2.00 s     2.00 MiB   1.00 KiB  chosen
  R2    ring      zigzag      gather  layer      2.24 s     1.00 MiB   2.00 KiB  12% slower

the rest
  count  reason                nearest miss    of it
      5  feasible, and slower  T2 megatron_sp  30.0 % slower
      7  exceeds memory        1 ring          needs 9.00 GiB, has 8.00 GiB
)");
}

TEST(RenderJobs, Golden) {
  const auto jobs = FromText<v1::ListJobsResponse>(R"(
    jobs { id: "j-2" name: "b" state: JOB_STATE_FAILED phase: JOB_PHASE_EXECUTE attempt: 3
      create_time { seconds: 1795532400 } error { code: 14 message: "rank 1 died\nmore" } }
    jobs { id: "j-1" state: JOB_STATE_PENDING phase: JOB_PHASE_PLACE reason: "waits" create_time { seconds: 1795532399 } }
    next_page_token: "t")");
  EXPECT_EQ(RenderJobs(jobs),
            "JOB  NAME  STATE    PHASE    ATTEMPT  CREATED               WHY\n"
            "j-2  b     FAILED   execute        3  2026-11-24T15:00:00Z  rank 1 died\n"
            "j-1        PENDING  place          0  2026-11-24T14:59:59Z  waits\n"
            "more: ask with a larger --limit\n");
  EXPECT_EQ(RenderJobs(v1::ListJobsResponse()), "no jobs\n");
}

TEST(RenderJobs, NamesStandOnALineAndNothingEndsTheTable) {
  v1::ListJobsResponse jobs;
  jobs.add_jobs()->set_name(std::string("a\nb") + '\0' + "\x1b[31m");
  jobs.add_jobs()->set_name("next");
  const std::string text = RenderJobs(jobs);
  EXPECT_THAT(text, HasSubstr("a\\x0ab\\x00\\x1b[31m"));
  EXPECT_THAT(text, HasSubstr("next"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
}

TEST(RenderNodes, Golden) {
  const auto nodes = FromText<v1::ListNodesResponse>(R"(
    nodes { name: "a" state: NODE_STATE_READY version: "0.1.0" lease_left: 5.5
      labels { key: "zone" value: "1" } labels { key: "pool" value: "a" }
      devices { spec { kind: "cpu" threads: 1 memory_bytes: 1073741824 } job: "j-1" }
      devices { spec { kind: "cpu" threads: 1 memory_bytes: 1073741824 } job: "j-1" rank: 1 }
      devices { spec { kind: "cpu" threads: 1 memory_bytes: 1073741824 } } }
    nodes { name: "b" state: NODE_STATE_LOST drained: true }
    nodes { name: "c" state: NODE_STATE_DRAINING drained: true }
    nodes { name: "d" state: NODE_STATE_LOST
      devices { spec { kind: "cuda" name: "NVIDIA H200" threads: 1 memory_bytes: 148176371712 } }
      devices { spec { kind: "cuda" name: "NVIDIA H200" } set_aside: "holds 1.00 GiB" } })");
  EXPECT_EQ(
      RenderNodes(nodes),
      "NODE  STATE          DEVICES                         BUSY  LEASE LEFT  VERSION  LABELS         JOBS\n"
      "a     READY          3 x cpu, 1 thread, 1.00 GiB        2      5.50 s  0.1.0    pool=a zone=1  j-1\n"
      "b     LOST, DRAINED  none                               0         0 s\n"
      "c     DRAINING       none                               0         0 s\n"
      "d     LOST           2 x cuda, NVIDIA H200, 138 GiB     0         0 s\n"
      "d/1 is set aside: holds 1.00 GiB\n");
}

TEST(RenderNodes, LinksOnceTheSlowestFirst) {
  const auto nodes = FromText<v1::ListNodesResponse>(R"(
    nodes { name: "a" state: NODE_STATE_READY
      links { peer: "b" device_kind: "cuda" rates { latency: 5e-6 bandwidth: 4.5e10 } }
      links { peer: "c" device_kind: "cpu" rates { latency: 50e-6 bandwidth: 1073741824 } outdated: true } }
    nodes { name: "b" state: NODE_STATE_READY
      links { peer: "a" device_kind: "cuda" rates { latency: 5e-6 bandwidth: 4.5e10 } } })");
  EXPECT_THAT(RenderNodes(nodes), testing::EndsWith("\na to c (cpu): 1.00 GiB/s, 50.0 us, outdated\n"
                                                    "a to b (cuda): 41.9 GiB/s, 5.00 us\n"));
  v1::ListNodesResponse many;
  many.add_nodes()->set_name("a");
  for (int i = 0; i < 13; ++i) {
    many.mutable_nodes(0)->add_links()->set_peer("b");
    many.mutable_nodes(0)->mutable_links(i)->mutable_rates()->set_bandwidth(1e9);
  }
  EXPECT_THAT(RenderNodes(many), testing::EndsWith("\n3 more links, none slower: -o json\n"));
}

TEST(RenderLogs, EachRankUnderItsName) {
  const auto logs = FromText<v1::GetJobLogsResponse>(R"(
    logs { attempt: 1 rank: 0 device: "a/0" text: "one\n" } logs { attempt: 1 rank: 1 device: "a/1" text: "two" })");
  EXPECT_EQ(RenderLogs(logs), "== attempt 1, rank 0, a/0\none\n== attempt 1, rank 1, a/1\ntwo\n");
  EXPECT_EQ(RenderLogs(v1::GetJobLogsResponse()), "no logs\n");
}

}  // namespace
}  // namespace seqpar
