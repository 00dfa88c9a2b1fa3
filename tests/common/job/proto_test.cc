#include "common/job/proto.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cctype>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "common/base/error_info.h"
#include "common/base/retry.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;

// --- jobs ---

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  int Int(int begin, int end) { return std::uniform_int_distribution<int>(begin, end - 1)(engine_); }
  bool Bool() { return Int(0, 2) == 1; }

 private:
  std::mt19937 engine_;
};

JobSpec RandomJob(Random& r) {
  JobSpec job;
  job.name = "job" + std::to_string(r.Int(0, 1000));
  job.config.kv_heads = r.Int(1, 5);
  job.config.heads = job.config.kv_heads * r.Int(1, 5);
  job.config.head_dim = 2 * r.Int(1, 65);
  job.config.hidden_size = r.Int(1, 5000);
  job.config.layers = r.Int(1, 9);
  job.config.norm = static_cast<NormKind>(r.Int(0, 3));
  job.config.norm_eps = 1.0 / r.Int(1, 1000);
  job.config.mlp = static_cast<MlpKind>(r.Int(0, 4));
  job.config.intermediate_size = job.config.mlp == MlpKind::kNone ? 0 : r.Int(1, 5000);
  if (r.Bool()) job.config.rope_theta = r.Int(1, 100000);
  job.config.qkv_bias = r.Bool();
  job.config.attention_out_bias = r.Bool();
  job.config.mlp_bias = r.Bool();
  job.dtype = r.Bool() ? DType::kBF16 : DType::kF32;
  job.mask.kind = static_cast<MaskKind>(r.Int(0, 3));
  job.mask.left = r.Int(-1, 9);
  job.mask.right = r.Int(-1, 9);
  for (int i = r.Int(0, 4); i > 0; --i) job.mask.documents.push_back(r.Int(1, 100));
  job.pass = static_cast<JobPass>(r.Int(0, 2));
  if (r.Bool()) job.weights.file = "w";
  if (!job.weights.given()) job.weights.seed = r.Int(0, 100);
  if (r.Bool()) job.input.file = "x";
  if (!job.input.given()) job.input.seed = 0;
  job.batch = r.Int(1, 4);
  job.tokens = r.Int(1, 100);
  if (r.Bool()) job.grad_output.seed = r.Int(0, 100);
  if (r.Bool()) {
    job.output_file = "y";
    job.output_hidden_grad = r.Bool();
    job.output_weight_grads = r.Bool();
    job.output_hidden_states = r.Bool() || !(job.output_hidden_grad || job.output_weight_grads);
  }
  job.overwrite = r.Bool();
  job.parallelism.strategy = static_cast<StrategyKind>(r.Int(0, 6));
  job.parallelism.tensor = r.Int(0, 3);
  job.parallelism.ulysses = r.Int(0, 3);
  job.parallelism.ring = r.Int(0, 3);
  job.parallelism.inner = r.Int(0, 3);
  job.parallelism.core = static_cast<CoreKind>(r.Int(0, 2));
  if (r.Bool()) job.parallelism.layout = static_cast<LayoutKind>(r.Int(0, 3));
  job.min_workers = r.Int(1, 5);
  job.max_workers = r.Int(0, 9);
  job.verify_rows = r.Int(0, 9);
  job.verify_max_error = 1.0 / r.Int(1, 100);
  for (int i = r.Int(0, 3); i > 0; --i) job.labels["l" + std::to_string(i)] = std::to_string(r.Int(0, 9));
  job.devices.kind = static_cast<DeviceKind>(r.Int(0, 3));
  for (int i = r.Int(0, 3); i > 0; --i) job.devices.selector["s" + std::to_string(i)] = "v";
  job.priority = r.Int(-5, 5);
  job.deadline_seconds = r.Int(0, 100) / 4.0;
  job.max_attempts = r.Int(0, 5);
  job.deterministic = r.Int(0, 1) == 1;
  return job;
}

