#include "coordinator/scheduler/scheduler.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "coordinator/planner/device_filter.h"

namespace seqpar {
namespace {

// A planner that gives a job exactly min_workers devices, the first ones; more than 100 can never be had.
absl::StatusOr<PlannedJob> FakePlan(const JobSpec& job, const ClusterSnapshot& cluster,
                                    const PlanOptions& options) {
  if (job.min_workers > 100)
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kInfeasible, "too many");
  PlannedJob planned;
  for (const NodeSnapshot& node : cluster.nodes) {
    if (!node.ready) continue;
    for (size_t i = 0; i < node.devices.size(); ++i) {
      if (!FilterOf(job, options.only_free).Admits(node, static_cast<int>(i))) continue;
      if (static_cast<int>(planned.plan.ranks.size()) == job.min_workers) return planned;
      RankPlan rank;
      rank.rank = static_cast<int>(planned.plan.ranks.size());
      rank.node = node.name;
      rank.device = static_cast<int>(i);
      planned.plan.ranks.push_back(rank);
    }
  }
  if (static_cast<int>(planned.plan.ranks.size()) == job.min_workers) return planned;
  return absl::UnavailableError(absl::StrCat("waits for ", job.min_workers, " devices"));
}

ClusterSnapshot Cluster(const std::vector<bool>& free, bool ready = true) {
  ClusterSnapshot cluster;
  cluster.nodes.push_back({"a", std::vector<DeviceSpec>(free.size()), free, ready, {}});
  return cluster;
}

ClusterSnapshot GpusAndSlots(const std::vector<bool>& gpus, const std::vector<bool>& slots) {
  ClusterSnapshot cluster = Cluster(gpus);
  cluster.nodes.push_back({"b", std::vector<DeviceSpec>(slots.size()), slots, true, {}});
  for (DeviceSpec& device : cluster.nodes[0].devices) device.kind = "cuda";
  for (DeviceSpec& device : cluster.nodes[1].devices) device.kind = "cpu";
  return cluster;
}

QueuedJob Job(const std::string& id, int workers, int priority = 0) {
  QueuedJob job;
  job.id = id;
  job.sequence = id[0];
  job.spec.min_workers = workers;
  job.spec.priority = priority;
  return job;
}

// "a: a/0 a/1", "b: waits ...", "c: refused ..." in the order of the decisions.
std::string Show(const std::vector<Decision>& decisions) {
  std::vector<std::string> lines;
  for (const Decision& decision : decisions) {
    std::string line = decision.id + ":";
    if (const auto* place = std::get_if<Decision::Place>(&decision.what)) {
      for (const RankPlan& rank : place->plan.ranks) absl::StrAppend(&line, " ", rank.node, "/", rank.device);
    } else if (const auto* wait = std::get_if<Decision::Wait>(&decision.what)) {
      absl::StrAppend(&line, " ", wait->reason);
    } else {
      absl::StrAppend(&line, " refused, ", std::get<Decision::Refuse>(decision.what).status.message());
    }
    lines.push_back(line);
  }
  return absl::StrJoin(lines, "\n");
}

struct Case {
  const char* name;
  std::vector<QueuedJob> queue;
  ClusterSnapshot cluster;
  const char* expected;
};

QueuedJob JobOf(const std::string& tenant, const std::string& id, int workers) {
  QueuedJob job = Job(id, workers);
  job.tenant = tenant;
  return job;
}

TEST(Scheduler, Table) {
  QueuedJob again = Job("a", 101);
  again.fitted = true;
  const std::vector<Case> cases = {
      {"first come, first served, side by side",
       {Job("b", 1), Job("a", 2)},
       Cluster({true, true, true}),
       "a: a/0 a/1\nb: a/2"},
      {"priority before order",
       {Job("a", 1), Job("b", 1, 5)},
       Cluster({true}),
       "b: a/0\na: waits for 1 device to become free: 0 of 1 are"},
      {"a small job does not pass one that waits for busy devices",
       {Job("a", 2), Job("b", 1)},
       Cluster({false, true}),
       "a: waits for 2 devices to become free: 1 of 2 are\n"
       "b: waits behind a, which waits for devices to become free"},
      {"it passes one that the whole cluster cannot run",
       {Job("a", 9), Job("b", 1)},
       Cluster({true, true}),
       "a: waits for 9 devices\nb: a/0"},
      {"what can never run is refused, others go on",
       {Job("a", 101), Job("b", 1)},
       Cluster({true}),
       "a: refused, too many\nb: a/0"},
      {"what fitted once waits for what it fits on",
       {again, Job("b", 1)},
       Cluster({true}),
       "a: waits for other nodes: too many\nb: a/0"},
      {"no nodes", {Job("a", 1)}, {}, "a: waits for a node: none is ready"},
      {"only a draining node", {Job("a", 1)}, Cluster({true}, false), "a: waits for a node: none is ready"},
  };
  QueuedJob gpu = Job("a", 2), slot = Job("b", 1), any = Job("c", 1);
  gpu.spec.devices.kind = DeviceKind::kCuda;
  slot.spec.devices.kind = DeviceKind::kCpu;
  std::vector<Case> kinds = {
      {"it does pass one that waits for devices which it could not have",
       {gpu, slot, any},
       GpusAndSlots({false, true}, {true, true}),
       "a: waits for 2 devices to become free: 3 of 4 are\nb: b/0\nc: b/1"},
      {"and one that could have any of them holds up all",
       {Job("a", 4), slot, any},
       GpusAndSlots({false, true}, {true, true}),
       "a: waits for 4 devices to become free: 3 of 4 are\n"
       "b: waits behind a, which waits for devices to become free\n"
       "c: waits behind a, which waits for devices to become free"},
  };
  kinds.insert(kinds.end(), cases.begin(), cases.end());
  for (const Case& c : kinds) {
    EXPECT_EQ(Show(Schedule(c.queue, c.cluster, FakePlan)), c.expected) << c.name;
  }
}

struct TenantCase {
  const char* name;
  std::vector<QueuedJob> queue;
  int devices;
  TenantShare search;  // vision has no limits
  const char* expected;
};

TEST(Scheduler, Tenants) {
  const std::vector<TenantCase> cases = {
      {"below its limits", {JobOf("search", "a", 1)}, 2, {{.running_jobs = 2}, {0, 1, 1, 0}}, "a: a/0"},
      {"who runs all that it may waits, and others pass",
       {JobOf("search", "a", 1), JobOf("vision", "b", 1), JobOf("search", "c", 1)},
       2,
       {{.running_jobs = 1}, {0, 1, 1, 0}},
       "a: waits for a job of its tenant to end: 1 may run at once\nb: a/0\n"
       "c: waits behind a of its tenant, which has all that it may have"},
      {"those that the pass places count",
       {JobOf("search", "a", 1), JobOf("search", "b", 1), JobOf("vision", "c", 1)},
       3,
       {{.running_jobs = 1}, {}},
       "a: a/0\nb: waits for a job of its tenant to end: 1 may run at once\nc: a/1"},
      {"who would hold too many devices waits, also those behind it that would not",
       {JobOf("search", "a", 3), JobOf("search", "b", 1), JobOf("vision", "c", 1)},
       9,
       {{.devices = 4}, {0, 1, 2, 0}},
       "a: waits for jobs of its tenant to end: they may hold 4 devices at once, and it takes at least 3\n"
       "b: waits behind a of its tenant, which has all that it may have\nc: a/0"},
      {"devices that the pass places count",
       {JobOf("search", "a", 3), JobOf("search", "b", 2)},
       9,
       {{.devices = 4}, {}},
       "a: a/0 a/1 a/2\n"
       "b: waits for jobs of its tenant to end: they may hold 4 devices at once, and it takes at least 2"},
      {"its limit is no reservation: for devices it waits as all do",
       {JobOf("search", "a", 2), JobOf("vision", "b", 1)},
       1,
       {{.devices = 4}, {}},
       "a: waits for 2 devices\nb: a/0"},
      {"more than its limit, after it was lowered",
       {JobOf("search", "a", 1)},
       9,
       {{.running_jobs = 1, .devices = 2}, {0, 3, 6, 0}},
       "a: waits for a job of its tenant to end: 1 may run at once"},
  };
  for (const TenantCase& c : cases) {
    EXPECT_EQ(Show(Schedule(c.queue, Cluster(std::vector<bool>(c.devices, true)), FakePlan,
                            {{"search", c.search}, {"vision", {}}})),
              c.expected)
        << c.name;
  }
}

// Why a job waits is for its own tenant to read.
TEST(Scheduler, AJobOfAnotherTenantIsNotNamed) {
  EXPECT_EQ(Show(Schedule({JobOf("search", "a", 2), JobOf("vision", "b", 1), JobOf("search", "c", 1)},
                          Cluster({true, false}), FakePlan)),
            "a: waits for 2 devices to become free: 1 of 2 are\n"
            "b: waits behind another tenant's job, which waits for devices to become free\n"
            "c: waits behind a, which waits for devices to become free");
}

// workers.min does not say it of a job that fixes its mesh.
TEST(Scheduler, DegreesCountAgainstTheTenantToo) {
  QueuedJob job = JobOf("search", "a", 1);
  job.spec.parallelism.strategy = StrategyKind::kRing;
  job.spec.parallelism.ring = 4;
  EXPECT_EQ(
      Show(Schedule({job}, Cluster(std::vector<bool>(9, true)), FakePlan,
                    {{"search", {{.devices = 4}, {0, 1, 2, 0}}}})),
      "a: waits for jobs of its tenant to end: they may hold 4 devices at once, and it takes at least 4");
}

// One that fits on no fewer than four, whatever it says itself.
absl::StatusOr<PlannedJob> PlanOnFour(const JobSpec& job, const ClusterSnapshot& cluster,
                                      const PlanOptions& options) {
  if (job.max_workers > 0 && job.max_workers < 4) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kInfeasible, "too little memory");
  }
  JobSpec four = job;
  four.min_workers = 4;
  return FakePlan(four, cluster, options);
}

