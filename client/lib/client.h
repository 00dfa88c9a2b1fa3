// The service as a client sees it: one method an RPC, errors as absl::Status with their reason and
// violations.
#ifndef SEQPAR_CLIENT_LIB_CLIENT_H_
#define SEQPAR_CLIENT_LIB_CLIENT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/tls.h"
#include "seqpar/v1/service.pb.h"

namespace seqpar {

// What a client may ask. Every call blocks and is bounded: DEADLINE_EXCEEDED where the answer does not come
// in time, UNAVAILABLE where the service cannot be reached. Implementations are thread-safe.
class SeqparService {
 public:
  virtual ~SeqparService() = default;

  virtual absl::StatusOr<v1::Job> CreateJob(const v1::CreateJobRequest& request) = 0;
  virtual absl::StatusOr<v1::Job> GetJob(const v1::GetJobRequest& request) = 0;
  virtual absl::StatusOr<v1::ListJobsResponse> ListJobs(const v1::ListJobsRequest& request) = 0;
  virtual absl::StatusOr<v1::Job> CancelJob(const v1::CancelJobRequest& request) = 0;
  virtual absl::StatusOr<v1::PlanJobResponse> PlanJob(const v1::PlanJobRequest& request) = 0;
  virtual absl::StatusOr<v1::GetJobLogsResponse> GetJobLogs(const v1::GetJobLogsRequest& request) = 0;
  virtual absl::StatusOr<v1::GetJobTraceResponse> GetJobTrace(const v1::GetJobTraceRequest& request) = 0;
  virtual absl::StatusOr<v1::ListNodesResponse> ListNodes(const v1::ListNodesRequest& request) = 0;
  virtual absl::StatusOr<v1::Node> GetNode(const v1::GetNodeRequest& request) = 0;
  virtual absl::StatusOr<v1::Node> DrainNode(const v1::DrainNodeRequest& request) = 0;
  virtual absl::StatusOr<v1::BackupStoreResponse> BackupStore(const v1::BackupStoreRequest& request) = 0;

  // Calls `on_event` for each event, in this thread, until it returns false (then OK), the server ends the
  // stream (OK) or `seconds` are over (DEADLINE_EXCEEDED, which is no failure: ask again from the last
  // revision). The bound also finds a server that vanished without closing its connection.
  virtual absl::Status WatchJob(const v1::WatchJobRequest& request, double seconds,
                                const std::function<bool(const v1::JobEvent&)>& on_event) = 0;
};

struct ClientOptions {
  std::string server = "127.0.0.1:7700";  // host:port
  double timeout_seconds = 30;            // of every unary call
  ClientTls tls;
};

// Over gRPC. Connects on the first call. What CheckTls finds wrong with `tls`, such as a token that would
// travel without it, is the answer to every call, and nothing is sent.
std::unique_ptr<SeqparService> ConnectService(const ClientOptions& options);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_LIB_CLIENT_H_
