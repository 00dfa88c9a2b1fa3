#include "common/metrics/process_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "common/base/clock.h"
#include "common/base/version.h"

namespace seqpar {
namespace {

double CpuSeconds() {
  struct rusage use = {};
  if (getrusage(RUSAGE_SELF, &use) != 0) return 0;
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

double ResidentBytes() {
  long pages = 0, resident = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  const bool read = std::fscanf(file, "%ld %ld", &pages, &resident) == 2;
  std::fclose(file);
  return read ? static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) : 0;
}

double OpenFds() {
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  int entries = 0;
  while (readdir(folder) != nullptr) ++entries;
  closedir(folder);
  return std::max(0, entries - 3);  // ".", "..", and the folder's own
}

}  // namespace

void AddProcessMetrics(const std::string& process, MetricRegistry* registry) {
  registry->Gauge(Metric::kBuildInfo, {process, kVersion}).Set(1);
  registry->Gauge(Metric::kStartTime).Set(static_cast<double>(Clock::System().WallMicros()) / 1e6);
  prometheus::Counter& cpu = registry->Counter(Metric::kProcessCpu);
  prometheus::Gauge& memory = registry->Gauge(Metric::kProcessMemory);
  prometheus::Gauge& fds = registry->Gauge(Metric::kProcessOpenFds);
  registry->OnScrape([&cpu, &memory, &fds] {
    cpu.Increment(std::max(0.0, CpuSeconds() - cpu.Value()));
    memory.Set(ResidentBytes());
    fds.Set(OpenFds());
  });
}

}  // namespace seqpar
