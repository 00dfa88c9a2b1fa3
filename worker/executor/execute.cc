#include "worker/executor/execute.h"

#include <algorithm>
#include <chrono>

#include "common/base/status.h"
#include "worker/executor/thread_times.h"

namespace seqpar {
namespace {

using SteadyClock = std::chrono::steady_clock;

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

// Clocks of a rank that can be subtracted.
struct Clocks {
  double cpu = 0;
  StreamTimes compute, comm;

  static Clocks Read(const RankRuntime& runtime) {
    return {ComputeThreadSeconds(), runtime.compute->times(), runtime.comm->times()};
  }
};

// What is counted of the execute phase: Pause and Resume leave out what is done between layers.
class Stopwatch {
 public:
  explicit Stopwatch(const RankRuntime& runtime) : runtime_(runtime) { Resume(); }

  void Resume() {
    begin_ = Clocks::Read(runtime_);
    start_ = SteadyClock::now();
  }

  void Pause() {
    figures_.wall_seconds += SecondsSince(start_);
    const Clocks now = Clocks::Read(runtime_);
    const double exposed = now.compute.wait_seconds - begin_.compute.wait_seconds;
    const double communicating = now.comm.busy_seconds - begin_.comm.busy_seconds;
    figures_.compute_seconds += now.compute.busy_seconds - begin_.compute.busy_seconds;
    figures_.exposed_seconds += exposed;
    figures_.hidden_seconds += std::max(0.0, communicating - exposed);
    figures_.cpu_seconds += now.cpu - begin_.cpu;
    const auto busy = [&](WorkKind kind) { return now.compute.Busy(kind) - begin_.compute.Busy(kind); };
    figures_.attention_seconds += busy(WorkKind::kAttention);
    figures_.product_seconds += busy(WorkKind::kProduct);
    figures_.pointwise_seconds += busy(WorkKind::kPointwise);
  }

  const PassFigures& figures() const { return figures_; }

 private:
  const RankRuntime& runtime_;
  Clocks begin_;
  SteadyClock::time_point start_;
  PassFigures figures_;
};

}  // namespace

absl::StatusOr<ExecuteFigures> Execute(const JobSpec& job, const RankRuntime& runtime, ShardedModel* model,
                                       OutputWriter* writer, Verifier* verifier, Progress* progress) {
  const ModelFlops flops = CountModelFlops(job);
  const double layers = job.config.layers;
  const double forward = (flops.attention_forward + flops.linear_forward) / std::max(1.0, flops.total);
  ExecuteFigures figures;
  int done = 0;
  Stopwatch* watch = nullptr;  // of the pass that runs
  const auto after_layer = [&](const LayerStep& step) -> absl::Status {
    watch->Pause();
    ++done;
    if (step.pass == Pass::kForward) {
      progress->Advance("forward", done, forward * done / layers);
    } else {
      progress->Advance("backward", done, forward + (1 - forward) * done / layers);
      SEQPAR_RETURN_IF_ERROR(writer->WriteWeightGradients(step.layer, *step.gradients));
    }
    if (verifier != nullptr) SEQPAR_RETURN_IF_ERROR(verifier->Check(step));
    watch->Resume();
    return absl::OkStatus();
  };
  Stopwatch forward_watch(runtime);
  watch = &forward_watch;
  SEQPAR_RETURN_IF_ERROR(model->stack->Forward(after_layer));
  forward_watch.Pause();
  figures.forward = forward_watch.figures();
  if (!job.backward()) return figures;
  done = 0;
  Stopwatch backward_watch(runtime);
  watch = &backward_watch;
  SEQPAR_RETURN_IF_ERROR(model->stack->Backward(after_layer));
  backward_watch.Pause();
  figures.backward = backward_watch.figures();
  return figures;
}

PassFigures ExecuteFigures::total() const {
  PassFigures sum;
  for (double PassFigures::*const seconds :
       {&PassFigures::wall_seconds, &PassFigures::compute_seconds, &PassFigures::exposed_seconds,
        &PassFigures::hidden_seconds, &PassFigures::cpu_seconds, &PassFigures::attention_seconds,
        &PassFigures::product_seconds, &PassFigures::pointwise_seconds}) {
    sum.*seconds = forward.*seconds + backward.*seconds;
  }
  return sum;
}

double RankFlops(const JobSpec& job, const Plan& plan, int rank) {
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