TEST(JobProto, RoundTripsRandomJobs) {
  Random random(1);
  for (int i = 0; i < 500; ++i) {
    const JobSpec job = RandomJob(random);
    v1::Job proto = JobToProto(job);
    ASSERT_EQ(JobFromProto(proto), job) << proto.DebugString();
    ASSERT_TRUE(proto.ParseFromString(proto.SerializeAsString()));
    ASSERT_EQ(JobFromProto(proto), job);
  }
}

TEST(JobProto, FillsInTheDefaults) {
  v1::Job proto;
  proto.mutable_config()->set_hidden_size(96);
  proto.mutable_config()->set_num_attention_heads(8);
  proto.mutable_output()->set_file("out");
  JobSpec job = JobFromProto(proto);
  EXPECT_EQ(job.config.kv_heads, 8);
  EXPECT_EQ(job.config.head_dim, 12);
  EXPECT_EQ(job.config.norm, NormKind::kRmsNorm);
  EXPECT_EQ(job.config.norm_eps, 1e-5);
  EXPECT_EQ(job.config.mlp, MlpKind::kSwiglu);
  EXPECT_FALSE(job.config.rope_theta.has_value());
  EXPECT_EQ(job.dtype, DType::kF32);
  EXPECT_EQ(job.mask, MaskSpec());
  EXPECT_EQ(job.mask.kind, MaskKind::kCausal);
  EXPECT_EQ(job.batch, 1);
  EXPECT_TRUE(job.output_hidden_states);
  EXPECT_FALSE(job.output_hidden_grad);
  EXPECT_EQ(job.parallelism.strategy, StrategyKind::kAuto);
  EXPECT_FALSE(job.parallelism.layout.has_value());
  EXPECT_EQ(job.min_workers, 1);
  EXPECT_EQ(job.verify_max_error, 1e-4);

  proto.set_pass(v1::PASS_FORWARD_BACKWARD);
  proto.set_dtype(v1::DATA_TYPE_BFLOAT16);
  job = JobFromProto(proto);
  EXPECT_TRUE(job.output_hidden_grad);
  EXPECT_TRUE(job.output_weight_grads);
  EXPECT_EQ(job.verify_max_error, 5e-2);
}

TEST(JobProto, WithoutAnOutputFileNothingIsWritten) {
  v1::Job proto;
  proto.set_pass(v1::PASS_FORWARD_BACKWARD);
  const JobSpec job = JobFromProto(proto);
  EXPECT_FALSE(job.output_hidden_states || job.output_hidden_grad || job.output_weight_grads);
}

TEST(JobProto, AJobWithoutHeadsDoesNotDivideByThem) {
  v1::Job proto;
  proto.mutable_config()->set_hidden_size(96);
  EXPECT_EQ(JobFromProto(proto).config.head_dim, 0);
}

// --- plans ---

Plan MakePlan(const Mesh& mesh, LayoutKind kind, int64_t tokens) {
  Plan plan;
  plan.mesh = mesh;
  plan.strategy = StrategyKind::kHybrid;
  plan.core = CoreKind::kGather;
  plan.layout = kind;
  plan.recompute = Recompute::kAttention;
  plan.prediction = {1.5, 1.25, 0.25, 1000, 2000, 3e9, {0.5, 0.125}, {0.75, 0.25}};
  plan.reason = "because";
  const TokenLayout layout(mesh, kind, tokens);
  const HeadLayout heads(mesh, 12, 3);
  for (int i = 0; i < mesh.size(); ++i) {
    RankPlan rank;
    const MeshCoord at = mesh.CoordOf(i);
    rank.rank = i;
    rank.tokens = layout.OfRank(i);
    rank.heads = heads.Of(at.tensor, at.ulysses);
    rank.tensor_heads = heads.OfTensor(at.tensor);
    rank.tensor_group = mesh.TensorGroup(i);
    rank.ulysses_group = mesh.UlyssesGroup(i);
    rank.ring_group = mesh.RingGroup(i);
    rank.ring_next = rank.ring_group[(at.ring + 1) % mesh.ring];
    rank.ring_previous = rank.ring_group[(at.ring + mesh.ring - 1) % mesh.ring];
    rank.predicted_peak_bytes = 100 + i;
    rank.attended_pairs = 7.0 * i;
    rank.node = "node-" + std::to_string(i % 2);
    rank.device = i / 2;
    plan.ranks.push_back(rank);
  }
  return plan;
}

