// Names, shapes and places of a job's tensors: which weights a configuration has, and what an output file
// holds.
#ifndef SEQPAR_COMMON_JOB_TENSORS_H_
#define SEQPAR_COMMON_JOB_TENSORS_H_

#include <string>
#include <vector>

#include "common/job/job.h"
#include "common/tensor/safetensors.h"

namespace seqpar {

struct WeightInfo {
  std::string name;            // model.layers.{i}.self_attn.q_proj.weight
  std::vector<int64_t> shape;  // [out, in] for matrices, [out] for vectors
  double seeded_variance;      // 1 / in for matrices; 0: constant
  double seeded_constant;      // norm weights 1, biases 0
};

// Every weight of layer `layer`, in a fixed order (docs/job.md, "Tensors in files").
std::vector<WeightInfo> LayerWeights(const ModelConfig& config, int layer);

inline constexpr char kHiddenStates[] = "hidden_states";
inline constexpr char kHiddenStatesGrad[] = "hidden_states.grad";
inline constexpr char kGradOutput[] = "grad_output";

// The tensors of the output file in the order in which it holds them: hidden_states, hidden_states.grad
// (job's dtype, [batch, tokens, hidden]), then NAME.grad for every weight (float32). Only those that the job
// asks for.
std::vector<NamedTensorShape> OutputTensors(const JobSpec& job);

// The header of the output file and where everything lies in it. Metadata: format "pt".
std::string BuildOutputHeader(const JobSpec& job, SafetensorsHeader* layout);

// The same of a checkpoint, the output of one layer: hidden_states alone.
std::string BuildCheckpointHeader(const JobSpec& job, SafetensorsHeader* layout);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_JOB_TENSORS_H_
