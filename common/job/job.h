// A job as a value: what was asked, with defaults filled in. The wire form is proto/seqpar/v1/job.proto.
#ifndef SEQPAR_COMMON_JOB_JOB_H_
#define SEQPAR_COMMON_JOB_JOB_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/device/device.h"
#include "common/parallel/mask.h"
#include "common/parallel/token_layout.h"
#include "common/tensor/dtype.h"

namespace seqpar {

enum class JobState { kPending, kRunning, kSucceeded, kFailed, kCancelled };
enum class JobPhase { kSubmit, kValidate, kPlan, kPlace, kBootstrap, kShard, kExecute, kMerge, kReport };
const char* StateName(JobState state);  // "PENDING", ...
const char* PhaseName(JobPhase phase);  // "submit", ...
inline bool HasEnded(JobState s) { return s != JobState::kPending && s != JobState::kRunning; }

enum class JobPass { kForward, kForwardBackward };
enum class StrategyKind { kAuto, kMegatronSp, kUlysses, kRing, kGather, kHybrid };
enum class CoreKind { kRing, kGather };
// What backward computes again instead of reading what forward kept, the least first: nothing, the MLP's
// intermediates, attention, or both, for which only each layer's input is kept.
enum class Recompute { kNone, kMlp, kAttention, kLayer };
inline bool RecomputesMlp(Recompute r) { return r == Recompute::kMlp || r == Recompute::kLayer; }
inline bool RecomputesAttention(Recompute r) { return r == Recompute::kAttention || r == Recompute::kLayer; }
enum class DeviceKind { kAuto, kCpu, kCuda };
const char* StrategyName(StrategyKind kind);  // "megatron_sp", ...
const char* CoreName(CoreKind kind);
const char* RecomputeName(Recompute recompute);
const char* DeviceKindName(DeviceKind kind);  // "auto"; else as in DeviceSpec::kind

struct ModelConfig {
  int64_t hidden_size = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int64_t intermediate_size = 0;  // 0 where mlp is none
  int layers = 0;
  NormKind norm = NormKind::kRmsNorm;
  double norm_eps = 1e-5;
  MlpKind mlp = MlpKind::kSwiglu;
  std::optional<double> rope_theta;
  bool qkv_bias = false;
  bool attention_out_bias = false;
  bool mlp_bias = false;
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

struct MaskSpec {
  MaskKind kind = MaskKind::kCausal;
  int64_t left = -1;
  int64_t right = -1;
  std::vector<int64_t> documents;
  Mask Make(int64_t tokens) const { return Mask(kind, tokens, left, right, documents); }
  friend bool operator==(const MaskSpec&, const MaskSpec&) = default;
};

// Exactly one of file and seed.
struct Source {
  std::string file;
  std::optional<uint64_t> seed;
  bool given() const { return !file.empty() || seed.has_value(); }
  friend bool operator==(const Source&, const Source&) = default;
};

struct ParallelismSpec {
  StrategyKind strategy = StrategyKind::kAuto;
  // 0: not given, chosen by the planner where the strategy has the axis.
  int tensor = 0, ulysses = 0, ring = 0, inner = 0;
  CoreKind core = CoreKind::kRing;
  std::optional<LayoutKind> layout;  // none: auto
  friend bool operator==(const ParallelismSpec&, const ParallelismSpec&) = default;
};

// Which devices a gang may have; they are of one kind in any case.
struct DevicesSpec {
  DeviceKind kind = DeviceKind::kAuto;          // auto: the kind on which the job is predicted fastest
  std::map<std::string, std::string> selector;  // labels that a node must have, all of them
  friend bool operator==(const DevicesSpec&, const DevicesSpec&) = default;
};

struct JobSpec {
  std::string name;
  ModelConfig config;
  DType dtype = DType::kF32;
  MaskSpec mask;
  JobPass pass = JobPass::kForward;
  Source weights;
  Source input;
  int64_t batch = 1;
  int64_t tokens = 0;  // validation fills it in from the input file
  Source grad_output;
  std::string output_file;  // "": nothing is written
  bool output_hidden_states = false, output_hidden_grad = false, output_weight_grads = false;
  bool overwrite = false;
  ParallelismSpec parallelism;
  DevicesSpec devices;
  std::optional<Recompute> recompute;  // none: auto, the least that fits
  bool deterministic = false;          // the same bits from run to run, on any device
  int min_workers = 1;
  int max_workers = 0;  // 0: as many as there are
  int verify_rows = 0;
  double verify_max_error = 1e-4;
  std::map<std::string, std::string> labels;
  int priority = 0;
  double deadline_seconds = 0;  // 0: none
  int max_attempts = 0;         // 0: the coordinator's default

  bool backward() const { return pass == JobPass::kForwardBackward; }
  friend bool operator==(const JobSpec&, const JobSpec&) = default;
};

// Model flops of the job (formulas.md, "Arithmetic"): recomputation not counted. attention and the rest
// apart, forward only; backward is 2.5 times the former and twice the latter.
struct ModelFlops {
  double attention_forward = 0;
  double linear_forward = 0;
  double total = 0;  // of the job's pass, all layers
};
ModelFlops CountModelFlops(const JobSpec& job);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_JOB_JOB_H_
