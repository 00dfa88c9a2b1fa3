#include "coordinator/auth/rules.h"

namespace seqpar {

const std::vector<MethodRule>& MethodRules() {
  static const auto* rules = new std::vector<MethodRule>{
      {"/seqpar.v1.JobService/CreateJob", Access::kSubmitter, true},
      {"/seqpar.v1.JobService/GetJob", Access::kViewer, false},
      {"/seqpar.v1.JobService/ListJobs", Access::kViewer, false},
      {"/seqpar.v1.JobService/WatchJob", Access::kViewer, false},
      {"/seqpar.v1.JobService/CancelJob", Access::kSubmitter, true},
      // Reads headers of files under the tenant's data roots, and takes time: more than a look.
      {"/seqpar.v1.JobService/PlanJob", Access::kSubmitter, false},
      {"/seqpar.v1.JobService/GetJobLogs", Access::kViewer, false},
      {"/seqpar.v1.JobService/GetJobTrace", Access::kViewer, false},
      {"/seqpar.v1.ClusterService/ListNodes", Access::kViewer, false},
      {"/seqpar.v1.ClusterService/GetNode", Access::kViewer, false},
      {"/seqpar.v1.ClusterService/DrainNode", Access::kOperator, true},
      {"/seqpar.v1.ClusterService/BackupStore", Access::kOperator, true},
      {"/seqpar.v1.FleetService/Attach", Access::kWorker, true},
      // Probes have no identity; what they learn is that the coordinator serves.
      {"/grpc.health.v1.Health/Check", Access::kAnybody, false},
      {"/grpc.health.v1.Health/Watch", Access::kAnybody, false},
      {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Access::kViewer, false},
  };
  return *rules;
}

const MethodRule* FindRule(const std::string& path) {
  for (const MethodRule& rule : MethodRules()) {
    if (path == rule.path) return &rule;
  }
  return nullptr;
}

bool Allows(Access access, Role role) {
  switch (access) {
    case Access::kAnybody:
      return true;
    case Access::kViewer:
      return role != Role::kWorker;
    case Access::kSubmitter:
      return role == Role::kSubmitter || role == Role::kOperator;
    case Access::kOperator:
      return role == Role::kOperator;
    case Access::kWorker:
      return role == Role::kWorker;
  }
  return false;
}

}  // namespace seqpar
