// Who runs next, and where. Pure: a queue and a snapshot in, decisions out.
#ifndef SEQPAR_COORDINATOR_SCHEDULER_SCHEDULER_H_
#define SEQPAR_COORDINATOR_SCHEDULER_SCHEDULER_H_

#include <functional>
#include <map>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "common/job/cluster.h"
#include "common/job/job.h"
#include "common/job/plan.h"
#include "coordinator/admission/tenant_limits.h"
#include "coordinator/planner/planner.h"

namespace seqpar {

struct QueuedJob {
  std::string id;
  std::string tenant;
  int64_t sequence = 0;  // order of submission
  bool fitted = false;   // it ran before, or the nodes that were here when it was submitted could run it
  JobSpec spec;
  // Devices ("node/0") on which its ranks were slow: it gets none of them where it can begin without.
  std::set<std::string> avoided = {};
};

struct Decision {
  std::string id;
  struct Place {
    Plan plan;
  };
  struct Wait {
    std::string reason;  // in words, for the user
    // It needs more or other nodes than are ready: as long as these are the same, it waits whatever becomes
    // free, and holds up nobody.
    bool for_nodes = false;
    // Its tenant has all that it may: as long as it has no less, the job waits whatever becomes free, and
    // holds up nobody but later jobs of its tenant.
    bool for_tenant = false;
  };
  struct Refuse {
    absl::Status status;
  };
  std::variant<Place, Wait, Refuse> what;
};

using PlanFunction =
    std::function<absl::StatusOr<PlannedJob>(const JobSpec&, const ClusterSnapshot&, const PlanOptions&)>;

// What a tenant may have, and has before the pass.
struct TenantShare {
  TenantLimits limits;
  TenantUse use;
};

// Higher priority first, then the order of submission. Gangs are placed whole; devices of a placed job are
// taken for those behind it. A job that would fit the ready cluster but not what is free of it keeps those
// behind it waiting, but for such as run on devices that it could not have: a smaller job never delays it.
// One that cannot run on the present cluster at all (it waits for nodes) lets others pass. A job that no
// cluster of these devices can ever serve (INFEASIBLE, invalid) is refused; one that fitted once waits
// instead, since what it fits on may come back.
//
// A job gets no more devices than its tenant may still hold; where it could have more of them later and
// cannot run on fewer, it waits for its tenant, and so do all of its tenant behind it: a smaller job never
// delays it there either. Tenants that are not in `tenants` have no limits.
std::vector<Decision> Schedule(std::vector<QueuedJob> queue, ClusterSnapshot cluster,
                               const PlanFunction& plan, std::map<std::string, TenantShare> tenants = {});

// The cluster where these devices ("node/0") take no ranks.
ClusterSnapshot Without(const std::set<std::string>& devices, ClusterSnapshot cluster);

// Devices of ready nodes; with `free_only`, those that are free.
int CountDevices(const ClusterSnapshot& cluster, bool free_only);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_SCHEDULER_SCHEDULER_H_