TEST(Scheduler, AJobIsPlannedOnWhatItsTenantMayHave) {
  const QueuedJob job = JobOf("search", "a", 1);
  const ClusterSnapshot cluster = Cluster(std::vector<bool>(9, true));
  const auto plan = [&](int limit, int held) {
    return Show(Schedule({job}, cluster, PlanOnFour, {{"search", {{.devices = limit}, {0, 1, held, 0}}}}));
  };
  EXPECT_EQ(plan(8, 4), "a: a/0 a/1 a/2 a/3");
  EXPECT_EQ(plan(8, 5),
            "a: waits for jobs of its tenant to end: they may hold 8 devices at once, and it does not fit on "
            "those left");
  EXPECT_EQ(plan(3, 1), "a: refused, too little memory");
}

TEST(Scheduler, DevicesThatWereSlowAreLeftOutWhereOthersAreFree) {
  QueuedJob job = Job("a", 2);
  job.avoided = {"a/0", "b/1"};
  EXPECT_EQ(Show(Schedule({job}, Cluster({true, true, true}), FakePlan)), "a: a/1 a/2");
  EXPECT_EQ(Show(Schedule({job}, Cluster({true, true, false}), FakePlan)), "a: a/0 a/1")
      << "rather than wait";
}

TEST(Scheduler, CountsDevicesOfReadyNodes) {
  ClusterSnapshot cluster = Cluster({true, false, true});
  cluster.nodes.push_back({"b", std::vector<DeviceSpec>(4), std::vector<bool>(4, true), false, {}});
  EXPECT_EQ(CountDevices(cluster, false), 3);
  EXPECT_EQ(CountDevices(cluster, true), 2);
  cluster.nodes[0].set_aside[2] = "holds memory";
  EXPECT_EQ(CountDevices(cluster, false), 2);
  EXPECT_EQ(CountDevices(cluster, true), 1);
}

}  // namespace
}  // namespace seqpar
