#include "common/job/proto.h"

namespace seqpar {
namespace {

constexpr double kDefaultNormEps = 1e-5;
constexpr double kDefaultMaxErrorF32 = 1e-4;
constexpr double kDefaultMaxErrorBF16 = 5e-2;

constexpr char kOutputHiddenStates[] = "hidden_states";
constexpr char kOutputHiddenGrad[] = "hidden_states.grad";
constexpr char kOutputWeightGrads[] = "weights.grad";

NormKind NormFromProto(v1::Norm norm) {
  switch (norm) {
    case v1::NORM_NONE:
      return NormKind::kNone;
    case v1::NORM_LAYERNORM:
      return NormKind::kLayerNorm;
    default:
      return NormKind::kRmsNorm;
  }
}

v1::Norm NormToProto(NormKind norm) {
  switch (norm) {
    case NormKind::kNone:
      return v1::NORM_NONE;
    case NormKind::kLayerNorm:
      return v1::NORM_LAYERNORM;
    case NormKind::kRmsNorm:
      break;
  }
  return v1::NORM_RMSNORM;
}

MlpKind MlpFromProto(v1::Mlp mlp) {
  switch (mlp) {
    case v1::MLP_NONE:
      return MlpKind::kNone;
    case v1::MLP_GELU:
      return MlpKind::kGelu;
    case v1::MLP_GELU_TANH:
      return MlpKind::kGeluTanh;
    default:
      return MlpKind::kSwiglu;
  }
}

v1::Mlp MlpToProto(MlpKind mlp) {
  switch (mlp) {
    case MlpKind::kNone:
      return v1::MLP_NONE;
    case MlpKind::kGelu:
      return v1::MLP_GELU;
    case MlpKind::kGeluTanh:
      return v1::MLP_GELU_TANH;
    case MlpKind::kSwiglu:
      break;
  }
  return v1::MLP_SWIGLU;
}

ModelConfig ConfigFromProto(const v1::ModelConfig& proto) {
  ModelConfig config;
  config.hidden_size = proto.hidden_size();
  config.heads = static_cast<int>(proto.num_attention_heads());
  config.kv_heads =
      proto.has_num_key_value_heads() ? static_cast<int>(proto.num_key_value_heads()) : config.heads;
  if (proto.has_head_dim()) {
    config.head_dim = static_cast<int>(proto.head_dim());
  } else if (config.heads > 0) {
    config.head_dim = static_cast<int>(config.hidden_size / config.heads);
  }
  config.layers = static_cast<int>(proto.num_hidden_layers());
  config.norm = NormFromProto(proto.norm());
  config.norm_eps = proto.has_norm_eps() ? proto.norm_eps() : kDefaultNormEps;
  config.mlp = MlpFromProto(proto.mlp());
  config.intermediate_size = config.mlp == MlpKind::kNone ? 0 : proto.intermediate_size();
  if (proto.has_rope_theta()) config.rope_theta = proto.rope_theta();
  config.qkv_bias = proto.qkv_bias();
  config.attention_out_bias = proto.attention_out_bias();
  config.mlp_bias = proto.mlp_bias();
  return config;
}

void ConfigToProto(const ModelConfig& config, v1::ModelConfig* proto) {
  proto->set_hidden_size(config.hidden_size);
  proto->set_num_attention_heads(config.heads);
  proto->set_num_key_value_heads(config.kv_heads);
  proto->set_head_dim(config.head_dim);
  proto->set_intermediate_size(config.intermediate_size);
  proto->set_num_hidden_layers(config.layers);
  proto->set_norm(NormToProto(config.norm));
  proto->set_norm_eps(config.norm_eps);
  proto->set_mlp(MlpToProto(config.mlp));
  if (config.rope_theta.has_value()) proto->set_rope_theta(*config.rope_theta);
  proto->set_qkv_bias(config.qkv_bias);
  proto->set_attention_out_bias(config.attention_out_bias);
  proto->set_mlp_bias(config.mlp_bias);
}

MaskSpec MaskFromProto(const v1::Mask& proto) {
  MaskSpec mask;
  mask.kind = proto.kind() == v1::MASK_KIND_FULL     ? MaskKind::kFull
              : proto.kind() == v1::MASK_KIND_WINDOW ? MaskKind::kWindow
                                                     : MaskKind::kCausal;
  if (proto.has_left()) mask.left = proto.left();
  if (proto.has_right()) mask.right = proto.right();
  mask.documents.assign(proto.documents().begin(), proto.documents().end());
  return mask;
}

void MaskToProto(const MaskSpec& mask, v1::Mask* proto) {
  proto->set_kind(mask.kind == MaskKind::kFull     ? v1::MASK_KIND_FULL
                  : mask.kind == MaskKind::kWindow ? v1::MASK_KIND_WINDOW
                                                   : v1::MASK_KIND_CAUSAL);
  proto->set_left(mask.left);
  proto->set_right(mask.right);
  proto->mutable_documents()->Add(mask.documents.begin(), mask.documents.end());
}

template <typename Proto>
Source SourceFromProto(const Proto& proto) {
  Source source;
  if (proto.source_case() == Proto::kFile) source.file = proto.file();
  if (proto.source_case() == Proto::kSeed) source.seed = proto.seed();
  return source;
}

template <typename Proto>
void SourceToProto(const Source& source, Proto* proto) {
  if (source.seed.has_value()) {
    proto->set_seed(*source.seed);
  } else if (!source.file.empty()) {
    proto->set_file(source.file);
  }
}

// Without a file nothing is written, so no tensor is asked for either.
void OutputFromProto(const v1::Output& proto, JobSpec* job) {
  job->output_file = proto.file();
  job->overwrite = proto.overwrite();
  if (proto.file().empty()) return;
  if (proto.tensors().empty()) {
    job->output_hidden_states = true;
    job->output_hidden_grad = job->output_weight_grads = job->backward();
  }
  for (const std::string& tensor : proto.tensors()) {
    if (tensor == kOutputHiddenStates) job->output_hidden_states = true;
    if (tensor == kOutputHiddenGrad) job->output_hidden_grad = true;
    if (tensor == kOutputWeightGrads) job->output_weight_grads = true;
  }
}

void OutputToProto(const JobSpec& job, v1::Output* proto) {
  proto->set_file(job.output_file);
  proto->set_overwrite(job.overwrite);
  if (job.output_hidden_states) proto->add_tensors(kOutputHiddenStates);
  if (job.output_hidden_grad) proto->add_tensors(kOutputHiddenGrad);
  if (job.output_weight_grads) proto->add_tensors(kOutputWeightGrads);
}

ParallelismSpec ParallelismFromProto(const v1::Parallelism& proto) {
  ParallelismSpec spec;
  spec.strategy = StrategyFromProto(proto.strategy());
  spec.tensor = proto.tensor();
  spec.ulysses = proto.ulysses();
  spec.ring = proto.ring();
  spec.inner = proto.inner();
  spec.core = CoreFromProto(proto.core());
  if (proto.layout() != v1::LAYOUT_UNSPECIFIED && proto.layout() != v1::LAYOUT_AUTO) {
    spec.layout = LayoutFromProto(proto.layout());
  }
  return spec;
}

void ParallelismToProto(const ParallelismSpec& spec, v1::Parallelism* proto) {
  proto->set_strategy(StrategyToProto(spec.strategy));
  if (spec.tensor != 0) proto->set_tensor(spec.tensor);
  if (spec.ulysses != 0) proto->set_ulysses(spec.ulysses);
  if (spec.ring != 0) proto->set_ring(spec.ring);
  if (spec.inner != 0) proto->set_inner(spec.inner);
  proto->set_core(CoreToProto(spec.core));
  proto->set_layout(spec.layout.has_value() ? LayoutToProto(*spec.layout) : v1::LAYOUT_AUTO);
}

DevicesSpec DevicesFromProto(const v1::Devices& proto) {
  DevicesSpec devices;
  devices.kind = proto.kind() == v1::DEVICE_KIND_CPU    ? DeviceKind::kCpu
                 : proto.kind() == v1::DEVICE_KIND_CUDA ? DeviceKind::kCuda
                                                        : DeviceKind::kAuto;
  devices.selector.insert(proto.selector().begin(), proto.selector().end());
  return devices;
}

void DevicesToProto(const DevicesSpec& devices, v1::Devices* proto) {
  proto->set_kind(devices.kind == DeviceKind::kCpu    ? v1::DEVICE_KIND_CPU
                  : devices.kind == DeviceKind::kCuda ? v1::DEVICE_KIND_CUDA
                                                      : v1::DEVICE_KIND_AUTO);
  proto->mutable_selector()->insert(devices.selector.begin(), devices.selector.end());
}

}  // namespace

JobSpec JobFromProto(const v1::Job& proto) {
  JobSpec job;
  job.name = proto.name();
  job.config = ConfigFromProto(proto.config());
  job.dtype = proto.dtype() == v1::DATA_TYPE_BFLOAT16 ? DType::kBF16 : DType::kF32;
  job.mask = MaskFromProto(proto.mask());
  job.pass = proto.pass() == v1::PASS_FORWARD_BACKWARD ? JobPass::kForwardBackward : JobPass::kForward;
  job.weights = SourceFromProto(proto.weights());
  job.input = SourceFromProto(proto.input());
  job.batch = proto.input().batch() == 0 ? 1 : proto.input().batch();
  job.tokens = proto.input().tokens();
  job.grad_output = SourceFromProto(proto.grad_output());
  OutputFromProto(proto.output(), &job);
  job.parallelism = ParallelismFromProto(proto.parallelism());
  job.devices = DevicesFromProto(proto.devices());
  job.min_workers = proto.workers().min() == 0 ? 1 : proto.workers().min();
  job.max_workers = proto.workers().max();
  job.verify_rows = proto.verify().rows();
  job.verify_max_error = proto.verify().has_max_error() ? proto.verify().max_error()
                         : job.dtype == DType::kBF16    ? kDefaultMaxErrorBF16
                                                        : kDefaultMaxErrorF32;
  job.labels.insert(proto.labels().begin(), proto.labels().end());
  job.priority = proto.priority();
  job.deadline_seconds = proto.deadline();
  job.max_attempts = proto.max_attempts();
  job.deterministic = proto.deterministic();
  if (proto.recompute() != v1::RECOMPUTE_UNSPECIFIED && proto.recompute() != v1::RECOMPUTE_AUTO) {
    job.recompute = RecomputeFromProto(proto.recompute());
  }
  return job;
}

v1::Job JobToProto(const JobSpec& job) {
  v1::Job proto;
  proto.set_name(job.name);
  proto.set_workload(v1::WORKLOAD_LAYERS);
  ConfigToProto(job.config, proto.mutable_config());
  proto.set_dtype(job.dtype == DType::kBF16 ? v1::DATA_TYPE_BFLOAT16 : v1::DATA_TYPE_FLOAT32);
  MaskToProto(job.mask, proto.mutable_mask());
  proto.set_pass(job.backward() ? v1::PASS_FORWARD_BACKWARD : v1::PASS_FORWARD);
  if (job.weights.given()) SourceToProto(job.weights, proto.mutable_weights());
  SourceToProto(job.input, proto.mutable_input());
  proto.mutable_input()->set_batch(job.batch);
  proto.mutable_input()->set_tokens(job.tokens);
  if (job.grad_output.given()) SourceToProto(job.grad_output, proto.mutable_grad_output());
  OutputToProto(job, proto.mutable_output());
  ParallelismToProto(job.parallelism, proto.mutable_parallelism());
  DevicesToProto(job.devices, proto.mutable_devices());
  proto.mutable_workers()->set_min(job.min_workers);
  proto.mutable_workers()->set_max(job.max_workers);
  proto.mutable_verify()->set_rows(job.verify_rows);
  proto.mutable_verify()->set_max_error(job.verify_max_error);
  proto.mutable_labels()->insert(job.labels.begin(), job.labels.end());
  proto.set_priority(job.priority);
  proto.set_deadline(job.deadline_seconds);
  proto.set_max_attempts(job.max_attempts);
  proto.set_deterministic(job.deterministic);
  proto.set_recompute(job.recompute.has_value() ? RecomputeToProto(*job.recompute) : v1::RECOMPUTE_AUTO);
  return proto;
}

}  // namespace seqpar
