// From what the ranks of a finished attempt say to one report. Pure.
#ifndef SEQPAR_COORDINATOR_REPORT_REPORT_H_
#define SEQPAR_COORDINATOR_REPORT_REPORT_H_

#include <vector>

#include "absl/status/statusor.h"
#include "common/job/job.h"
#include "common/job/plan.h"
#include "seqpar/v1/fleet.pb.h"
#include "seqpar/v1/report.pb.h"

namespace seqpar {

struct RankOutcome {
  const v1::RankEvent* result = nullptr;  // FINISHED
  int threads = 1;                        // of the rank's device
};

// Figures are those of this attempt, of the layers from `first_layer` on. Seconds are those of the slowest
// rank, bytes of each rank its own. INTERNAL (RATE_ABOVE_PEAK) where a rank computed faster than 1.25 times
// the best peak seen on its device: work was skipped. REQUIRES: one outcome a rank of the plan, by rank.
absl::StatusOr<v1::Report> BuildReport(const JobSpec& job, const Plan& plan, int attempt, int first_layer,
                                       const std::vector<RankOutcome>& ranks);

// FAILED_PRECONDITION (VERIFICATION_FAILED), naming layer and tensor, where the worst error of the sampled
// rows is above the job's bound, or where a job that asked for verification got none, or not of every layer
// by every rank. Apart from BuildReport: the job that fails has its report all the same, with the error of
// each layer.
absl::Status CheckVerification(const JobSpec& job, const std::vector<RankOutcome>& ranks,
                               const v1::Report& report);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_REPORT_REPORT_H_
