// The planner: a pure function from job, cluster and calibration to a plan and its explanation
// (docs/planner.md).
#ifndef SEQPAR_COORDINATOR_PLANNER_PLANNER_H_
#define SEQPAR_COORDINATOR_PLANNER_PLANNER_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "common/job/cluster.h"
#include "common/job/job.h"
#include "common/job/plan.h"
#include "coordinator/planner/calibration.h"

namespace seqpar {

struct PlanOptions {
  bool all_candidates = false;  // Explanation::all
  // True: only devices that are free now. False: every device of a ready node, for "would it fit".
  bool only_free = false;
  // The first mesh that fits will do: for those who ask only whether one does. Where none does, the answer is
  // the same.
  bool first_that_fits = false;
};

struct PlannedJob {
  Plan plan;  // ranks placed: node and device of each
  Explanation explanation;
};

// FAILED_PRECONDITION (INFEASIBLE) where no mesh within the job's own limits fits on devices of this kind,
// however many there were; the message names the nearest, what it needs, and what would fit without the
// limits. UNAVAILABLE (TOO_FEW_DEVICES) where the job waits: for more devices than there are, or than are
// free (the message says how many), or for known nodes that take no ranks now (it names them).
// INVALID_ARGUMENT where the asked mesh cannot mean anything (tensor * ulysses > heads), with the nearest
// meshes that can. REQUIRES: a validated job.
absl::StatusOr<PlannedJob> PlanJob(const JobSpec& job, const ClusterSnapshot& cluster,
                                   const Calibration& calibration, const PlanOptions& options);

// PlanJob, or what stands around it.
using Planner = std::function<absl::StatusOr<PlannedJob>(const JobSpec&, const ClusterSnapshot&,
                                                         const Calibration&, const PlanOptions&)>;

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_PLANNER_H_
