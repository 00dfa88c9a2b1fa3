#include "coordinator/admission/tenant_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error_info.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/job/tensors.h"
#include "tests/coordinator/job_machine/samples.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;
constexpr int64_t kNone = TenantLimits::kNone;

TEST(TenantLimits, AreReadFromLines) {
  const auto policy = ParseTenants(
      "# shares\n\ntenant=search queued_jobs=10 running_jobs=2 devices=8 output_bytes=2Ki\n"
      "devices=4 tenant=*\n");
  ASSERT_TRUE(policy.ok()) << policy.status();
  const TenantLimits& search = policy->Of("search");
  EXPECT_EQ(search.queued_jobs, 10);
  EXPECT_EQ(search.running_jobs, 2);
  EXPECT_EQ(search.devices, 8);
  EXPECT_EQ(search.output_bytes, 2048);
  for (const char* other : {"vision", ""}) {
    EXPECT_EQ(policy->Of(other).devices, 4);
    EXPECT_EQ(policy->Of(other).queued_jobs, kNone);
  }
}

TEST(TenantLimits, AreNoneUnlessTheyAreSaid) {
  const auto policy = ParseTenants("tenant=search\n");
  ASSERT_TRUE(policy.ok()) << policy.status();
  for (const char* tenant : {"search", "vision"}) {
    const TenantLimits& limits = policy->Of(tenant);
    EXPECT_EQ(limits.queued_jobs, kNone);
    EXPECT_EQ(limits.running_jobs, kNone);
    EXPECT_EQ(limits.devices, kNone);
    EXPECT_EQ(limits.output_bytes, kNone);
  }
}

TEST(TenantLimits, EveryWrongLineIsNamed) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"queued_jobs=1", "needs tenant="},
      {"tenant=a/b", "tenant has other characters"},
      {"tenant=a queue=1", "has a field queue"},
      {"tenant=a queued_jobs=0", "queued_jobs=0 is no whole number of at least 1 (nearest: 1)"},
      {"tenant=a devices=-1", "devices=-1 is no whole number"},
      {"tenant=a running_jobs=many", "running_jobs=many is no whole number"},
      {"tenant=a output_bytes=1Zi", "output_bytes: "},
      {"tenant=a\ntenant=a", "line 2: is a second line of its tenant"},
      {"tenant=*\ntenant=*", "line 2: is a second line of its tenant"},
      {"tenant=a devices=1 devices=2", "has devices twice"},
  };
  for (const auto& [text, what] : wrong) {
    const absl::Status status = ParseTenants(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  }
}

TEST(TenantLimits, TheExampleIsRead) {
  const char* source = std::getenv("SEQPAR_SOURCE_DIR");
  ASSERT_NE(source, nullptr) << "run by ctest";
  const auto policy = ReadTenants(std::string(source) + "/examples/tenants");
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_GT(policy->Of("search").devices, policy->Of("another").devices);
}

TEST(TenantLimits, AFileThatEverybodyMayWriteIsRefused) {
  const TempFolder folder;
  const std::string path = folder / "tenants";
  EXPECT_THAT(std::string(ReadTenants(path).status().message()), HasSubstr("--tenants " + path));
  std::ofstream(path) << "tenant=a devices=2\n";
  ASSERT_TRUE(ReadTenants(path).ok());
  ASSERT_EQ(chmod(path.c_str(), 0666), 0);
  EXPECT_THAT(std::string(ReadTenants(path).status().message()), HasSubstr("chmod o-w"));
}

struct RoomCase {
  const char* name;
  TenantLimits limits;
  TenantUse use;
  JobDemand demand;
  const char* limit;  // that refuses; "": none
  bool later;         // it may be taken later
};

