#include "coordinator/scheduler/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "coordinator/planner/device_filter.h"

namespace seqpar {
namespace {

void Take(const Plan& plan, ClusterSnapshot* cluster) {
  for (const RankPlan& rank : plan.ranks) {
    for (NodeSnapshot& node : cluster->nodes) {
      if (node.name == rank.node && rank.device < static_cast<int>(node.free.size()))
        node.free[rank.device] = false;
    }
  }
}

// What a job that waits for devices to become free may get is not for those behind it.
void Reserve(const JobSpec& job, ClusterSnapshot* cluster) {
  const DeviceFilter filter = FilterOf(job, false);
  for (NodeSnapshot& node : cluster->nodes) {
    for (size_t d = 0; d < node.free.size(); ++d) {
      if (filter.Admits(node, static_cast<int>(d))) node.free[d] = false;
    }
  }
}

std::string Devices(int count) { return absl::StrCat(count, count == 1 ? " device" : " devices"); }

}  // namespace

int CountDevices(const ClusterSnapshot& cluster, bool free_only) {
  int count = 0;
  for (const NodeSnapshot& node : cluster.nodes) {
    for (size_t i = 0; i < node.devices.size(); ++i) {
      if (node.TakesRanks(static_cast<int>(i))) count += !free_only || node.free[i];
    }
  }
  return count;
}

std::vector<Decision> Schedule(std::vector<QueuedJob> queue, ClusterSnapshot cluster,
                               const PlanFunction& plan) {
  std::stable_sort(queue.begin(), queue.end(), [](const QueuedJob& a, const QueuedJob& b) {
    if (a.spec.priority != b.spec.priority) return a.spec.priority > b.spec.priority;
    return a.sequence < b.sequence;
  });
  std::vector<Decision> decisions;
  std::string blocker;
  const auto wait = [&](const QueuedJob& job, std::string reason, bool for_nodes = false) {
    decisions.push_back({job.id, Decision::Wait{std::move(reason), for_nodes}});
  };
  const int attached = CountDevices(cluster, false);
  for (const QueuedJob& job : queue) {
    if (attached == 0) {
      wait(job, "waits for a node: none is ready", true);
      continue;
    }
    const int free = CountDevices(cluster, true);
    PlanOptions options;
    if (free > 0) {
      options.only_free = true;
      absl::StatusOr<PlannedJob> now = plan(job.spec, cluster, options);
      if (now.ok()) {
        Take(now->plan, &cluster);
        decisions.push_back({job.id, Decision::Place{std::move(now->plan)}});
        continue;
      }
    }
    if (!blocker.empty()) {
      wait(job, absl::StrCat("waits behind ", blocker, ", which waits for devices to become free"));
      continue;
    }
    options.only_free = false;
    const absl::StatusOr<PlannedJob> whole = plan(job.spec, cluster, options);
    if (whole.ok()) {
      blocker = job.id;
      Reserve(job.spec, &cluster);
      wait(job, absl::StrCat("waits for ", Devices(static_cast<int>(whole->plan.ranks.size())),
                             " to become free: ", free, " of ", attached, " are"));
      continue;
    }
    const std::string why(whole.status().message());
    if (absl::IsUnavailable(whole.status())) {
      wait(job, why, true);
    } else if (job.fitted) {
      wait(job, absl::StrCat("waits for other nodes: ", why), true);
    } else {
      decisions.push_back({job.id, Decision::Refuse{whole.status()}});
    }
  }
  return decisions;
}

}  // namespace seqpar
