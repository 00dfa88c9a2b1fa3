// What a client may ask to be planned: any job, on any cluster. What is valid is planned or refused with a
// reason, and a plan survives its way to the workers.
#include <algorithm>

#include "common/base/check.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/planner/planner.h"
#include "coordinator/validate/validate.h"
#include "seqpar/v1/service.pb.h"
#include "tests/fuzz/message_target.h"

namespace seqpar {
namespace {

// More take the planner seconds each (tests/bench has them), and the tokens of a plan are counted one by one.
constexpr size_t kDevicesMax = 64;
constexpr int64_t kTokensMax = 1 << 20;

void Answer(const v1::PlanJobRequest& request) {
  static const DataRoots* const roots = new DataRoots(DataRoots::Create({{"data", "/dev"}}).value());
  // As on a wire, where strings are UTF-8.
  v1::PlanJobRequest received;
  if (!received.ParseFromString(request.SerializeAsString())) return;
  const absl::StatusOr<ValidatedJob> job = ValidateJob(received.job(), *roots);
  if (!job.ok()) {
    SEQPAR_CHECK(ReasonOf(job.status()) == reason::kInvalidJob && !ViolationsOf(job.status()).empty());
  }
  const absl::StatusOr<ClusterSnapshot> cluster = ClusterFromProto(received.cluster());
  if (!job.ok() || !cluster.ok()) return;
  size_t devices = 0;
  for (const NodeSnapshot& node : cluster->nodes) devices += node.devices.size();
  if (devices > kDevicesMax) return;
  PlanOptions options;
  options.all_candidates = received.all_candidates();
  const absl::StatusOr<PlannedJob> planned = PlanJob(job->spec, *cluster, Calibration(), options);
  if (!planned.ok()) {
    SEQPAR_CHECK(!planned.status().message().empty() && !ReasonOf(planned.status()).empty());
    return;
  }
  ExplanationToProto(planned->explanation);
  if (job->spec.tokens > kTokensMax) return;
  const absl::StatusOr<Plan> sent = PlanFromProto(PlanToProto(planned->plan));
  SEQPAR_CHECK(sent.ok());
  SEQPAR_CHECK(sent->ranks.size() == planned->plan.ranks.size());
  const int64_t peak = planned->plan.prediction.peak_bytes;
  SEQPAR_CHECK(peak >= 0);
}

}  // namespace
}  // namespace seqpar

SEQPAR_FUZZ_MESSAGE(seqpar::v1::PlanJobRequest, seqpar::Answer)
