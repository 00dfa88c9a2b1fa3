#include "worker/executor/rank_run.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/data_roots.h"
#include "common/base/failpoints.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/device/device_models.h"
#include "common/job/known_values.h"
#include "common/job/proto.h"
#include "worker/executor/bootstrap.h"
#include "worker/executor/execute.h"
#include "worker/executor/merge.h"
#include "worker/executor/shard.h"
#include "worker/executor/transfer.h"
#include "worker/executor/verify.h"

namespace seqpar {
namespace {

// The sources of progress are about to go.
class StopWatching {
 public:
  explicit StopWatching(Progress* progress) : progress_(progress) {}
  ~StopWatching() { progress_->StopWatching(); }

 private:
  Progress* const progress_;
};

absl::StatusOr<DataRoots> MakeRoots(const v1::Run& run) {
  std::vector<std::pair<std::string, std::string>> named_paths;
  for (const v1::Run::Root& root : run.data_roots()) named_paths.emplace_back(root.name(), root.path());
  return DataRoots::Create(named_paths);
}

void AddTraffic(const TrafficCounter& counter, v1::RankReport* report) {
  for (const auto& [key, traffic] : counter.Snapshot()) {
    if (key.operation == Operation::kControl) continue;  // barriers and bootstrap
    v1::Traffic* entry = report->add_traffic();
    entry->set_operation(OperationName(key.operation));
    entry->set_pass(PassName(key.pass));
    entry->set_bytes(traffic.bytes);
    entry->set_messages(traffic.messages);
  }
}

void AddPass(const char* name, const PassFigures& figures, v1::RankReport* report) {
  v1::PassFigures* pass = report->add_passes();
  pass->set_pass(name);
  pass->set_seconds(figures.wall_seconds);
  pass->set_compute_seconds(figures.compute_seconds);
  pass->set_communication_exposed_seconds(figures.exposed_seconds);
  pass->set_communication_hidden_seconds(figures.hidden_seconds);
}

v1::RankReport MakeReport(const RankContext& context, const JobSpec& job, const Plan& plan,
                          const RankRuntime& runtime, const ExecuteFigures& figures) {
  const RankPlan& mine = plan.ranks[context.rank];
  v1::RankReport report;
  report.set_rank(context.rank);
  report.set_device(absl::StrCat(context.run->node(), "/", context.run->start().ranks(0).device()));
  const AttentionUse attention = runtime.device->attention_use();
  report.set_kernel(attention.kernel);
  report.set_deterministic(attention.deterministic);
  if (attention.made_late > 0) {
    LogInfo("attention kernels made within the step",
            {{"kernels", attention.made_late}, {"seconds", attention.late_seconds}});
  }
  report.set_tokens(mine.tokens.size());
  const PassFigures total = figures.total();
  report.set_compute_seconds(total.compute_seconds);
  report.set_communication_exposed_seconds(total.exposed_seconds);
  report.set_communication_hidden_seconds(total.hidden_seconds);
  report.set_peak_bytes(runtime.device->memory().peak_bytes);
  report.set_predicted_peak_bytes(mine.predicted_peak_bytes);
  report.set_execute_seconds(total.wall_seconds);
  // Others are judged by the time of their kernels: no threads of ours compute there.
  if (IsHost(runtime.device->info().kind)) report.set_cpu_seconds(total.cpu_seconds);
  report.set_attention_seconds(total.attention_seconds);
  report.set_product_seconds(total.product_seconds);
  report.set_pointwise_seconds(total.pointwise_seconds);
  report.set_flops(RankFlops(job, plan, context.rank, context.run->start().checkpoints().layers()));
  report.set_peak_flops(context.run->device().rates().peak_flops());
  AddTraffic(*runtime.traffic, &report);
  AddPass("forward", figures.forward, &report);
  if (job.backward()) AddPass("backward", figures.backward, &report);
  return report;
}

}  // namespace

absl::StatusOr<v1::RankEvent> RunRank(const RankContext& context) {
  const v1::StartRanks& start = context.run->start();
  Progress* const progress = context.progress;
  const auto enter = [&context](JobPhase phase) {
    context.trace->EnterPhase(phase);
    context.progress->Enter(phase);
  };
  enter(JobPhase::kBootstrap);
  SEQPAR_RETURN_IF_ERROR(Failpoint("executor.start"));
  SEQPAR_RETURN_IF_ERROR(CheckKnownValues("job", start.job()));
  const JobSpec job = JobFromProto(start.job());
  SEQPAR_ASSIGN_OR_RETURN(const Plan plan, PlanFromProto(start.plan()));
  SEQPAR_ASSIGN_OR_RETURN(const DataRoots roots, MakeRoots(*context.run));
  SEQPAR_ASSIGN_OR_RETURN(RankRuntime runtime, Bootstrap(context, job, plan));
  const StopWatching stop_watching(progress);

  enter(JobPhase::kShard);
  Transfers transfers(runtime.device, runtime.compute.get(), [progress] { progress->Step(); });
  SEQPAR_ASSIGN_OR_RETURN(ShardedModel model, LoadShard(job, plan, context.rank, roots, runtime.streams(),
                                                        &*runtime.groups, start.checkpoints(), &transfers));
  SEQPAR_ASSIGN_OR_RETURN(OutputWriter writer, OutputWriter::Open(job, plan.ranks[context.rank].tokens, roots,
                                                                  start.staging_file(), &transfers));
  SEQPAR_RETURN_IF_ERROR(Failpoint("executor.shard.done"));
  // All ranks begin to execute together: what a slow disk costs is seen in this phase, not in the next.
  runtime.world->Barrier(*runtime.comm);
  SEQPAR_RETURN_IF_ERROR(runtime.Synchronize());

  CheckpointWriter checkpoints(job, start.checkpoints(), plan.ranks[context.rank], &roots, &transfers,
                               context.checkpointed);
  std::unique_ptr<Verifier> verifier;
  if (job.verify_rows > 0) {
    verifier = std::make_unique<Verifier>(job, plan, context.rank, start.gang().job(), runtime.world.get(),
                                          runtime.streams(), [progress] { progress->Step(); });
  }

  enter(JobPhase::kExecute);
  SEQPAR_ASSIGN_OR_RETURN(const ExecuteFigures figures, Execute(job, runtime, &model, &writer, &checkpoints,
                                                                verifier.get(), progress, context.trace));

  enter(JobPhase::kMerge);
  SEQPAR_RETURN_IF_ERROR(writer.WriteTokens(kHiddenStates, model.stack->output()));
  if (job.backward())
    SEQPAR_RETURN_IF_ERROR(writer.WriteTokens(kHiddenStatesGrad, model.stack->input_gradient()));
  SEQPAR_RETURN_IF_ERROR(writer.Sync());
  SEQPAR_RETURN_IF_ERROR(Failpoint("executor.merge.done"));
  // No rank leaves while another may still wait for its messages.
  runtime.world->Barrier(*runtime.comm);
  SEQPAR_RETURN_IF_ERROR(runtime.Synchronize());

  enter(JobPhase::kReport);
  v1::RankEvent event;
  event.set_kind(v1::RankEvent::FINISHED);
  event.set_phase(v1::JOB_PHASE_REPORT);
  *event.mutable_report() = MakeReport(context, job, plan, runtime, figures);
  for (const v1::PhaseSeconds& phase : progress->Seconds()) *event.add_phases() = phase;
  if (verifier != nullptr) {
    *event.mutable_verification() = verifier->result();
    event.mutable_report()->set_verify_error(event.verification().worst_error());
  }
  return event;
}

}  // namespace seqpar
