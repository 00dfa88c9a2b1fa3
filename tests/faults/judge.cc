// Judges one output file by the rule of docs/formulas.md: every tensor against the float64 oracle and the
// plain run of one device, of the job's seeded values.
//
//   faults_judge JOB.json OUTPUT.safetensors
//
// JOB.json: a job as the API shows it, with weights and gradients from seeds. Exit codes: 0 within the rule;
// 1 not, with a line for each tensor that is not; 2 what cannot be judged.
#include <fcntl.h>
#include <google/protobuf/util/json_util.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/fd.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "common/job/tensors.h"
#include "common/tensor/safetensors.h"
#include "common/tensor/seeded.h"
#include "tests/oracle/error_rule.h"
#include "tests/oracle/layer_oracle.h"

namespace seqpar {
namespace {

constexpr int kOutsideRule = 1, kNoJudgement = 2;

absl::StatusOr<JobSpec> ReadJob(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  v1::Job job;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const auto parsed = google::protobuf::util::JsonStringToMessage(text.str(), &job, options);
  if (!file || !parsed.ok()) return absl::InvalidArgumentError(absl::StrCat(path, ": no job"));
  JobSpec spec = JobFromProto(job);
  if (!spec.weights.seed || (spec.backward() && !spec.grad_output.seed)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": weights and gradients must be seeds"));
  }
  return spec;
}

std::vector<float> Seeded(uint64_t seed, const std::string& name, double variance, int64_t elements,
                          DType dtype) {
  std::vector<double> exact(elements);
  SeededUniform(seed, name, variance, 0, elements, exact.data());
  std::vector<char> stored(elements * SizeOf(dtype));
  ConvertElements(exact.data(), DType::kF64, stored.data(), dtype, elements);
  std::vector<float> values(elements);
  ConvertElements(stored.data(), dtype, values.data(), DType::kF32, elements);
  return values;
}

template <typename T>
absl::StatusOr<std::vector<T>> ReadTensor(int fd, const TensorInfo& info) {
  std::vector<char> bytes(info.bytes);
  SEQPAR_RETURN_IF_ERROR(PreadAll(fd, bytes.data(), info.bytes, info.offset));
  std::vector<T> values(info.elements());
  ConvertElements(bytes.data(), info.dtype, values.data(),
                  std::is_same_v<T, double> ? DType::kF64 : DType::kF32, info.elements());
  return values;
}

