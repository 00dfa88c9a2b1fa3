// A folder of inputs, weights and checkpoints for validation tests, and a job that is right with them.
#ifndef SEQPAR_TESTS_COORDINATOR_VALIDATE_JOB_FILES_H_
#define SEQPAR_TESTS_COORDINATOR_VALIDATE_JOB_FILES_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/base/data_roots.h"
#include "common/job/proto.h"
#include "common/job/tensors.h"
#include "common/tensor/safetensors.h"
#include "seqpar/v1/job.pb.h"
#include "tests/support/temp_folder.h"

namespace seqpar {

class JobFiles : public TempFolder {
 public:
  DataRoots Roots() const { return DataRoots::Create({{"data", path()}}).value(); }

  void Write(const std::string& name, const std::string& bytes) const {
    std::filesystem::create_directories(std::filesystem::path(*this / name).parent_path());
    std::ofstream(*this / name, std::ios::binary) << bytes;
  }

  // A safetensors file of zeros.
  void WriteTensors(const std::string& name, const std::vector<NamedTensorShape>& tensors) const {
    SafetensorsHeader layout;
    std::string bytes = BuildSafetensorsHeader(tensors, {}, &layout);
    bytes.resize(layout.file_bytes, '\0');
    Write(name, bytes);
  }
};

// Seeded, forward, two small layers: nothing is wrong with it.
inline v1::Job GoodJob() {
  v1::Job job;
  job.set_name("good");
  v1::ModelConfig& c = *job.mutable_config();
  c.set_hidden_size(32);
  c.set_num_attention_heads(4);
  c.set_num_key_value_heads(2);
  c.set_intermediate_size(48);
  c.set_num_hidden_layers(2);
  c.set_rope_theta(10000);
  job.mutable_weights()->set_seed(1);
  job.mutable_input()->set_seed(2);
  job.mutable_input()->set_tokens(100);
  return job;
}

// The weights of a job's layers and what a checkpoint has besides.
inline std::vector<NamedTensorShape> WeightsOf(const v1::Job& job) {
  std::vector<NamedTensorShape> tensors = {{"model.embed_tokens.weight", DType::kBF16, {50, 32}},
                                           {"model.norm.weight", DType::kBF16, {32}}};
  const ModelConfig config = JobFromProto(job).config;
  for (int layer = 0; layer < config.layers; ++layer) {
    for (const WeightInfo& weight : LayerWeights(config, layer)) {
      tensors.push_back({weight.name, DType::kBF16, weight.shape});
    }
  }
  return tensors;
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_COORDINATOR_VALIDATE_JOB_FILES_H_
