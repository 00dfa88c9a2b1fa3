#include "coordinator/scheduler/scheduler.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "coordinator/planner/device_filter.h"

namespace seqpar {
namespace {

void TakeDevices(const Plan& plan, ClusterSnapshot* cluster) {
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

std::string Devices(int64_t count) { return absl::StrCat(count, count == 1 ? " device" : " devices"); }

// What the pass has left of each tenant's share.
class Shares {
 public:
  explicit Shares(std::map<std::string, TenantShare> tenants) : tenants_(std::move(tenants)) {}

  // Devices that the tenant may hold at once, and those of them that it does not hold.
  int64_t All(const std::string& tenant) { return tenants_[tenant].limits.devices; }
  int64_t Left(const std::string& tenant) {
    const TenantShare& share = tenants_[tenant];
    return share.limits.devices == TenantLimits::kNone ? TenantLimits::kNone
                                                       : share.limits.devices - share.use.devices;
  }
  // Why the tenant's share has no room for `job` now; "": it may have.
  std::string WhyNot(const QueuedJob& job) {
    const TenantShare& share = tenants_[job.tenant];
    if (const auto before = waiting_.find(job.tenant); before != waiting_.end()) {
      return absl::StrCat("waits behind ", before->second, " of its tenant, which has all that it may have");
    }
    if (share.use.running_jobs >= share.limits.running_jobs) {
      return absl::StrCat("waits for a job of its tenant to end: ", share.limits.running_jobs,
                          " may run at once");
    }
    const int64_t least = LeastDevices(job.spec);
    return Left(job.tenant) < least ? TooFew(job, absl::StrCat("it takes at least ", least)) : "";
  }
  std::string TooFew(const QueuedJob& job, const std::string& why) {
    return absl::StrCat("waits for jobs of its tenant to end: they may hold ", Devices(All(job.tenant)),
                        " at once, and ", why);
  }
  void Place(const QueuedJob& job, size_t devices) {
    TenantUse& use = tenants_[job.tenant].use;
    ++use.running_jobs;
    use.devices += static_cast<int64_t>(devices);
  }
  // Those of its tenant that come now wait behind it.
  void Wait(const QueuedJob& job) { waiting_.emplace(job.tenant, job.id); }

 private:
  std::map<std::string, TenantShare> tenants_;
  std::map<std::string, std::string> waiting_;  // by tenant: its first job that waits for its share
};

// One pass: each job of the queue in its turn.
class Pass {
 public:
  Pass(ClusterSnapshot cluster, const PlanFunction& plan, std::map<std::string, TenantShare> tenants)
      : cluster_(std::move(cluster)),
        plan_(plan),
        shares_(std::move(tenants)),
        attached_(CountDevices(cluster_, false)) {}

  // `job` outlives the pass.
  void Consider(const QueuedJob& job) {
    if (attached_ == 0) return Wait(job, "waits for a node: none is ready", true);
    if (std::string why = shares_.WhyNot(job); !why.empty()) return WaitForTenant(job, std::move(why));
    const int64_t left = shares_.Left(job.tenant);
    const int free = Free();
    if (free > 0) {
      absl::StatusOr<PlannedJob> now = PlanNow(job, left);
      if (now.ok()) return Place(job, std::move(now->plan));
    }
    if (blocker_ != nullptr) {
      return Wait(job, absl::StrCat("waits behind ", CallFor(job.tenant, blocker_->id, blocker_->tenant),
                                    ", which waits for devices to become free"));
    }
    absl::StatusOr<PlannedJob> whole = PlanOn(job, left, false);
    if (!whole.ok() && left < shares_.All(job.tenant)) {
      whole = PlanOn(job, shares_.All(job.tenant), false);
      if (whole.ok()) return WaitForTenant(job, shares_.TooFew(job, "it does not fit on those left"));
    }
    if (!whole.ok()) return WaitOrRefuse(job, whole.status());
    blocker_ = &job;
    Reserve(job.spec, &cluster_);
    free_.reset();
    Wait(job, absl::StrCat("waits for ", Devices(static_cast<int64_t>(whole->plan.ranks.size())),
                           " to become free: ", free, " of ", attached_, " are"));
  }

  std::vector<Decision> Take() { return std::move(decisions_); }

 private:
  absl::StatusOr<PlannedJob> PlanNow(const QueuedJob& job, int64_t devices) const {
    if (!job.avoided.empty()) {
      PlanOptions options;
      options.only_free = true;
      absl::StatusOr<PlannedJob> planned =
          plan_(WithDevices(job.spec, devices), Without(job.avoided, cluster_), options);
      if (planned.ok()) return planned;
    }
    return PlanOn(job, devices, true);
  }
  absl::StatusOr<PlannedJob> PlanOn(const QueuedJob& job, int64_t devices, bool only_free) const {
    PlanOptions options;
    options.only_free = only_free;
    return plan_(WithDevices(job.spec, devices), cluster_, options);
  }
  // Counted again only where some were taken: there are thousands.
  int Free() {
    if (!free_) free_ = CountDevices(cluster_, true);
    return *free_;
  }
  void Place(const QueuedJob& job, Plan plan) {
    shares_.Place(job, plan.ranks.size());
    TakeDevices(plan, &cluster_);
    free_.reset();
    decisions_.push_back({job.id, Decision::Place{std::move(plan)}});
  }
  void Wait(const QueuedJob& job, std::string reason, bool for_nodes = false) {
    decisions_.push_back({job.id, Decision::Wait{std::move(reason), for_nodes}});
  }
  void WaitForTenant(const QueuedJob& job, std::string reason) {
    shares_.Wait(job);
    decisions_.push_back({job.id, Decision::Wait{std::move(reason), false, true}});
  }
  // The nodes that are ready cannot run it.
  void WaitOrRefuse(const QueuedJob& job, const absl::Status& why) {
    if (absl::IsUnavailable(why)) {
      Wait(job, std::string(why.message()), true);
    } else if (job.fitted) {
      Wait(job, absl::StrCat("waits for other nodes: ", why.message()), true);
    } else {
      decisions_.push_back({job.id, Decision::Refuse{why}});
    }
  }

  ClusterSnapshot cluster_;
  const PlanFunction& plan_;
  Shares shares_;
  const int attached_;
  std::optional<int> free_;
  const QueuedJob* blocker_ = nullptr;  // the first that waits for devices to become free
  std::vector<Decision> decisions_;
};

}  // namespace

ClusterSnapshot Without(const std::set<std::string>& devices, ClusterSnapshot cluster) {
  for (NodeSnapshot& node : cluster.nodes) {
    for (size_t d = 0; d < node.devices.size(); ++d) {
      if (devices.count(absl::StrCat(node.name, "/", d)) == 0) continue;
      node.set_aside.emplace(static_cast<int>(d), "its ranks were slow");
    }
  }
  return cluster;
}

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
                               const PlanFunction& plan, std::map<std::string, TenantShare> tenants) {
  std::stable_sort(queue.begin(), queue.end(), [](const QueuedJob& a, const QueuedJob& b) {
    if (a.spec.priority != b.spec.priority) return a.spec.priority > b.spec.priority;
    return a.sequence < b.sequence;
  });
  Pass pass(std::move(cluster), plan, std::move(tenants));
  for (const QueuedJob& job : queue) pass.Consider(job);
  return pass.Take();
}

}  // namespace seqpar
