#include "common/base/cgroup.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

// A folder as /sys/fs/cgroup, with /proc/self/cgroup as "self" in it.
class CgroupTest : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text << "\n";
  }
  int64_t Memory() const { return CgroupMemoryLimit(folder_ / "self", folder_.path()); }
  double Cores() const { return CgroupCores(folder_ / "self", folder_.path()); }

  const TempFolder folder_;
};

TEST_F(CgroupTest, TheSmallestMemoryLimitAlongTheWayCounts) {
  EXPECT_EQ(Memory(), INT64_MAX) << "no cgroups at all";
  Write("self", "12:cpu,cpuacct:/x\n0::/system.slice/seqpar.service");
  Write("system.slice/seqpar.service/memory.max", "max");
  EXPECT_EQ(Memory(), INT64_MAX);
  Write("system.slice/seqpar.service/memory.max", "5000");
  EXPECT_EQ(Memory(), 5000);
  Write("system.slice/memory.max", "4000");
  EXPECT_EQ(Memory(), 4000);
  Write("memory.max", "3000");  // a container's own
  EXPECT_EQ(Memory(), 3000);
  Write("self", "7:hugetlb,memory:/docker/1");
  Write("memory/docker/1/memory.limit_in_bytes", "2000");
  EXPECT_EQ(Memory(), 2000);
  Write("self", "7:memory:/../elsewhere");  // outside of what is mounted: nothing to read there
  EXPECT_EQ(Memory(), 3000);
}

TEST_F(CgroupTest, TheSmallestQuotaAlongTheWayCounts) {
  EXPECT_EQ(Cores(), INFINITY) << "no cgroups at all";
  Write("self", "4:memory:/x\n0::/kubepods/pod1/worker");
  Write("kubepods/pod1/worker/cpu.max", "max 100000");
  EXPECT_EQ(Cores(), INFINITY);
  Write("kubepods/pod1/worker/cpu.max", "350000 100000");
  EXPECT_EQ(Cores(), 3.5);
  Write("kubepods/cpu.max", "300000 200000");
  EXPECT_EQ(Cores(), 1.5);
  Write("cpu.max", "50000 100000");  // a container's own
  EXPECT_EQ(Cores(), 0.5);
}

TEST_F(CgroupTest, VersionOneHasQuotaAndPeriodInFilesOfTheirOwn) {
  Write("self", "2:cpu,cpuacct:/docker/1\n3:cpuset:/docker/1");
  Write("cpu/docker/1/cpu.cfs_quota_us", "-1");
  Write("cpu/docker/1/cpu.cfs_period_us", "100000");
  EXPECT_EQ(Cores(), INFINITY);
  Write("cpu/docker/1/cpu.cfs_quota_us", "200000");
  EXPECT_EQ(Cores(), 2);
  Write("cpuset/docker/1/cpu.cfs_quota_us", "1000");  // not the controller's
  EXPECT_EQ(Cores(), 2);
  Write("cpu/cpu.cfs_quota_us", "100000");
  EXPECT_EQ(Cores(), 2) << "a quota without its period says nothing";
  Write("cpu/cpu.cfs_period_us", "100000");
  EXPECT_EQ(Cores(), 1);
}

TEST(UsableTest, ProcessorsAreThoseThatTheThreadMayRunOn) {
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  EXPECT_GE(UsableCores(), 1);
  EXPECT_LE(UsableCores(), CPU_COUNT(&before));
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(UsableCores(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
  EXPECT_GT(UsableMemoryBytes(), 0);
}

}  // namespace
}  // namespace seqpar
