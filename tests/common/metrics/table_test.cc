// The table of metrics: its form, its words, and the page made of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "common/base/metric_names.h"
#include "common/base/status.h"
#include "common/comm/communicator.h"
#include "common/device/device_models.h"
#include "common/job/job.h"
#include "common/metrics/docs.h"

namespace seqpar {
namespace {

bool EndsIn(const std::string& name, const std::string& suffix) {
  return name.size() >= suffix.size() &&
         name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0;
}

const MetricLabel& LabelOf(Metric metric, const std::string& name) {
  for (const MetricLabel& label : InfoOf(metric).labels) {
    if (name == label.name) return label;
  }
  ADD_FAILURE() << InfoOf(metric).name << " has no label " << name;
  static const MetricLabel none = {};
  return none;
}

TEST(MetricTableTest, NamesFollowTheConventions) {
  const std::regex legal("seqpar_[a-z][a-z0-9_]*[a-z]");
  std::set<std::string> names;
  for (const MetricInfo& metric : AllMetrics()) {
    const std::string name = metric.name;
    EXPECT_TRUE(std::regex_match(name, legal)) << name;
    EXPECT_TRUE(names.insert(name).second) << name << " twice";
    EXPECT_EQ(EndsIn(name, "_total"), metric.type == MetricType::kCounter) << name;
    for (const char* unit : {"_ms", "_us", "_milliseconds", "_minutes", "_kib", "_mib", "_percent"}) {
      EXPECT_FALSE(EndsIn(name, unit) || EndsIn(name, std::string(unit) + "_total")) << name;
    }
    // A histogram's series have suffixes of their own, which no other metric may end in.
    for (const char* suffix : {"_bucket", "_count", "_sum"}) EXPECT_FALSE(EndsIn(name, suffix)) << name;
    EXPECT_EQ(metric.buckets.empty(), metric.type != MetricType::kHistogram) << name;
    EXPECT_TRUE(std::is_sorted(metric.buckets.begin(), metric.buckets.end())) << name;
    EXPECT_NE(metric.help[0], '\0') << name;
  }
}

TEST(MetricTableTest, LabelsAreFreeOfWhatPrometheusAddsAndOfIds) {
  for (const MetricInfo& metric : AllMetrics()) {
    std::set<std::string> names;
    for (const MetricLabel& label : metric.labels) {
      const std::string name = label.name;
      EXPECT_TRUE(names.insert(name).second) << metric.name << " has " << name << " twice";
      EXPECT_TRUE(name != "job" && name != "instance" && name != "le") << metric.name << " has " << name;
      const bool id = name == "job_id" || name == "attempt" || name == "rank";
      EXPECT_TRUE(!id || metric.id == Metric::kRankInfo) << metric.name << " has " << name;
    }
  }
}

TEST(MetricTableTest, LabelValuesAreTheWordsOfTheCode) {
  std::vector<std::string> phases, strategies, operations, live, ended;
  for (int i = 0; i <= static_cast<int>(JobPhase::kReport); ++i) {
    phases.push_back(PhaseName(static_cast<JobPhase>(i)));
  }
  EXPECT_EQ(phases.size(), 9u);
  EXPECT_EQ(LabelOf(Metric::kJobs, "phase").values, phases);
  const std::vector<std::string> of_ranks(phases.begin() + static_cast<int>(JobPhase::kBootstrap),
                                          phases.end());
  EXPECT_EQ(LabelOf(Metric::kDevicePhaseSeconds, "phase").values, of_ranks);
  for (const StrategyKind kind : {StrategyKind::kMegatronSp, StrategyKind::kUlysses, StrategyKind::kRing,
                                  StrategyKind::kGather, StrategyKind::kHybrid}) {
    strategies.push_back(StrategyName(kind));
  }
  EXPECT_EQ(LabelOf(Metric::kRankInfo, "strategy").values, strategies);
  for (int i = 0; i <= static_cast<int>(Operation::kControl); ++i) {
    operations.push_back(OperationName(static_cast<Operation>(i)));
  }
  EXPECT_EQ(LabelOf(Metric::kDeviceSentBytes, "operation").values, operations);
  for (const JobState state : {JobState::kPending, JobState::kRunning, JobState::kSucceeded,
                               JobState::kFailed, JobState::kCancelled}) {
    (HasEnded(state) ? ended : live).push_back(StateName(state));
  }
  EXPECT_EQ(LabelOf(Metric::kJobs, "state").values, live);
  EXPECT_EQ(LabelOf(Metric::kJobsEnded, "state").values, ended);
}

TEST(MetricTableTest, ThePageInTheDocsIsCurrent) {
  const char* root = std::getenv("SEQPAR_ROOT");
  ASSERT_NE(root, nullptr);
  std::ifstream file(std::string(root) + "/docs/metrics.md");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_TRUE(text.str() == MetricsPage())
      << "docs/metrics.md is stale: build/bin/seqpar-metrics-page > docs/metrics.md";
}

TEST(MetricTableTest, KnowsEveryKindOfDevice) {
  EXPECT_EQ(LabelOf(Metric::kDeviceInfo, "kind").values, DeviceKinds());
}

}  // namespace
}  // namespace seqpar
