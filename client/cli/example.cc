#include "client/cli/example.h"

#include <fcntl.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/cli/job_file.h"
#include "common/base/fd.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "common/job/tensors.h"
#include "common/tensor/safetensors.h"
#include "common/tensor/seeded.h"

namespace seqpar {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kWeightsSeed = 1;
constexpr uint64_t kInputSeed = 2;
constexpr uint64_t kGradOutputSeed = 3;
constexpr uint64_t kTableSeed = 4;
constexpr int64_t kHeadDim = 64;
constexpr int64_t kBlockRows = 4096;

constexpr char kTemplate[] =
    R"(# A seqpar job. Every field is here; those that are commented out show their default or an example.
name: @NAME
# workload: layers               # a stack of transformer layers over one long sequence

config:                          # names as in Hugging Face's config.json
  hidden_size: @HIDDEN
  num_attention_heads: @HEADS
  num_key_value_heads: @KV_HEADS         # divides num_attention_heads; default: the same
  # head_dim: @HEAD_DIM                 # default: hidden_size / num_attention_heads
  intermediate_size: @INTERMEDIATE
  num_hidden_layers: 2
  # norm: rmsnorm                # none | layernorm | rmsnorm
  # norm_eps: 1e-5
  # mlp: swiglu                  # none | gelu | gelu_tanh | swiglu
  rope_theta: 10000              # left out: no rotary embedding
  # qkv_bias: false
  # attention_out_bias: false
  # mlp_bias: false

# dtype: float32                 # float32 | bfloat16
mask:
  kind: causal                   # full | causal | window
  # left: -1                     # window: a query sees `left` keys before it and `right` after; -1 is unlimited
  # right: -1
  # documents: [100, 200]        # lengths of packed documents; they sum to the tokens, nothing is seen across

pass: forward_backward           # forward | forward_backward

# Files are safetensors under a data root of the service. A relative path is relative to the first root.
weights: @WEIGHTS
input: @INPUT
grad_output: @GRAD_OUTPUT           # needed by forward_backward: {file: ...} or {seed: ...}

output:
  file: @OUTPUT
  # tensors: [hidden_states, hidden_states.grad, weights.grad]   # default: all of the pass
  overwrite: true                # default false: an existing file is refused

parallelism: auto                # the planner decides; or:
# parallelism:
#   strategy: hybrid             # megatron_sp | ulysses | ring | gather | hybrid
#   tensor: 1
#   ulysses: 2
#   ring: 2
#   inner: 2                     # ranks of an inner ring, divides ring
#   core: ring                   # ring | gather
#   layout: auto                 # contiguous | zigzag | striped | auto

recompute: auto                  # none | mlp | attention | layer: what backward computes again to save memory; auto: the least that fits
devices: auto                    # cpu | cuda | auto: the faster; or {kind: cuda, selector: {pool: a}}: nodes with these labels
# deterministic: true            # the same bits from run to run on GPUs too, slower; CPUs always give them
workers: {min: 4, max: 4}        # ranks; default: at least 1, at most what there is
verify: {rows: 8}                # rows of every layer recomputed in float64; max_error: 1e-4, bfloat16 5e-2

# labels: {team: search}
# priority: 0                    # higher first
# deadline: 3600                 # seconds from submit
# max_attempts: 3
)";

std::string YamlQuoted(const std::string& text) {
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"\"", "\\\""}}), "\"");
}

std::string SourceLine(const std::string& file, uint64_t seed, const std::string& more) {
  return absl::StrCat(
      "{", file.empty() ? absl::StrCat("seed: ", seed) : absl::StrCat("file: ", YamlQuoted(file)), more, "}");
}

absl::Status WriteFile(const std::string& path, const std::function<absl::Status(int fd)>& write) {
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
  return Annotate(write(fd.get()), path);
}

absl::Status WriteTextFile(const std::string& path, const std::string& text) {
  return WriteFile(path,
                   [&](int fd) { return PwriteAll(fd, text.data(), static_cast<int64_t>(text.size()), 0); });
}

