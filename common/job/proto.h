// Between values and the wire.
#ifndef SEQPAR_COMMON_JOB_PROTO_H_
#define SEQPAR_COMMON_JOB_PROTO_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/job/cluster.h"
#include "common/job/job.h"
#include "common/job/plan.h"
#include "seqpar/v1/job.pb.h"
#include "seqpar/v1/plan.pb.h"

namespace seqpar {

// Fills in the defaults that need no file. Checks nothing: coordinator/validate does, on the proto and on
// this; whoever gets a job from a coordinator asks CheckKnownValues first.
JobSpec JobFromProto(const v1::Job& proto);

// The same job with every default written out. FromProto(ToProto(spec)) is spec.
v1::Job JobToProto(const JobSpec& spec);

v1::Plan PlanToProto(const Plan& plan);
// INVALID_ARGUMENT where it contradicts itself (ranks, groups, shares), or what CheckKnownValues says.
absl::StatusOr<Plan> PlanFromProto(const v1::Plan& proto);
v1::Explanation ExplanationToProto(const Explanation& explanation);

// Nodes with count > 1 become name-0, name-1, ...; INVALID_ARGUMENT with every violation (rates and memory
// must be positive, kinds known).
absl::StatusOr<ClusterSnapshot> ClusterFromProto(const v1::Cluster& proto);
v1::DeviceSpec DeviceToProto(const DeviceSpec& device);
DeviceSpec DeviceFromProto(const v1::DeviceSpec& proto);
v1::LinkRates LinkToProto(const LinkRates& link);
LinkRates LinkFromProto(const v1::LinkRates& proto);

// UNSPECIFIED is what the field's comment in the .proto says: auto, ring, contiguous, none.
v1::Strategy StrategyToProto(StrategyKind kind);
StrategyKind StrategyFromProto(v1::Strategy strategy);
v1::Core CoreToProto(CoreKind kind);
CoreKind CoreFromProto(v1::Core core);
v1::Layout LayoutToProto(LayoutKind kind);
LayoutKind LayoutFromProto(v1::Layout layout);
v1::Recompute RecomputeToProto(Recompute recompute);
Recompute RecomputeFromProto(v1::Recompute recompute);
v1::Mesh MeshToProto(const Mesh& mesh);
Mesh MeshFromProto(const v1::Mesh& proto);

v1::JobState StateToProto(JobState state);
JobState StateFromProto(v1::JobState state);
v1::JobPhase PhaseToProto(JobPhase phase);
JobPhase PhaseFromProto(v1::JobPhase phase);

// google.rpc.Status with ErrorInfo (domain "seqpar") and BadRequest details, and back with reason and
// violations. What is not UTF-8, as names of files and tensors may be, is '?' on the wire.
google::rpc::Status StatusToProto(const absl::Status& status);
absl::Status StatusFromProto(const google::rpc::Status& proto);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_JOB_PROTO_H_
