#include "worker/executor/bootstrap.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "common/base/failpoints.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/comm/named_communicator.h"
#include "common/device/device_models.h"
#include "worker/executor/execute.h"
#include "worker/executor/warm_up.h"

namespace seqpar {
namespace {

// The coordinator's deadline comes first and names the missing ranks; this one is for a coordinator that is
// gone.
constexpr int64_t kTimeoutSlackMs = 5'000;

// To each rank of the world.
std::vector<Link> LinksFrom(const std::string& node, const Plan& plan) {
  std::vector<Link> links;
  for (const RankPlan& rank : plan.ranks) links.push_back(rank.node == node ? Link::kLocal : Link::kNetwork);
  return links;
}

ProgressSources SourcesOf(const RankRuntime& runtime, const JobSpec& job, const Plan& plan,
                          const RankPlan& rank, int first_layer) {
  ProgressSources sources;
  sources.device = runtime.device;
  sources.traffic = runtime.traffic.get();
  sources.tokens = static_cast<double>(job.batch * rank.tokens.size());
  sources.flops = RankFlops(job, plan, rank.rank, 0);
  sources.done_before = static_cast<double>(first_layer) / std::max<double>(1, job.config.layers);
  const RankGroups& groups = *runtime.groups;
  for (const Communicator* group :
       {static_cast<const Communicator*>(runtime.world.get()),
        static_cast<const Communicator*>(groups.tensor()), static_cast<const Communicator*>(groups.ulysses()),
        static_cast<const Communicator*>(groups.ring())}) {
    if (group != nullptr) sources.groups.push_back(group);
  }
  const auto name_ranks = [&sources](const Communicator* group, const std::vector<int>& ranks) {
    if (group != nullptr) sources.world_ranks[group->name()] = ranks;
  };
  name_ranks(groups.tensor(), rank.tensor_group);
  name_ranks(groups.ulysses(), rank.ulysses_group);
  name_ranks(groups.ring(), rank.ring_group);
  std::vector<int> all(runtime.world->size());
  for (int i = 0; i < runtime.world->size(); ++i) all[i] = i;
  name_ranks(runtime.world.get(), all);
  return sources;
}

}  // namespace

absl::Status RankRuntime::Synchronize() const {
  const absl::Status communicated = comm->Synchronize();
  const absl::Status computed = compute->Synchronize();
  return communicated.ok() ? computed : communicated;
}

BackendConfig BackendConfigOf(const v1::Run& run) {
  BackendConfig config;
  if (!run.device().kind().empty()) config.kind = run.device().kind();
  config.ordinal = run.device().gpu().ordinal();
  config.threads = std::max(1, run.device().threads());
  config.memory_bytes = run.device().memory_bytes();
  return config;
}

absl::StatusOr<RankRuntime> ConnectWorld(const RankContext& context, const BackendConfig& config,
                                         std::vector<Link> links,
                                         const std::function<absl::Status(const RankRuntime&)>& meanwhile) {
  const size_t ranks = links.size();
  RankRuntime runtime;
  SEQPAR_ASSIGN_OR_RETURN(runtime.backend, MakeRankBackend(config));
  runtime.device = runtime.backend->device();
  runtime.compute = runtime.device->CreateStream("compute");
  runtime.comm = runtime.device->CreateStream("comm");
  runtime.compute->Observe(context.trace->compute());
  runtime.comm->Observe(context.trace->communication());
  runtime.traffic = std::make_unique<TrafficCounter>(std::move(links));

  SEQPAR_ASSIGN_OR_RETURN(std::string blob, runtime.backend->Blob(context.rank));
  context.send_blob(std::move(blob));
  if (meanwhile != nullptr) SEQPAR_RETURN_IF_ERROR(meanwhile(runtime));
  const std::chrono::milliseconds timeout(context.run->start().bootstrap_timeout_ms() + kTimeoutSlackMs);
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<std::string> blobs, context.blobs->Wait("world", timeout));
  if (blobs.size() != ranks) {
    return MakeError(absl::StatusCode::kInternal, reason::kInternal,
                     "the bootstrap's table has not one blob a rank");
  }
  SEQPAR_RETURN_IF_ERROR(Failpoint("executor.connect"));
  SEQPAR_ASSIGN_OR_RETURN(runtime.world,
                          runtime.backend->Connect(context.rank, blobs, timeout, runtime.traffic.get()));
  runtime.world = MakeNamedCommunicator(std::move(runtime.world));
  LogInfo("connected", {{"transport", runtime.backend->Describe()}});
  return runtime;
}

absl::StatusOr<RankRuntime> Bootstrap(const RankContext& context, const JobSpec& job, const Plan& plan) {
  BackendConfig config = BackendConfigOf(*context.run);
  config.deterministic = job.deterministic;
  const auto warm_up = [&](const RankRuntime& runtime) {
    if (IsHost(runtime.device->info().kind)) return absl::OkStatus();
    const auto step = [&] { context.progress->Step(); };
    absl::Status warm = WarmUpProducts(job, plan, context.rank, *runtime.device, *runtime.compute, step);
    if (!warm.ok() && !absl::IsResourceExhausted(warm)) return warm;
    SEQPAR_RETURN_IF_ERROR(WarmUpAttention(job, plan, context.rank, *runtime.device, step));
    runtime.device->ResetPeak();
    return absl::OkStatus();
  };
  SEQPAR_ASSIGN_OR_RETURN(RankRuntime runtime,
                          ConnectWorld(context, config, LinksFrom(context.run->node(), plan), warm_up));
  const HeadLayout heads(plan.mesh, job.config.heads, job.config.kv_heads);
  SEQPAR_ASSIGN_OR_RETURN(runtime.groups, RankGroups::Create(runtime.world.get(), plan.mesh, heads));
  context.progress->Watch(
      SourcesOf(runtime, job, plan, plan.ranks[context.rank], context.run->start().checkpoints().layers()));
  return runtime;
}

}  // namespace seqpar
