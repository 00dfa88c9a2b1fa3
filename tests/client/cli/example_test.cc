#include "client/cli/example.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "client/cli/job_file.h"
#include "common/base/data_roots.h"
#include "common/base/fd.h"
#include "common/job/proto.h"
#include "common/tensor/safetensors.h"
#include "common/tensor/seeded.h"
#include "coordinator/planner/planner.h"
#include "coordinator/validate/validate.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ExampleTest : public ::testing::Test {
 protected:
  // As a service with the test's folder as its data root would.
  absl::StatusOr<ValidatedJob> Validate(const std::string& text) {
    auto job = ParseJob(text, {});
    if (!job.ok()) return job.status();
    return ValidateJob(*job, *DataRoots::Create({{"data", folder_.path()}}));
  }
  absl::StatusOr<ValidatedJob> ValidateFile(const std::string& path) {
    const auto text = ReadText(path);
    return text.ok() ? Validate(*text) : text.status();
  }
  std::vector<float> Values(const std::string& file, const std::string& name, std::vector<int64_t>* shape) {
    const UniqueFd fd(open((folder_ / file).c_str(), O_RDONLY));
    const auto header = ReadSafetensorsHeader(fd.get());
    EXPECT_TRUE(header.ok()) << header.status();
    const TensorInfo& info = header->tensors.at(name);
    *shape = info.shape;
    std::vector<float> values(static_cast<size_t>(info.elements()));
    EXPECT_TRUE(PreadAll(fd.get(), values.data(), info.bytes, info.offset).ok());
    return values;
  }

  TempFolder folder_;
};

TEST_F(ExampleTest, TheCommentedJobIsValid) {
  const auto job = Validate(ExampleJob(ExampleOptions()));
  EXPECT_TRUE(job.ok()) << job.status();
}

TEST_F(ExampleTest, EveryCommentedLineIsValidToo) {
  // "# field: value" lines without prose before the colon are defaults: put back in, they change nothing.
  const std::string job = ExampleJob(ExampleOptions());
  const auto plain = Validate(job);
  ASSERT_TRUE(plain.ok()) << plain.status();
  for (const char* line : {"workload: layers", "  head_dim: 64", "  norm: rmsnorm", "  norm_eps: 1e-5",
                           "  mlp: swiglu", "  qkv_bias: false", "  attention_out_bias: false",
                           "  mlp_bias: false", "dtype: float32", "  left: -1", "  right: -1",
                           "  tensors: [hidden_states, hidden_states.grad, weights.grad]", "priority: 0"}) {
    const std::string bare = std::string(line).substr(std::string(line).find_first_not_of(' '));
    const std::string indent = std::string(line).substr(0, std::string(line).size() - bare.size());
    const std::string commented = indent + "# " + bare;
    const size_t at = job.find(commented);
    ASSERT_NE(at, std::string::npos) << line;
    std::string with = job;
    with.replace(at, commented.size(), line);
    const auto changed = Validate(with);
    ASSERT_TRUE(changed.ok()) << line << ": " << changed.status();
    EXPECT_EQ(changed->spec, plain->spec) << line;
  }
}

TEST_F(ExampleTest, WrittenTensorsAreTheSeededOnes) {
  const auto path = WriteExample(folder_.path());
  ASSERT_TRUE(path.ok()) << path.status();
  const auto job = ValidateFile(*path);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->spec.tokens, 8192);
  EXPECT_EQ(job->inputs.size(), 3u);
  std::vector<int64_t> shape;
  const std::vector<float> input = Values("input.safetensors", "hidden_states", &shape);
  EXPECT_THAT(shape, ElementsAre(1, 8192, 256));
  std::vector<float> last(256);
  SeededUniform(2, "hidden_states", 1, 8191 * 256, 256, last.data());
  EXPECT_TRUE(std::equal(last.begin(), last.end(), input.end() - 256));
  const std::vector<float> gradient = Values("grad_output.safetensors", "grad_output", &shape);
  EXPECT_THAT(shape, ElementsAre(1, 8192, 256));
  SeededUniform(3, "grad_output", 1, 8191 * 256, 256, last.data());
  EXPECT_TRUE(std::equal(last.begin(), last.end(), gradient.end() - 256));
  const std::vector<float> norm =
      Values("weights.safetensors", "model.layers.1.input_layernorm.weight", &shape);
  EXPECT_EQ(norm, std::vector<float>(256, 1.0f));
  const std::vector<float> down =
      Values("weights.safetensors", "model.layers.0.mlp.down_proj.weight", &shape);
  EXPECT_THAT(shape, ElementsAre(256, 704));
  std::vector<float> first(4);
  SeededUniform(1, "model.layers.0.mlp.down_proj.weight", 1.0 / 704, 0, 4, first.data());
  EXPECT_TRUE(std::equal(first.begin(), first.end(), down.begin()));
}