// All weights of the job, as the service would make them from the seed.
absl::Status WriteWeights(const std::string& path, const JobSpec& job) {
  std::vector<WeightInfo> weights;
  std::vector<NamedTensorShape> shapes;
  for (int layer = 0; layer < job.config.layers; ++layer) {
    for (WeightInfo& weight : LayerWeights(job.config, layer)) {
      shapes.push_back({weight.name, DType::kF32, weight.shape});
      weights.push_back(std::move(weight));
    }
  }
  return WriteFile(path, [&](int fd) {
    SafetensorsHeader layout;
    const std::string head = BuildSafetensorsHeader(shapes, {{"format", "pt"}}, &layout);
    SEQPAR_RETURN_IF_ERROR(PwriteAll(fd, head.data(), static_cast<int64_t>(head.size()), 0));
    for (const WeightInfo& weight : weights) {
      const TensorInfo& info = layout.tensors.at(weight.name);
      std::vector<float> values(info.elements(), static_cast<float>(weight.seeded_constant));
      if (weight.seeded_variance > 0) {
        SeededUniform(kWeightsSeed, weight.name, weight.seeded_variance, 0, info.elements(), values.data());
      }
      SEQPAR_RETURN_IF_ERROR(PwriteAll(fd, values.data(), info.bytes, info.offset));
    }
    return absl::OkStatus();
  });
}

