// Every example job on every example cluster: the expected choice, and why.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "client/cli/job_file.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/planner/planner.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

struct Example {
  const char* job;
  const char* cluster;
  // "MESH core layout recompute", or the code of a refusal.
  const char* choice;
  const char* reason;  // a part of it
};

void PrintTo(const Example& example, std::ostream* out) { *out << example.job << " on " << example.cluster; }

std::string ReadExample(const std::string& name) {
  const char* source = std::getenv("SEQPAR_SOURCE_DIR");
  return ReadText(std::string(source == nullptr ? "." : source) + "/examples/" + name + ".yaml").value();
}

class ExampleTest : public ::testing::TestWithParam<Example> {};

TEST_P(ExampleTest, IsPlannedAsExpected) {
  const Example& example = GetParam();
  JobSpec job =
      JobFromProto(ParseJob(ReadExample(std::string("job-") + example.job), {"input.seed=1"}).value());
  if (job.tokens == 0) job.tokens = 35149;  // the quickstart takes them from its input
  const auto cluster =
      ClusterFromProto(ParseCluster(ReadExample(std::string("cluster-") + example.cluster)).value());
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const auto planned = PlanJob(job, *cluster, Calibration(), {});
  if (!planned.ok()) {
    EXPECT_EQ(absl::StatusCodeToString(planned.status().code()), example.choice) << planned.status();
    EXPECT_THAT(std::string(planned.status().message()), HasSubstr(example.reason));
    return;
  }
  const Plan& plan = planned->plan;
  EXPECT_EQ(plan.mesh.ToString() + " " + CoreName(plan.core) + " " + LayoutName(plan.layout) + " " +
                RecomputeName(plan.recompute),
            example.choice)
      << plan.reason;
  EXPECT_THAT(plan.reason, HasSubstr(example.reason));
}

constexpr char kSlots[] = "4-cpu-slots", kShared[] = "4-slots-2-cores", kH100[] = "8xh100",
               kH200[] = "16x8-h200";

const std::vector<Example>& Examples() {
  static const auto& examples = *new std::vector<Example>{
      Example{"quickstart", kSlots, "U4 ring contiguous none", "ties with the fastest, ring R4"},
      Example{"quickstart", kShared, "U4 ring contiguous none", "ulysses U4"},
      Example{"quickstart", kH100, "R4 ring zigzag none", "ring R4 zigzag: "},
      Example{"quickstart", kH200, "R4 ring zigzag none", "ring R4 zigzag: "},
      Example{"megatron-sp", kSlots, "T4 ring contiguous none", "the only mesh that the job allows"},
      Example{"megatron-sp", kShared, "T4 ring contiguous none", "the only mesh that the job allows"},
      Example{"megatron-sp", kH100, "T4 ring contiguous none", "the only mesh that the job allows"},
      Example{"megatron-sp", kH200, "T4 ring contiguous none", "the only mesh that the job allows"},
      Example{"ulysses", kSlots, "U4 ring contiguous none", "the only mesh that the job allows"},
      Example{"ulysses", kShared, "U4 ring contiguous none", "the only mesh that the job allows"},
      Example{"ulysses", kH100, "U4 ring contiguous none", "the only mesh that the job allows"},
      Example{"ulysses", kH200, "U4 ring contiguous none", "the only mesh that the job allows"},
      Example{"ring", kSlots, "R4 ring zigzag none", "the only mesh that the job allows"},
      Example{"ring", kShared, "R4 ring zigzag none", "the only mesh that the job allows"},
      Example{"ring", kH100, "R4 ring zigzag none", "the only mesh that the job allows"},
      Example{"ring", kH200, "R4 ring zigzag none", "the only mesh that the job allows"},
      Example{"gather", kSlots, "R4 gather striped none", "gather R4 striped: predicted fastest"},
      Example{"gather", kShared, "R4 gather contiguous none", "gather R4 contiguous: predicted fastest"},
      Example{"gather", kH100, "R4 gather contiguous none", "gather R4 contiguous: predicted fastest"},
      Example{"gather", kH200, "R4 gather contiguous none", "gather R4 contiguous: predicted fastest"},
      Example{"hybrid", kSlots, "U2 x R2 ring zigzag none", "the only mesh that the job allows"},
      Example{"hybrid", kShared, "U2 x R2 ring zigzag none", "the only mesh that the job allows"},
      Example{"hybrid", kH100, "U2 x R2 ring zigzag none", "the only mesh that the job allows"},
      Example{"hybrid", kH200, "U2 x R2 ring zigzag none", "the only mesh that the job allows"},
      Example{"double-ring", kSlots, "R4 (inner 2) ring striped none", "the only mesh that the job allows"},
      Example{"double-ring", kShared, "R4 (inner 2) ring striped none", "the only mesh that the job allows"},
      Example{"double-ring", kH100, "R4 (inner 2) ring striped none", "the only mesh that the job allows"},
      Example{"double-ring", kH200, "R4 (inner 2) ring striped none", "the only mesh that the job allows"},
      Example{"llama-8b-1m", kSlots, "UNAVAILABLE", "waits for 8 devices, 4 attached"},
      Example{"llama-8b-1m", kShared, "UNAVAILABLE", "waits for 8 devices, 4 attached"},
      Example{"llama-8b-1m", kH100, "U8 ring contiguous layer", "by running each layer again in backward"},
      Example{"llama-8b-1m", kH200, "T2 x R64 ring zigzag none", "ties with the fastest, hybrid T4 x R32"}};
  return examples;
}

INSTANTIATE_TEST_SUITE_P(Files, ExampleTest, ::testing::ValuesIn(Examples()));

// A new example file needs its lines above.
TEST(Examples, EveryJobIsInTheTableOnEveryCluster) {
  std::set<std::pair<std::string, std::string>> wanted, listed;
  std::vector<std::string> jobs, clusters;
  const char* source = std::getenv("SEQPAR_SOURCE_DIR");
  for (const auto& file :
       std::filesystem::directory_iterator(std::string(source == nullptr ? "." : source) + "/examples")) {
    const std::string name = file.path().stem().string();
    if (name.rfind("job-", 0) == 0) jobs.push_back(name.substr(4));
    if (name.rfind("cluster-", 0) == 0) clusters.push_back(name.substr(8));
  }
  for (const std::string& job : jobs) {
    for (const std::string& cluster : clusters) wanted.insert({job, cluster});
  }
  for (const Example& example : Examples()) listed.insert({example.job, example.cluster});
  EXPECT_GE(wanted.size(), 32u);
  EXPECT_EQ(listed, wanted);
}

}  // namespace
}  // namespace seqpar