TEST(TenantLimits, RefuseWhatPassesThem) {
  const std::vector<RoomCase> cases = {
      {"no limits", {}, {1000, 1000, 1000, kNone / 2}, {1000, kNone / 4}, "", false},
      {"one below", {.queued_jobs = 3}, {.queued_jobs = 2}, {}, "", false},
      {"all that may wait", {.queued_jobs = 3}, {.queued_jobs = 3}, {}, "queued_jobs", true},
      {"more, after the limit was lowered", {.queued_jobs = 3}, {.queued_jobs = 9}, {}, "queued_jobs", true},
      {"running jobs do not wait", {.queued_jobs = 3}, {.running_jobs = 9}, {}, "", false},
      {"those that run only keep it waiting",
       {.running_jobs = 1, .devices = 2},
       {0, 1, 2, 0},
       {2, 0},
       "",
       false},
      {"more devices than ever", {.devices = 4}, {}, {5, 0}, "devices", false},
      {"as many as it may", {.devices = 4}, {}, {4, 0}, "", false},
      {"room for the output", {.output_bytes = 10}, {.output_bytes = 4}, {1, 6}, "", false},
      {"none now", {.output_bytes = 10}, {.output_bytes = 5}, {1, 6}, "output_bytes", true},
      {"none ever", {.output_bytes = 10}, {}, {1, 11}, "output_bytes", false},
      {"no output", {.output_bytes = 10}, {.output_bytes = 20}, {1, 0}, "", false},
  };
  for (const RoomCase& c : cases) {
    absl::Status status = CheckDemand("search", c.limits, c.demand);
    if (status.ok()) status = CheckRoom("search", c.limits, c.use, c.demand);
    if (std::string(c.limit).empty()) {
      EXPECT_TRUE(status.ok()) << c.name << ": " << status;
      continue;
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << c.name;
    EXPECT_EQ(ReasonOf(status), reason::kTenantLimit) << c.name;
    EXPECT_EQ(MetadataOf(status)["limit"], c.limit) << c.name;
    EXPECT_EQ(MetadataOf(status)["tenant"], "search") << c.name;
    EXPECT_EQ(RetrySecondsOf(status) > 0, c.later) << c.name;
  }
}

TEST(TenantLimits, SayTheirValueAndWhatIsUsed) {
  const absl::Status status = CheckRoom("search", {.queued_jobs = 3}, {.queued_jobs = 4}, {});
  const std::map<std::string, std::string> expected = {
      {"tenant", "search"}, {"limit", "queued_jobs"}, {"value", "3"}, {"used", "4"}, {"asked", "1"}};
  EXPECT_EQ(MetadataOf(status), expected);
  EXPECT_EQ(status.message(), "tenant search has 4 jobs that wait, of 3 that it may");
  EXPECT_THAT(std::string(CheckRoom("", {.queued_jobs = 3}, {.queued_jobs = 4}, {}).message()),
              HasSubstr("whoever has no tenant"));
}

TEST(TenantLimits, TheDemandOfAJobIsItsFewestDevicesAndItsFile) {
  JobSpec spec = SampleSpec();
  spec.min_workers = 3;
  EXPECT_EQ(DemandOf(spec).devices, 3);
  spec.parallelism.ulysses = 2;
  spec.parallelism.ring = 4;
  EXPECT_EQ(DemandOf(spec).devices, 8) << "its degrees";
  EXPECT_EQ(DemandOf(spec).output_bytes, 0) << "it has no output file";
  spec.output_file = "/out";
  SafetensorsHeader layout;
  BuildOutputHeader(spec, &layout);
  EXPECT_EQ(DemandOf(spec).output_bytes, layout.file_bytes);
  EXPECT_GE(layout.file_bytes, spec.tokens * spec.config.hidden_size * 4);
}

TEST(TenantLimits, AJobIsPlannedOnWhatItMayHave) {
  JobSpec spec = SampleSpec();
  EXPECT_EQ(WithDevices(spec, kNone).max_workers, 0);
  EXPECT_EQ(WithDevices(spec, 4).max_workers, 4);
  spec.max_workers = 2;
  EXPECT_EQ(WithDevices(spec, 4).max_workers, 2);
  EXPECT_EQ(WithDevices(spec, 1).max_workers, 1);
}

}  // namespace
}  // namespace seqpar
