// What the planner learns from a finished attempt. Pure.
#ifndef SEQPAR_COORDINATOR_REPORT_LEARN_H_
#define SEQPAR_COORDINATOR_REPORT_LEARN_H_

#include "common/job/job.h"
#include "common/job/plan.h"
#include "coordinator/planner/calibration.h"
#include "seqpar/v1/report.pb.h"

namespace seqpar {

// `now` after one more job. A factor moves, in logarithms, a part of the way to the one that would have
// predicted this report: half of it for the first job, then a third, a quarter, never less than an eighth; a
// strategy's own factor a sixteenth. One job counts as at most 2 times off; factors stay within [1/4, 4], a
// strategy's within [0.85, 1.15], phases' within [1/32, 32]. Steps and phases under 20 ms teach nothing:
// their figures are those of the scheduler.
Calibration Learn(const Calibration& now, const Plan& plan, JobPass pass, const v1::Report& report);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_REPORT_LEARN_H_
