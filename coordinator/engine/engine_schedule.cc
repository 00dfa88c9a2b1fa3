// The engine's side of the scheduler: what a pass looks at, and what becomes of its decisions.
#include <algorithm>
#include <set>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/base/failpoints.h"
#include "common/base/log.h"
#include "coordinator/engine/engine.h"

namespace seqpar {
namespace {

// The cluster where the devices of `plan` are free.
ClusterSnapshot WithFree(const Plan& plan, ClusterSnapshot cluster) {
  for (NodeSnapshot& node : cluster.nodes) {
    for (const RankPlan& rank : plan.ranks) {
      if (rank.node == node.name && rank.device < static_cast<int>(node.free.size())) {
        node.free[rank.device] = true;
      }
    }
  }
  return cluster;
}

}  // namespace

// What a pass looked at beside its queue.
struct Engine::PassView {
  std::string nodes;                           // KnownNodes
  std::map<std::string, TenantShare> tenants;  // of the jobs of the queue
  bool more = false;                           // jobs waited behind those of the pass
};

void Engine::Schedule() {
  schedule_ = false;
  const int64_t now_us = clock_->BootMicros();
  PassView view;
  view.nodes = registry_.KnownNodes();
  queue_.SetNodes(view.nodes);
  // Shared with the task, not copied: a queue and a cluster are large.
  const auto queue = std::make_shared<std::vector<QueuedJob>>();
  for (const Turn& turn : queue_.turns()) {
    const JobRecord& record = live_.at(turn.job);
    if (record.not_before_us > now_us) continue;
    view.more = queue->size() == kPassJobs;
    if (view.more) break;
    view.tenants.emplace(turn.tenant, TenantShare{config_.tenants.Of(turn.tenant), tenants_.Of(turn.tenant)});
    queue->push_back({record.id, record.tenant, record.sequence, record.fits || record.attempt > 0,
                      record.spec, record.avoided});
  }
  if (queue->empty()) return;
  scheduling_ = true;
  // Planning takes its time: not in this thread, which answers heartbeats.
  Later([this, queue, cluster = registry_.Snapshot(), calibration = calibration_, view] {
    const bool runs = work_->Run([this, queue, cluster, calibration, view] {
      if (!hold_->Wait(JobPhase::kPlan, queue->front().id).ok()) return;
      PassFailpoint("coordinator.plan", {queue->front().id});
      std::vector<Decision> decisions = seqpar::Schedule(
          *queue, *cluster,
          [&](const JobSpec& job, const ClusterSnapshot& snapshot, const PlanOptions& options) {
            return plan_(job, snapshot, calibration, options);
          },
          view.tenants);
      PassFailpoint("coordinator.plan.decided", {queue->front().id});
      Post([this, decisions = std::move(decisions), view] { ApplyDecisions(decisions, view); });
    });
    if (!runs) scheduling_ = false;
  });
}

void Engine::SetAside(const JobRecord& record, const PassView& view) {
  if (view.nodes == queue_.nodes()) queue_.SetAside(TurnOf(record));  // else others have come meanwhile
}

// A tenant of which the pass held back none may have more: those of it that were held back before are looked
// at.
void Engine::ReleaseOthers(const std::set<std::string>& held_back, const PassView& view) {
  for (const auto& [tenant, share] : view.tenants) {
    if (held_back.count(tenant) == 0 && queue_.Release(tenant)) schedule_ = true;
  }
}

void Engine::ApplyDecisions(const std::vector<Decision>& decisions, const PassView& view) {
  scheduling_ = false;
  // Only passes give a tenant more: where it has not what it had, it has less, and the pass said wait in
  // vain.
  std::set<std::string> had_less;
  for (const auto& [tenant, share] : view.tenants) {
    if (tenants_.Of(tenant).running_jobs < share.use.running_jobs) had_less.insert(tenant);
  }
  bool held_up = false;
  std::set<std::string> held_back;  // tenants
  for (const Decision& decision : decisions) {
    const auto found = live_.find(decision.id);
    if (found == live_.end() || found->second.stage != Stage::kQueued) continue;
    if (const auto* wait = std::get_if<Decision::Wait>(&decision.what)) {
      const JobRecord& record = found->second;
      if (wait->for_nodes) SetAside(record, view);
      if (wait->for_tenant) held_back.insert(record.tenant);
      if (wait->for_tenant && had_less.count(record.tenant) == 0) queue_.Hold(TurnOf(record));
      held_up = held_up || !(wait->for_nodes || wait->for_tenant);
      Apply(decision.id, event::Waits{wait->reason});
    } else if (const auto* refuse = std::get_if<Decision::Refuse>(&decision.what)) {
      // Not on the word of the first nodes of a cluster that is still coming up.
      if (clock_->BootMicros() < settled_us_) {
        SetAside(found->second, view);  // planned again when other nodes are ready, or it has settled
        Apply(decision.id,
              event::Waits{absl::StrCat("waits to see which nodes come: ", refuse->status.message())});
      } else {
        Apply(decision.id, event::Refused{refuse->status});
      }
    } else {
      Place(decision.id, std::get<Decision::Place>(decision.what).plan);
    }
  }
  ReleaseOthers(held_back, view);
  // Nobody of this pass waits for devices to become free: those behind it may have some.
  if (view.more && !held_up) schedule_ = true;
}

void Engine::Do(JobRecord* record, const action::PlanWithout& a) {
  // Whoever comes before it in the queue would get its devices.
  if (!queue_.turns().empty() && *queue_.turns().begin() < TurnOf(*record)) return;
  std::set<std::string> avoided = record->avoided;
  avoided.insert(record->ranks[a.rank].Where());
  int64_t devices = config_.tenants.Of(record->tenant).devices;
  if (devices != TenantLimits::kNone) {
    const int64_t others = tenants_.Of(record->tenant).devices - static_cast<int64_t>(record->ranks.size());
    devices = std::max<int64_t>(1, devices - others);
  }
  WorkLater(
      record->id,
      [this, job = record->id, spec = WithDevices(record->spec, devices), plan = record->plan,
       cluster = registry_.Snapshot(), calibration = calibration_, avoided, attempt = record->attempt,
       rank = a.rank]() -> std::optional<JobEvent> {
        PlanOptions options;
        options.only_free = true;
        const absl::StatusOr<PlannedJob> planned =
            plan_(spec, Without(avoided, WithFree(plan, *cluster)), calibration, options);
        if (!planned.ok()) {
          LogInfo("slow rank is kept: the job cannot run without its device now",
                  {{"job", job}, {"attempt", attempt}, {"rank", rank}, {"why", planned.status().message()}});
          return std::nullopt;
        }
        const Prediction& predicted = planned->plan.prediction;
        return event::PlannedWithout{attempt, rank, predicted.step_seconds,
                                     predicted.bootstrap_seconds + predicted.shard_seconds};
      });
}

// The cluster may have changed while the plan was made: then the next pass plans anew.
void Engine::Place(const std::string& job, const Plan& plan) {
  event::Placed placed;
  placed.plan = plan;
  for (const RankPlan& rank : plan.ranks) {
    const NodeEntry* node = registry_.Find(rank.node);
    if (node == nullptr || !node->Ready() || rank.device >= static_cast<int>(node->devices.size()) ||
        node->busy.count(rank.device) != 0 || node->set_aside.count(rank.device) != 0) {
      schedule_ = true;
      return;
    }
    placed.devices.push_back({node->devices[rank.device].threads, node->hello.incarnation()});
  }
  for (const RankPlan& rank : plan.ranks) registry_.Occupy(rank.node, rank.device, job, rank.rank);
  Apply(job, placed);
}

}  // namespace seqpar