// `name` [1, tokens, hidden], a block of rows at a time: fill(first_row, rows, out).
absl::Status WriteTokens(const std::string& path, const char* name, int64_t tokens, int64_t hidden,
                         const std::function<void(int64_t, int64_t, float*)>& fill) {
  return WriteFile(path, [&](int fd) {
    SafetensorsHeader layout;
    const std::string head =
        BuildSafetensorsHeader({{name, DType::kF32, {1, tokens, hidden}}}, {{"format", "pt"}}, &layout);
    SEQPAR_RETURN_IF_ERROR(PwriteAll(fd, head.data(), static_cast<int64_t>(head.size()), 0));
    const int64_t offset = layout.tensors.at(name).offset;
    const int64_t row_bytes = hidden * static_cast<int64_t>(sizeof(float));
    std::vector<float> block(static_cast<size_t>(std::min(tokens, kBlockRows) * hidden));
    for (int64_t row = 0; row < tokens; row += kBlockRows) {
      const int64_t rows = std::min(kBlockRows, tokens - row);
      fill(row, rows, block.data());
      SEQPAR_RETURN_IF_ERROR(PwriteAll(fd, block.data(), rows * row_bytes, offset + row * row_bytes));
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<std::string> MakeFolder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  const std::string path = fs::canonical(folder, error).string();
  if (error) return absl::InvalidArgumentError(absl::StrCat("cannot create ", folder, ": ", error.message()));
  return path;
}

// People keep job files: what is there is theirs.
absl::Status MayWrite(const std::vector<std::string>& files, bool overwrite) {
  for (const std::string& file : files) {
    std::error_code error;
    if (!overwrite && fs::exists(file, error)) {
      return absl::AlreadyExistsError(
          absl::StrCat(file, " exists; --overwrite replaces it, --write DIR goes elsewhere"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string ExampleJob(const ExampleOptions& options) {
  const int64_t heads = options.hidden / kHeadDim;
  const std::string tokens = absl::StrCat(", tokens: ", options.tokens);
  return absl::StrReplaceAll(
      kTemplate,
      {{"@NAME", options.name},
       {"@HIDDEN", absl::StrCat(options.hidden)},
       {"@HEADS", absl::StrCat(heads)},
       {"@KV_HEADS", absl::StrCat(heads % 2 == 0 ? heads / 2 : heads)},
       {"@HEAD_DIM", absl::StrCat(kHeadDim)},
       {"@INTERMEDIATE", absl::StrCat(options.hidden * 11 / 4)},
       {"@WEIGHTS", SourceLine(options.weights_file, kWeightsSeed, "")},
       {"@INPUT", SourceLine(options.input_file, kInputSeed,
                             options.input_file.empty() ? absl::StrCat(", batch: 1", tokens) : "")},
       {"@GRAD_OUTPUT", SourceLine(options.grad_output_file, kGradOutputSeed, "")},
       {"@OUTPUT", YamlQuoted(options.output_file)}});
}

absl::StatusOr<std::string> WriteExample(const std::string& folder, bool overwrite) {
  SEQPAR_ASSIGN_OR_RETURN(const std::string path, MakeFolder(folder));
  SEQPAR_ASSIGN_OR_RETURN(const v1::Job parsed, ParseJob(ExampleJob(ExampleOptions()), {}));
  const JobSpec job = JobFromProto(parsed);
  ExampleOptions options;
  options.weights_file = path + "/weights.safetensors";
  options.input_file = path + "/input.safetensors";
  options.output_file = path + "/output.safetensors";
  options.grad_output_file = path + "/grad_output.safetensors";
  const std::string job_file = path + "/job.yaml";
  SEQPAR_RETURN_IF_ERROR(
      MayWrite({job_file, options.weights_file, options.input_file, options.grad_output_file}, overwrite));
  const int64_t hidden = job.config.hidden_size;
  const auto seeded_rows = [&](const char* name, uint64_t seed) {
    return [=](int64_t row, int64_t rows, float* out) {
      SeededUniform(seed, name, 1, row * hidden, rows * hidden, out);
    };
  };
  SEQPAR_RETURN_IF_ERROR(WriteWeights(options.weights_file, job));
  SEQPAR_RETURN_IF_ERROR(WriteTokens(options.input_file, kHiddenStates, job.tokens, hidden,
                                     seeded_rows(kHiddenStates, kInputSeed)));
  SEQPAR_RETURN_IF_ERROR(WriteTokens(options.grad_output_file, kGradOutput, job.tokens, hidden,
                                     seeded_rows(kGradOutput, kGradOutputSeed)));
  SEQPAR_RETURN_IF_ERROR(WriteTextFile(job_file, ExampleJob(options)));
  return job_file;
}

absl::StatusOr<std::string> WriteTextExample(const std::string& text, const std::string& folder,
                                             int64_t hidden, bool overwrite) {
  if (hidden < kHeadDim || hidden % kHeadDim != 0) {
    return InvalidInput(reason::kInvalidArgument,
                        {{"--hidden", absl::StrCat("must be a multiple of ", kHeadDim, ", is ", hidden),
                          absl::StrCat(std::max<int64_t>(1, hidden / kHeadDim) * kHeadDim)}});
  }
  SEQPAR_ASSIGN_OR_RETURN(const std::string bytes, ReadText(text));
  if (bytes.empty()) return absl::InvalidArgumentError(absl::StrCat(text, " is empty"));
  SEQPAR_ASSIGN_OR_RETURN(const std::string path, MakeFolder(folder));
  std::vector<float> table(static_cast<size_t>(256 * hidden));
  SeededUniform(kTableSeed, "embedding", 1, 0, 256 * hidden, table.data());

  ExampleOptions options;
  options.name = "text";
  options.hidden = hidden;
  options.tokens = static_cast<int64_t>(bytes.size());
  options.input_file = path + "/input.safetensors";
  options.output_file = path + "/output.safetensors";
  const std::string job_file = path + "/job.yaml";
  SEQPAR_RETURN_IF_ERROR(MayWrite({job_file, options.input_file}, overwrite));
  SEQPAR_RETURN_IF_ERROR(WriteTokens(
      options.input_file, kHiddenStates, options.tokens, hidden, [&](int64_t row, int64_t rows, float* out) {
        for (int64_t i = 0; i < rows; ++i) {
          const float* from =
              table.data() + static_cast<uint8_t>(bytes[static_cast<size_t>(row + i)]) * hidden;
          std::copy(from, from + hidden, out + i * hidden);
        }
      }));
  SEQPAR_RETURN_IF_ERROR(WriteTextFile(job_file, ExampleJob(options)));
  return job_file;
}

}  // namespace seqpar
