// What clients may ask, without the wire: requests in, answers or errors with reasons out.
#ifndef SEQPAR_COORDINATOR_API_JOB_API_H_
#define SEQPAR_COORDINATOR_API_JOB_API_H_

#include <memory>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/data_roots.h"
#include "coordinator/auth/caller.h"
#include "coordinator/engine/engine.h"
#include "coordinator/store/store.h"
#include "seqpar/v1/service.pb.h"

namespace seqpar {

// Thread-safe. Every call may wait (for files, the engine, nodes): on a thread of its own. Errors carry a
// reason; those of a job that is invalid, every violation. A job exists for those who see its tenant: for
// others it is NOT_FOUND, as one that never was.
class JobApi {
 public:
  // All outlive the api.
  JobApi(Engine* engine, Store* store, const DataRoots* roots, std::string state_dir, const Clock* clock,
         TestHold* hold, EngineHooks hooks)
      : engine_(engine),
        store_(store),
        roots_(roots),
        state_dir_(std::move(state_dir)),
        clock_(clock),
        hold_(hold),
        hooks_(std::move(hooks)) {}

  // Durable when it returns. ALREADY_EXISTS (REQUEST_ID_REUSED), OUTPUT_IN_USE, INFEASIBLE where no mesh
  // within the job's limits fits the nodes that are attached, INVALID_JOB, TENANT_LIMIT.
  absl::StatusOr<v1::Job> CreateJob(const Caller& caller, const v1::CreateJobRequest& request);
  absl::StatusOr<v1::Job> GetJob(const Caller& caller, const v1::GetJobRequest& request);
  absl::StatusOr<v1::ListJobsResponse> ListJobs(const Caller& caller, const v1::ListJobsRequest& request);
  absl::StatusOr<v1::Job> CancelJob(const Caller& caller, const v1::CancelJobRequest& request);
  absl::StatusOr<v1::PlanJobResponse> PlanJob(const Caller& caller, const v1::PlanJobRequest& request);
  absl::StatusOr<v1::GetJobLogsResponse> GetJobLogs(const Caller& caller,
                                                    const v1::GetJobLogsRequest& request);
  absl::StatusOr<v1::GetJobTraceResponse> GetJobTrace(const Caller& caller,
                                                      const v1::GetJobTraceRequest& request);
  // Offers the job to `watcher` as it is and as it changes, and ends it when the job has ended.
  absl::Status WatchJob(const Caller& caller, const v1::WatchJobRequest& request,
                        const std::shared_ptr<Watcher>& watcher);

  absl::StatusOr<v1::ListNodesResponse> ListNodes(const Caller& caller, const v1::ListNodesRequest& request);
  absl::StatusOr<v1::Node> GetNode(const Caller& caller, const v1::GetNodeRequest& request);
  absl::StatusOr<v1::Node> DrainNode(const Caller& caller, const v1::DrainNodeRequest& request);
  // Into the folder "backups" of the state folder. ALREADY_EXISTS where there is a backup of that name.
  absl::StatusOr<v1::BackupStoreResponse> BackupStore(const Caller& caller,
                                                      const v1::BackupStoreRequest& request);

 private:
  // The job that this request_id (within its tenant) started, if any.
  absl::StatusOr<std::optional<v1::Job>> FindRepeated(const std::string& key, const std::string& request);
  // What the record of a valid request begins with. INVALID_JOB with every violation.
  absl::StatusOr<JobRecord> Validate(const Caller& caller, const v1::CreateJobRequest& request);
  // Validates, and submits what is valid. `bytes`: the job as it came.
  absl::StatusOr<v1::Job> CreateNew(const Caller& caller, const v1::CreateJobRequest& request,
                                    const std::string& bytes);
  // True where the nodes that are here, or more of their kind, can run it on what `tenant` may hold of them;
  // false where none is here. An error where it is refused.
  absl::StatusOr<bool> CheckFits(const std::string& tenant, const JobSpec& spec);

  Engine* const engine_;
  Store* const store_;
  const DataRoots* const roots_;
  const std::string state_dir_;
  const Clock* const clock_;
  TestHold* const hold_;
  const EngineHooks hooks_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_API_JOB_API_H_
