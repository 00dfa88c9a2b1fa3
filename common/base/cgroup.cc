#include "common/base/cgroup.h"

#include <sched.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace seqpar {
namespace {

constexpr char kMembership[] = "/proc/self/cgroup";
constexpr char kMount[] = "/sys/fs/cgroup";
constexpr double kNoLimit = std::numeric_limits<double>::infinity();

// The number that the file begins with; kNoLimit where there is none ("max", -1, or no such file).
double ReadLimit(const std::string& file) {
  std::ifstream in(file);
  double value = 0;
  return in >> value && value > 0 ? value : kNoLimit;
}

double MemoryLimit2(const std::string& group) { return ReadLimit(group + "/memory.max"); }
double MemoryLimit1(const std::string& group) { return ReadLimit(group + "/memory.limit_in_bytes"); }

// "QUOTA PERIOD", microseconds.
double Cores2(const std::string& group) {
  std::ifstream in(group + "/cpu.max");
  double quota = 0, period = 0;
  return in >> quota >> period && quota > 0 && period > 0 ? quota / period : kNoLimit;
}

double Cores1(const std::string& group) {
  const double quota = ReadLimit(group + "/cpu.cfs_quota_us"),
               period = ReadLimit(group + "/cpu.cfs_period_us");
  return period == kNoLimit ? kNoLimit : quota / period;
}

using Limit = double (*)(const std::string& group);

// Of the cgroup `path` ("/a/b") and of all above it: each of them counts.
double LimitAlong(const std::string& mount, std::string path, Limit limit) {
  double least = limit(mount);
  while (path.size() > 1) {
    least = std::min(least, limit(mount + path));
    path.resize(path.rfind('/'));
  }
  return least;
}

double LeastLimit(const std::string& membership, const std::string& mount, const std::string& controller,
                  Limit version_1, Limit version_2) {
  const std::string mount_1 = absl::StrCat(mount, "/", controller);
  // A container sees its own cgroup as the root, whatever its membership is called.
  double least = std::min(version_2(mount), version_1(mount_1));
  std::ifstream in(membership);
  for (std::string line; std::getline(in, line);) {  // "0::/a/b" (version 2), "7:cpu,memory:/a/b" (version 1)
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3 || parts[2].empty() || parts[2][0] != '/') continue;
    if (parts[1].empty()) {
      least = std::min(least, LimitAlong(mount, parts[2], version_2));
    } else if (absl::StrContains(absl::StrCat(",", parts[1], ","), absl::StrCat(",", controller, ","))) {
      least = std::min(least, LimitAlong(mount_1, parts[2], version_1));
    }
  }
  return least;
}

int AllowedProcessors() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) return CPU_COUNT(&allowed);
  return static_cast<int>(std::thread::hardware_concurrency());  // more than 1,024 of them
}

}  // namespace

int64_t CgroupMemoryLimit(const std::string& membership, const std::string& mount) {
  const double least = LeastLimit(membership, mount, "memory", MemoryLimit1, MemoryLimit2);
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  return least < static_cast<double>(kMost) ? static_cast<int64_t>(least) : kMost;
}

double CgroupCores(const std::string& membership, const std::string& mount) {
  return LeastLimit(membership, mount, "cpu", Cores1, Cores2);
}

int64_t UsableMemoryBytes() {
  struct sysinfo info = {};
  const int64_t bytes =
      sysinfo(&info) == 0 ? static_cast<int64_t>(info.totalram) * info.mem_unit : int64_t{1} << 30;
  return std::min(bytes, CgroupMemoryLimit(kMembership, kMount));
}

int UsableCores() {
  const double quota = CgroupCores(kMembership, kMount);
  const int processors = std::max(1, AllowedProcessors());
  return quota < processors ? std::max(1, static_cast<int>(quota)) : processors;
}

}  // namespace seqpar