TEST_F(ExampleTest, EqualBytesOfATextAreEqualRows) {
  const std::string text = folder_ / "text";
  std::ofstream(text) << "abca\xff";
  const auto path = WriteTextExample(text, folder_.path(), 64);
  ASSERT_TRUE(path.ok()) << path.status();
  const auto job = ValidateFile(*path);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->spec.tokens, 5);
  std::vector<int64_t> shape;
  const std::vector<float> x = Values("input.safetensors", "hidden_states", &shape);
  EXPECT_THAT(shape, ElementsAre(1, 5, 64));
  EXPECT_TRUE(std::equal(x.begin(), x.begin() + 64, x.begin() + 3 * 64));
  EXPECT_FALSE(std::equal(x.begin(), x.begin() + 64, x.begin() + 64));
  EXPECT_FALSE(std::equal(x.begin(), x.begin() + 64, x.begin() + 4 * 64));
}

TEST_F(ExampleTest, ATextNeedsBytesAndHeadsOf64) {
  const std::string text = folder_ / "text";
  std::ofstream(text).close();
  EXPECT_EQ(WriteTextExample(text, folder_.path(), 64).status().code(), absl::StatusCode::kInvalidArgument);
  std::ofstream(text) << "a";
  EXPECT_EQ(WriteTextExample(text, folder_.path(), 100).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteTextExample(folder_ / "none", folder_.path(), 64).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ExampleTest, WhatIsThereIsReplacedOnlyWhereAsked) {
  const std::string text = folder_ / "text", job = folder_ / "job.yaml";
  std::ofstream(text) << "a";
  std::ofstream(job) << "name: mine";
  for (const absl::Status& status :
       {WriteTextExample(text, folder_.path(), 64).status(), WriteExample(folder_.path()).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
    EXPECT_THAT(std::string(status.message()), HasSubstr("job.yaml exists; --overwrite"));
  }
  std::string kept;
  std::getline(std::ifstream(job), kept);
  EXPECT_EQ(kept, "name: mine");
  EXPECT_FALSE(std::ifstream(folder_ / "input.safetensors").good());
  EXPECT_TRUE(WriteTextExample(text, folder_.path(), 64, true).ok());
  EXPECT_TRUE(ValidateFile(job).ok());
  EXPECT_TRUE(WriteExample(folder_.path(), true).ok());
  EXPECT_TRUE(ValidateFile(job).ok());
}

// --- the files in examples/ ---

TEST_F(ExampleTest, EveryExampleFileIsValid) {
  const char* source = getenv("SEQPAR_SOURCE_DIR");
  ASSERT_NE(source, nullptr);
  // The quickstart's input is made from a text.
  const std::string text = folder_ / "text";
  std::ofstream(text) << "some text";
  ASSERT_TRUE(WriteTextExample(text, folder_.path(), 256).ok());
  int jobs = 0, clusters = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(source) + "/examples")) {
    const std::string name = entry.path().filename().string();
    SCOPED_TRACE(name);
    const auto content = ReadText(entry.path().string());
    ASSERT_TRUE(content.ok());
    if (name.rfind("job-", 0) == 0) {
      ++jobs;
      const auto job = Validate(*content);
      EXPECT_TRUE(job.ok()) << job.status();
    } else if (name.rfind("cluster-", 0) == 0) {
      ++clusters;
      const auto proto = ParseCluster(*content);
      ASSERT_TRUE(proto.ok()) << proto.status();
      const auto cluster = ClusterFromProto(*proto);
      EXPECT_TRUE(cluster.ok()) << cluster.status();
    } else if (name != "tenants") {  // which tests/coordinator/admission reads
      ADD_FAILURE() << "neither a job nor a cluster";
    }
  }
  EXPECT_GE(jobs, 8);
  EXPECT_GE(clusters, 4);
}

// Every example job has a plan on every example cluster that is large enough for it, chosen among several.
TEST_F(ExampleTest, EveryExampleJobHasAPlanOnTheCpuSlots) {
  const std::string examples = std::string(getenv("SEQPAR_SOURCE_DIR")) + "/examples/";
  std::ofstream(folder_ / "text") << std::string(35149, 'x');
  ASSERT_TRUE(WriteTextExample(folder_ / "text", folder_.path(), 256).ok());
  const auto plan = [&](const std::string& job, const std::string& cluster) {
    const auto spec = ValidateFile(examples + job);
    if (!spec.ok()) return absl::StatusOr<PlannedJob>(spec.status());
    return PlanJob(spec->spec, *ClusterFromProto(*ParseCluster(*ReadText(examples + cluster))), Calibration(),
                   PlanOptions());
  };
  for (const char* job : {"job-quickstart.yaml", "job-megatron-sp.yaml", "job-ulysses.yaml", "job-ring.yaml",
                          "job-double-ring.yaml", "job-gather.yaml", "job-hybrid.yaml"}) {
    const auto planned = plan(job, "cluster-4-cpu-slots.yaml");
    ASSERT_TRUE(planned.ok()) << job << ": " << planned.status();
    EXPECT_EQ(planned->plan.ranks.size(), 4u) << job;
  }
  const auto large = plan("job-llama-8b-1m.yaml", "cluster-16x8-h200.yaml");
  ASSERT_TRUE(large.ok()) << large.status();
  EXPECT_GE(large->plan.ranks.size(), 8u);
  EXPECT_GT(large->explanation.considered, 10);
}

}  // namespace
}  // namespace seqpar
