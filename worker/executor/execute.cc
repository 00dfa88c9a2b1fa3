#include "worker/executor/execute.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "common/base/failpoints.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

// While it lives, progress reports carry what the step took so far.
class Measuring {
 public:
  Measuring(Progress* progress, std::function<PassFigures()> figures) : progress_(progress) {
    progress_->Measure(std::move(figures));
  }
  ~Measuring() { progress_->StopMeasuring(); }

 private:
  Progress* const progress_;
};

}  // namespace

absl::StatusOr<ExecuteFigures> Execute(const JobSpec& job, const RankRuntime& runtime, ShardedModel* model,
                                       OutputWriter* writer, CheckpointWriter* checkpoints,
                                       Verifier* verifier, Progress* progress, TraceRecorder* trace) {
  const ModelFlops flops = CountModelFlops(job);
  const double layers = job.config.layers;
  const double forward = (flops.attention_forward + flops.linear_forward) / std::max(1.0, flops.total);
  ExecuteFigures figures;
  int done = 0;                // layers of the pass that runs
  Stopwatch* watch = nullptr;  // of the pass that runs
  const auto after_layer = [&](const LayerStep& step) -> absl::Status {
    watch->Pause();
    trace->LeaveLayer();
    ++done;
    SEQPAR_RETURN_IF_ERROR(
        Failpoint(step.pass == Pass::kForward ? "executor.layer.forward" : "executor.layer.backward"));
    if (step.pass == Pass::kForward) {
      progress->Advance("forward", done, forward * done / layers);
      checkpoints->AfterLayer(done, step.y);
    } else {
      progress->Advance("backward", done, forward + (1 - forward) * done / layers);
      SEQPAR_RETURN_IF_ERROR(writer->WriteWeightGradients(step.layer, *step.gradients));
    }
    if (verifier != nullptr) {
      SEQPAR_RETURN_IF_ERROR(Failpoint("executor.verify"));
      SEQPAR_RETURN_IF_ERROR(verifier->Check(step));
    }
    trace->EnterLayer(PassName(step.pass), step.pass == Pass::kForward ? step.layer + 1 : step.layer - 1);
    watch->Resume();
    return absl::OkStatus();
  };
  const auto run = [&](Pass which, int first_layer, const auto& pass) -> absl::StatusOr<PassFigures> {
    done = which == Pass::kForward ? first_layer : 0;
    trace->EnterLayer(PassName(which), first_layer);
    Stopwatch pass_watch(runtime.compute.get(), runtime.comm.get());
    watch = &pass_watch;
    const Measuring measuring(progress, [&, before = figures.total()] { return before + pass_watch.Now(); });
    SEQPAR_RETURN_IF_ERROR(pass());
    pass_watch.Pause();
    trace->LeaveLayer();
    return pass_watch.figures();
  };
  SEQPAR_ASSIGN_OR_RETURN(figures.forward, run(Pass::kForward, model->first_layer,
                                               [&] { return model->stack->Forward(after_layer); }));
  if (!job.backward()) return figures;
  SEQPAR_ASSIGN_OR_RETURN(figures.backward, run(Pass::kBackward, job.config.layers - 1,
                                                [&] { return model->stack->Backward(after_layer); }));
  return figures;
}

double RankFlops(const JobSpec& whole, const Plan& plan, int rank, int first_layer) {
  JobSpec job = whole;
  job.config.layers -= first_layer;
  const ModelFlops flops = CountModelFlops(job);
  const RankPlan& mine = plan.ranks[rank];
  const MeshCoord at = plan.mesh.CoordOf(rank);
  const TokenShare everything({{0, job.tokens, 1}});
  const Mask mask = job.mask.Make(job.tokens);
  const double pairs = AttendedPairs(mask, plan.MakeTokenLayout().OfRing(at.ring), everything);
  const double attention = 4.0 * job.config.layers * static_cast<double>(job.batch) * pairs *
                           mine.heads.q_heads() * job.config.head_dim;
  const double linear =
      flops.linear_forward * static_cast<double>(mine.tokens.size()) / static_cast<double>(job.tokens);
  return job.backward() ? 3.5 * attention + 3 * linear : attention + linear;
}

}  // namespace seqpar
