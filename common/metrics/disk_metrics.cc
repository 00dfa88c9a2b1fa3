#include "common/metrics/disk_metrics.h"

#include <sys/statvfs.h>

#include <map>
#include <thread>
#include <utility>
#include <vector>

namespace seqpar {
namespace {

DiskSpace SpaceOf(const struct statvfs& disk) {
  const auto unit = static_cast<double>(disk.f_frsize);
  return {static_cast<double>(disk.f_bavail) * unit, static_cast<double>(disk.f_blocks) * unit};
}

std::optional<DiskSpace> SpaceAt(const std::string& path) {
  struct statvfs disk = {};
  if (statvfs(path.c_str(), &disk) != 0) return std::nullopt;
  return SpaceOf(disk);
}

// Of the folder that jobs' files are opened beneath, whatever its path leads to by now.
std::optional<DiskSpace> SpaceIn(const UniqueFd& folder) {
  struct statvfs disk = {};
  if (fstatvfs(folder.get(), &disk) != 0) return std::nullopt;
  return SpaceOf(disk);
}

// The watches whose space is shown as one pair of gauges, by the values of their labels.
using Watches = std::map<MetricRegistry::Values, std::shared_ptr<DiskWatch>>;

void ShowAtScrapes(Metric free, Metric size, Watches watches, MetricRegistry* registry) {
  registry->OnScrape([free, size, watches = std::move(watches), registry] {
    std::map<MetricRegistry::Values, double> frees, sizes;
    for (const auto& [values, watch] : watches) {
      const std::optional<DiskSpace> space = watch->Last();
      if (!space.has_value()) continue;
      frees[values] = space->free_bytes;
      sizes[values] = space->size_bytes;
    }
    registry->Replace(free, frees);
    registry->Replace(size, sizes);
  });
}

}  // namespace

DiskWatch::DiskWatch(Ask ask, const Clock* clock, std::chrono::milliseconds period)
    : clock_(clock), state_(std::make_shared<State>()) {
  // Detached: a call that does not come back cannot be waited for.
  std::thread([state = state_, ask = std::move(ask), clock, period] {
    Run(state.get(), ask, *clock, period);
  }).detach();
}

DiskWatch::~DiskWatch() {
  MutexLock lock(state_->mutex);
  state_->stop = true;
  state_->stopped.notify_all();
}

std::optional<DiskSpace> DiskWatch::Last() const {
  MutexLock lock(state_->mutex);
  if (clock_->BootMicros() - state_->answered_us > kSilentUs) return std::nullopt;
  return state_->last;
}

void DiskWatch::Run(State* state, const Ask& ask, const Clock& clock, std::chrono::milliseconds period) {
  while (true) {
    const std::optional<DiskSpace> space = ask();
    MutexLock lock(state->mutex);
    if (state->stop) return;  // and so is, perhaps, the clock
    state->last = space;
    state->answered_us = clock.BootMicros();
    const auto stop = [state]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(state->mutex) { return state->stop; };
    if (state->stopped.wait_for(state->mutex, period, stop)) return;
  }
}

void AddDiskMetrics(const std::string& state_dir, const DataRoots& roots, const Clock* clock,
                    MetricRegistry* registry) {
  const auto at_state_dir = [state_dir] { return SpaceAt(state_dir); };
  ShowAtScrapes(Metric::kStateDirFree, Metric::kStateDirSize,
                {{{}, std::make_shared<DiskWatch>(at_state_dir, clock)}}, registry);
  Watches watches;
  for (const DataRoots::Root& root : roots.roots()) {
    const auto in_folder = [folder = root.folder] { return SpaceIn(*folder); };
    watches[{root.name}] = std::make_shared<DiskWatch>(in_folder, clock);
  }
  ShowAtScrapes(Metric::kDataRootFree, Metric::kDataRootSize, std::move(watches), registry);
}

}  // namespace seqpar