TEST(PlanProto, RoundTripsEveryMeshAndLayout) {
  for (const LayoutKind kind : {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped}) {
    for (const Mesh& mesh :
         {Mesh{1, 1, 1, 1}, Mesh{2, 1, 1, 1}, Mesh{1, 3, 1, 1}, Mesh{1, 1, 4, 2}, Mesh{2, 2, 3, 3}}) {
      for (const int64_t tokens : {1, 5, 131}) {
        SCOPED_TRACE(mesh.ToString() + " " + LayoutName(kind) + " " + std::to_string(tokens));
        const v1::Plan proto = PlanToProto(MakePlan(mesh, kind, tokens));
        const absl::StatusOr<Plan> plan = PlanFromProto(proto);
        ASSERT_TRUE(plan.ok()) << plan.status();
        EXPECT_EQ(plan->mesh, mesh);
        EXPECT_EQ(plan->MakeTokenLayout().tokens(), tokens);
        EXPECT_TRUE(MessageDifferencer::Equals(PlanToProto(*plan), proto));
      }
    }
  }
}

struct BadPlanCase {
  const char* what;
  void (*change)(v1::Plan*);
  const char* message;
};

TEST(PlanProto, RefusesWhatContradictsItself) {
  const BadPlanCase cases[] = {
      {"no mesh", [](v1::Plan* p) { p->clear_mesh(); }, "a degree of its mesh is 0"},
      {"inner", [](v1::Plan* p) { p->mutable_mesh()->set_inner(3); }, "inner 3 does not divide ring 2"},
      {"a rank too few", [](v1::Plan* p) { p->mutable_ranks()->RemoveLast(); }, "it has 3 ranks"},
      {"huge degrees",
       [](v1::Plan* p) {
         p->mutable_mesh()->set_tensor(1 << 20);
         p->mutable_mesh()->set_ulysses(1 << 20);
       },
       "it has 4 ranks"},
      {"order", [](v1::Plan* p) { p->mutable_ranks(1)->set_rank(2); }, "rank 2 stands at place 1"},
      {"group", [](v1::Plan* p) { p->mutable_ranks(1)->set_ring_group(0, 0); }, "the groups of rank 1"},
      {"neighbour", [](v1::Plan* p) { p->mutable_ranks(2)->set_ring_next(3); },
       "the ring neighbours of rank 2"},
      {"heads", [](v1::Plan* p) { p->mutable_ranks(3)->mutable_heads()->set_q_end(99); },
       "the attention heads of rank 3"},
      {"a token short",
       [](v1::Plan* p) {
         v1::Segment* s = p->mutable_ranks(0)->mutable_segments(0);
         s->set_end(s->end() - 1);
       },
       "exactly once"},
      {"a token twice",
       [](v1::Plan* p) {
         v1::Segment* s = p->mutable_ranks(3)->mutable_segments(0);
         s->set_begin(s->begin() - 1);
       },
       ""},
      {"stride", [](v1::Plan* p) { p->mutable_ranks(0)->mutable_segments(0)->set_stride(0); },
       "of rank 0 do not ascend"},
      {"negative", [](v1::Plan* p) { p->mutable_ranks(0)->mutable_segments(0)->set_begin(-1); },
       "of rank 0 do not ascend"},
      {"endless", [](v1::Plan* p) { p->mutable_ranks(0)->mutable_segments(0)->set_end(int64_t{1} << 62); },
       "ends at"},
  };
  for (const BadPlanCase& c : cases) {
    SCOPED_TRACE(c.what);
    v1::Plan proto = PlanToProto(MakePlan(Mesh{1, 2, 2, 2}, LayoutKind::kContiguous, 31));
    c.change(&proto);
    const absl::Status status = PlanFromProto(proto).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ReasonOf(status), reason::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

TEST(ExplanationProto, CarriesEveryPart) {
  Candidate candidate;
  candidate.mesh = Mesh{1, 2, 3, 3};
  candidate.strategy = StrategyKind::kUlysses;
  candidate.layout = LayoutKind::kStriped;
  candidate.feasible = true;
  candidate.prediction.step_seconds = 2;
  candidate.reason = "slower";
  Explanation explanation;
  explanation.best = {candidate, candidate};
  explanation.feasible = 2;
  explanation.considered = 9;
  explanation.rejected = {{"exceeds memory", 7, candidate}};
  explanation.all = {candidate};
  const v1::Explanation proto = ExplanationToProto(explanation);
  EXPECT_EQ(proto.best_size(), 2);
  EXPECT_EQ(proto.best(0).mesh().ulysses(), 2);
  EXPECT_EQ(proto.best(1).layout(), v1::LAYOUT_STRIPED);
  EXPECT_EQ(proto.best(1).prediction().step_seconds(), 2);
  EXPECT_EQ(proto.considered(), 9);
  EXPECT_EQ(proto.rejected(0).count(), 7);
  EXPECT_EQ(proto.rejected(0).nearest().reason(), "slower");
  EXPECT_EQ(proto.all_size(), 1);
}

// --- states and phases ---

TEST(StateAndPhaseProto, RoundTripAndMatchByName) {
  for (int i = 0; i <= static_cast<int>(JobState::kCancelled); ++i) {
    const JobState state = static_cast<JobState>(i);
    EXPECT_EQ(StateFromProto(StateToProto(state)), state);
    EXPECT_EQ(v1::JobState_Name(StateToProto(state)), std::string("JOB_STATE_") + StateName(state));
  }
  for (int i = 0; i <= static_cast<int>(JobPhase::kReport); ++i) {
    const JobPhase phase = static_cast<JobPhase>(i);
    EXPECT_EQ(PhaseFromProto(PhaseToProto(phase)), phase);
    std::string name = PhaseName(phase);
    for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    EXPECT_EQ(v1::JobPhase_Name(PhaseToProto(phase)), "JOB_PHASE_" + name);
  }
}

// --- errors ---

TEST(StatusProto, KeepsCodeMessageReasonAndViolations) {
  const absl::Status plain = absl::UnavailableError("gone");
  EXPECT_EQ(StatusFromProto(StatusToProto(plain)), plain);
  EXPECT_TRUE(StatusFromProto(StatusToProto(absl::OkStatus())).ok());

  const absl::Status lost = MakeError(absl::StatusCode::kUnavailable, reason::kRankLost, "rank 2 is lost");
  EXPECT_EQ(StatusFromProto(StatusToProto(lost)), lost);

  const absl::Status invalid = Annotate(
      InvalidInput(reason::kInvalidJob, {{"a.b", "must be even (it is 3)", "4"}, {"c", "is missing", ""}}),
      "submit");
  const absl::Status back = StatusFromProto(StatusToProto(invalid));
  EXPECT_EQ(back.message(), invalid.message());
  EXPECT_EQ(ReasonOf(back), reason::kInvalidJob);
  const std::vector<Violation> violations = ViolationsOf(back);
  ASSERT_EQ(violations.size(), 2u);
  EXPECT_EQ(violations[0].field, "a.b");
  EXPECT_EQ(violations[0].description, "must be even (it is 3)");
  EXPECT_EQ(violations[0].nearest, "4");
  EXPECT_EQ(violations[1].nearest, "");
}

// --- clusters ---

v1::Cluster GoodCluster() {
  v1::Cluster cluster;
  v1::NodeSpec* node = cluster.add_nodes();
  node->set_name("n");
  node->set_count(2);
  node->set_devices_each(3);
  v1::DeviceSpec* device = node->add_devices();
  device->set_kind("cpu");
  device->set_memory_bytes(1 << 30);
  device->set_threads(2);
  v1::DeviceRates* rates = device->mutable_rates();
  rates->set_gemm_flops(1e11);
  rates->set_attention_forward_flops(2e11);
  rates->set_attention_backward_flops(3e11);
  rates->set_copy_bytes(1e10);
  rates->set_peak_flops(4e11);
  node->mutable_local()->set_bandwidth(1e10);
  (*node->mutable_labels())["pool"] = "a";
  cluster.mutable_network()->set_latency(1e-5);
  cluster.mutable_network()->set_bandwidth(1e9);
  return cluster;
}

TEST(ClusterProto, RepeatsNodesAndDevices) {
  const absl::StatusOr<ClusterSnapshot> cluster = ClusterFromProto(GoodCluster());
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  ASSERT_EQ(cluster->nodes.size(), 2u);
  EXPECT_EQ(cluster->nodes[0].name, "n-0");
  EXPECT_EQ(cluster->nodes[1].name, "n-1");
  EXPECT_EQ(cluster->nodes[1].devices.size(), 3u);
  EXPECT_EQ(cluster->nodes[1].free, std::vector<bool>(3, true));
  EXPECT_TRUE(cluster->nodes[1].ready);
  EXPECT_EQ(cluster->nodes[1].devices[2].rates.peak_flops, 4e11);
  EXPECT_EQ(cluster->nodes[0].local.bandwidth, 1e10);
  EXPECT_EQ(cluster->nodes[1].labels.at("pool"), "a");
  EXPECT_EQ(cluster->network.latency, 1e-5);
  EXPECT_TRUE(MessageDifferencer::Equals(DeviceToProto(cluster->nodes[0].devices[0]),
                                         GoodCluster().nodes(0).devices(0)));
}

TEST(ClusterProto, OneNodeKeepsItsNameAndNeedsNoNetwork) {
  v1::Cluster proto = GoodCluster();
  proto.mutable_nodes(0)->set_count(1);
  proto.clear_network();
  const absl::StatusOr<ClusterSnapshot> cluster = ClusterFromProto(proto);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  EXPECT_EQ(cluster->nodes[0].name, "n");
}

TEST(ClusterProto, NamesEveryViolationAtOnce) {
  v1::Cluster proto = GoodCluster();
  proto.mutable_nodes(0)->mutable_devices(0)->set_kind("cud");
  proto.mutable_nodes(0)->mutable_devices(0)->set_memory_bytes(0);
  proto.mutable_nodes(0)->mutable_devices(0)->mutable_rates()->set_gemm_flops(-1);
  proto.mutable_nodes(0)->mutable_local()->set_latency(-1);
  proto.clear_network();
  const absl::Status status = ClusterFromProto(proto).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  std::vector<std::string> fields;
  for (const Violation& violation : ViolationsOf(status)) fields.push_back(violation.field);
  EXPECT_THAT(fields, testing::ElementsAre("nodes[0].devices[0].kind", "nodes[0].devices[0].memory_bytes",
                                           "nodes[0].devices[0].rates.gemm_flops", "nodes[0].local.latency",
                                           "network.bandwidth"));
  EXPECT_EQ(ViolationsOf(status)[0].nearest, "cuda");
}

TEST(ClusterProto, RefusesToRepeatADeviceThatIsNotThere) {
  v1::Cluster proto = GoodCluster();
  proto.mutable_nodes(0)->clear_devices();
  proto.mutable_nodes(0)->set_devices_each(10);
  EXPECT_THAT(std::string(ClusterFromProto(proto).status().message()),
              HasSubstr("nodes[0].devices: must list at least one device"));
}

TEST(ClusterProto, RefusesLongWordsThatManyNodesWouldHave) {
  const auto told = [](const std::function<void(v1::NodeSpec*)>& change) {
    v1::Cluster proto = GoodCluster();
    proto.mutable_nodes(0)->set_count(65536);
    proto.mutable_nodes(0)->set_devices_each(1);
    while (proto.nodes(0).devices_size() > 1) proto.mutable_nodes(0)->mutable_devices()->RemoveLast();
    change(proto.mutable_nodes(0));
    return std::string(ClusterFromProto(proto).status().message());
  };
  const std::string long_word(10'000'000, 'x');
  EXPECT_THAT(told([&](v1::NodeSpec* node) { node->set_name(long_word); }), HasSubstr("nodes[0].name"));
  EXPECT_THAT(told([&](v1::NodeSpec* node) { node->mutable_devices(0)->set_name(long_word); }),
              HasSubstr("nodes[0].devices[0].name"));
  EXPECT_THAT(told([&](v1::NodeSpec* node) { (*node->mutable_labels())["a"] = long_word; }),
              HasSubstr("nodes[0].labels"));
  EXPECT_THAT(told([](v1::NodeSpec* node) {
                for (int i = 1; i < 100'000; ++i) {
                  node->mutable_devices(0)->mutable_rates()->add_attention()->set_head_dim(i);
                }
              }),
              HasSubstr("nodes[0].devices[0].rates.attention"));
}

TEST(ClusterProto, RefusesNamesTwiceAndClustersWithoutEnd) {
  v1::Cluster proto = GoodCluster();
  *proto.add_nodes() = proto.nodes(0);
  EXPECT_THAT(std::string(ClusterFromProto(proto).status().message()),
              HasSubstr("another node has the name 'n-0'"));
  proto = GoodCluster();
  proto.mutable_nodes(0)->set_count(2'000'000'000);
  EXPECT_THAT(std::string(ClusterFromProto(proto).status().message()), HasSubstr("more than 65536 devices"));
  // However much more: what is counted does not run over.
  proto.mutable_nodes(0)->set_count(std::numeric_limits<int32_t>::max());
  proto.mutable_nodes(0)->set_devices_each(std::numeric_limits<int32_t>::max());
  for (int i = 0; i < 3; ++i) *proto.add_nodes() = v1::NodeSpec(proto.nodes(0));
  EXPECT_THAT(std::string(ClusterFromProto(proto).status().message()),
              HasSubstr("nodes[3]: the cluster has more than"));
}

TEST(StatusProto, CarriesWhenToTryAgain) {
  const absl::Status full =
      WithRetry(MakeError(absl::StatusCode::kResourceExhausted, reason::kTooManyJobs, "full"), 5);
  const google::rpc::Status proto = StatusToProto(full);
  google::rpc::RetryInfo retry;
  ASSERT_EQ(proto.details_size(), 2);
  ASSERT_TRUE(proto.details(1).UnpackTo(&retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 5);
  const absl::Status back = StatusFromProto(proto);
  EXPECT_EQ(RetrySecondsOf(back), 5);
  EXPECT_EQ(ReasonOf(back), reason::kTooManyJobs);
  EXPECT_EQ(RetrySecondsOf(absl::InternalError("another")), 0);
}

TEST(StatusProto, CarriesFactsForPrograms) {
  const std::map<std::string, std::string> facts = {{"limit", "devices"}, {"value", "8"}};
  const absl::Status full =
      WithMetadata(MakeError(absl::StatusCode::kResourceExhausted, reason::kTenantLimit, "full"), facts);
  const google::rpc::Status proto = StatusToProto(full);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(proto.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), reason::kTenantLimit);
  EXPECT_EQ(info.metadata().at("value"), "8");
  EXPECT_EQ(MetadataOf(StatusFromProto(proto)), facts);
  EXPECT_TRUE(MetadataOf(absl::InternalError("another")).empty());
  EXPECT_TRUE(WithMetadata(absl::OkStatus(), facts).ok());
}

}  // namespace
}  // namespace seqpar
