#include "common/job/job.h"

namespace seqpar {

const char* StateName(JobState state) {
  switch (state) {
    case JobState::kPending:
      return "PENDING";
    case JobState::kRunning:
      return "RUNNING";
    case JobState::kSucceeded:
      return "SUCCEEDED";
    case JobState::kFailed:
      return "FAILED";
    case JobState::kCancelled:
      return "CANCELLED";
  }
  return "?";
}

const char* PhaseName(JobPhase phase) {
  switch (phase) {
    case JobPhase::kSubmit:
      return "submit";
    case JobPhase::kValidate:
      return "validate";
    case JobPhase::kPlan:
      return "plan";
    case JobPhase::kPlace:
      return "place";
    case JobPhase::kBootstrap:
      return "bootstrap";
    case JobPhase::kShard:
      return "shard";
    case JobPhase::kExecute:
      return "execute";
    case JobPhase::kMerge:
      return "merge";
    case JobPhase::kReport:
      return "report";
  }
  return "?";
}

const char* StrategyName(StrategyKind kind) {
  switch (kind) {
    case StrategyKind::kAuto:
      return "auto";
    case StrategyKind::kMegatronSp:
      return "megatron_sp";
    case StrategyKind::kUlysses:
      return "ulysses";
    case StrategyKind::kRing:
      return "ring";
    case StrategyKind::kGather:
      return "gather";
    case StrategyKind::kHybrid:
      return "hybrid";
  }
  return "?";
}

const char* CoreName(CoreKind kind) { return kind == CoreKind::kGather ? "gather" : "ring"; }

const char* RecomputeName(Recompute recompute) {
  switch (recompute) {
    case Recompute::kNone:
      return "none";
    case Recompute::kMlp:
      return "mlp";
    case Recompute::kAttention:
      return "attention";
    case Recompute::kLayer:
      return "layer";
  }
  return "?";
}

const char* DeviceKindName(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::kAuto:
      return "auto";
    case DeviceKind::kCpu:
      return "cpu";
    case DeviceKind::kCuda:
      return "cuda";
  }
  return "?";
}

ModelFlops CountModelFlops(const JobSpec& job) {
  const ModelConfig& c = job.config;
  const double layers = c.layers;
  const double rows = static_cast<double>(job.batch) * static_cast<double>(job.tokens);
  const double hidden = static_cast<double>(c.hidden_size);
  const double q_width = static_cast<double>(c.heads) * c.head_dim;
  const double kv_width = static_cast<double>(c.kv_heads) * c.head_dim;
  const double mlp_matrices = c.mlp == MlpKind::kNone ? 0 : c.mlp == MlpKind::kSwiglu ? 3 : 2;
  const double pairs = job.tokens > 0 ? job.mask.Make(job.tokens).Pairs() : 0;

  ModelFlops flops;
  flops.attention_forward = layers * 4 * static_cast<double>(job.batch) * pairs * q_width;
  flops.linear_forward =
      layers * 2 * rows * hidden *
      (2 * q_width + 2 * kv_width + mlp_matrices * static_cast<double>(c.intermediate_size));
  flops.total = job.backward() ? 3.5 * flops.attention_forward + 3 * flops.linear_forward
                               : flops.attention_forward + flops.linear_forward;
  return flops;
}

}  // namespace seqpar