// The job's input, rounded to its dtype.
absl::StatusOr<std::vector<float>> InputOf(const JobSpec& job) {
  if (job.input.seed) {
    return Seeded(*job.input.seed, kHiddenStates, 1, job.batch * job.tokens * job.config.hidden_size,
                  job.dtype);
  }
  const UniqueFd fd(open(job.input.file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return absl::NotFoundError(job.input.file);
  SEQPAR_ASSIGN_OR_RETURN(const SafetensorsHeader header, ReadSafetensorsHeader(fd.get()));
  SEQPAR_ASSIGN_OR_RETURN(const TensorInfo info, header.Find(kHiddenStates));
  SEQPAR_ASSIGN_OR_RETURN(std::vector<float> values, ReadTensor<float>(fd.get(), info));
  RoundTo(job.dtype, &values);
  return values;
}

int64_t Elements(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

std::string LayerPrefix(int64_t layer) { return absl::StrCat("model.layers.", layer, "."); }

NamedValues<float> WeightsOf(const JobSpec& job, int layer) {
  NamedValues<float> weights;
  for (const WeightInfo& info : LayerWeights(job.config, layer)) {
    std::vector<float>& values = weights[info.name.substr(LayerPrefix(layer).size())];
    if (info.seeded_variance > 0) {
      values = Seeded(*job.weights.seed, info.name, info.seeded_variance, Elements(info.shape), job.dtype);
    } else {
      values.assign(Elements(info.shape), static_cast<float>(info.seeded_constant));
    }
  }
  return weights;
}

template <typename T>
NamedValues<T> As(const NamedValues<float>& values) {
  NamedValues<T> found;
  for (const auto& [name, numbers] : values) found[name] = {numbers.begin(), numbers.end()};
  return found;
}

// Every tensor that the job's output may hold, by its name there.
template <typename T>
NamedValues<T> RunOracle(const JobSpec& job, const std::vector<float>& x) {
  LayerProblem problem;
  problem.config = job.config;
  problem.batch = job.batch;
  problem.tokens = job.tokens;
  problem.mask = job.mask;
  problem.dtype = job.dtype;
  NamedValues<T> results;
  std::vector<T>& y = results[kHiddenStates] = {x.begin(), x.end()};
  std::vector<LayerTrace<T>> traces;
  for (int layer = 0; layer < job.config.layers; ++layer) {
    LayerTrace<T> trace = LayerForwardOracle<T>(problem, As<T>(WeightsOf(job, layer)), y);
    y = trace.y;
    if (job.backward()) traces.push_back(std::move(trace));
  }
  if (!job.backward()) return results;
  const std::vector<float> dy =
      Seeded(*job.grad_output.seed, kGradOutput, 1, static_cast<int64_t>(x.size()), job.dtype);
  std::vector<T>& dx = results[kHiddenStatesGrad] = {dy.begin(), dy.end()};
  for (int layer = static_cast<int>(traces.size()) - 1; layer >= 0; --layer) {
    LayerGrads<T> grads = LayerBackwardOracle<T>(problem, As<T>(WeightsOf(job, layer)), traces[layer], dx);
    dx = std::move(grads.dx);
    for (auto& [suffix, values] : grads.weights) {
      results[absl::StrCat(LayerPrefix(layer), suffix, ".grad")] = std::move(values);
    }
  }
  return results;
}

// The gradients of q, k and v of one layer: where one of them is exactly zero, the largest gives the scale.
ErrorScale SiblingOf(const NamedValues<double>& exact, const std::string& name) {
  const size_t at = name.find("self_attn.");
  if (at == std::string::npos) return {};
  const std::string kind = name.substr(name.find('.', at + sizeof("self_attn.") - 1));
  ErrorScale largest;
  for (const char* which : {"q", "k", "v"}) {
    const auto found = exact.find(absl::StrCat(name.substr(0, at), "self_attn.", which, "_proj", kind));
    if (found == exact.end()) continue;
    const ErrorScale scale = ScaleOf(found->second);
    if (scale.norm > largest.norm) largest = scale;
  }
  return largest;
}

absl::StatusOr<int> Judge(const std::string& job_path, const std::string& output_path) {
  SEQPAR_ASSIGN_OR_RETURN(const JobSpec job, ReadJob(job_path));
  const UniqueFd fd(open(output_path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return absl::NotFoundError(output_path);
  SEQPAR_ASSIGN_OR_RETURN(const SafetensorsHeader header, ReadSafetensorsHeader(fd.get()));
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<float> x, InputOf(job));
  const NamedValues<double> exact = RunOracle<double>(job, x);
  const NamedValues<float> plain = RunOracle<float>(job, x);
  int verdict = 0;
  for (const NamedTensorShape& tensor : OutputTensors(job)) {
    SEQPAR_ASSIGN_OR_RETURN(const TensorInfo info, header.Find(tensor.name));
    SEQPAR_ASSIGN_OR_RETURN(const std::vector<double> values, ReadTensor<double>(fd.get(), info));
    if (info.shape != tensor.shape) {
      return absl::InvalidArgumentError(absl::StrCat(tensor.name, ": another shape"));
    }
    const testing::AssertionResult within = WithinRule(values, plain.at(tensor.name), exact.at(tensor.name),
                                                       job.dtype, SiblingOf(exact, tensor.name));
    if (within) continue;
    std::printf("%s: %s\n", tensor.name.c_str(), within.message());
    verdict = kOutsideRule;
  }
  return verdict;
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: faults_judge JOB.json OUTPUT.safetensors\n");
    return seqpar::kNoJudgement;
  }
  const absl::StatusOr<int> verdict = seqpar::Judge(argv[1], argv[2]);
  if (verdict.ok()) return *verdict;
  std::fprintf(stderr, "faults_judge: %s\n", std::string(verdict.status().message()).c_str());
  return seqpar::kNoJudgement;
}
