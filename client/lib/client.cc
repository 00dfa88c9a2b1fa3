#include "client/lib/client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/base/clock.h"
#include "common/base/version.h"
#include "common/job/rpc_status.h"
#include "common/rpc/channel.h"
#include "seqpar/v1/service.grpc.pb.h"

namespace seqpar {
namespace {

// A plan of every candidate for a large cluster is larger than gRPC's default of 4 MiB.
constexpr int kMessageBytesMax = 256 << 20;

// gRPC calls it the minimum of a backoff; it is how long one connection may take to be made. A busy machine
// takes its time; one that refuses does so at once.
constexpr int kConnectMs = 5000;
// What a call waits for of it where an earlier one failed, so that it says soon that nobody answers; the next
// call waits for the rest.
constexpr auto kConnectPart = std::chrono::seconds(1);

// While a call is open: a coordinator that vanished without a word is noticed by the pings that it does not
// answer. The end of a stream's time says nothing about a job that waits.
constexpr int kKeepaliveMs = 20'000, kKeepaliveTimeoutMs = 10'000;

absl::Status FromGrpc(const grpc::Status& status) {
  return StatusFromRpc(status.error_code(), status.error_message(), status.error_details());
}

class GrpcService : public SeqparService {
 public:
  explicit GrpcService(const ClientOptions& options)
      : timeout_seconds_(options.timeout_seconds),
        tls_checked_(CheckTls(options.tls, Clock::System().WallMicros())) {
    if (!tls_checked_.ok()) return;
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
    arguments.SetMaxSendMessageSize(kMessageBytesMax);
    arguments.SetUserAgentPrefix(std::string("seqpar/") + kVersion);
    // A coordinator that restarts is found again within a second or two, not within gRPC's two minutes.
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectMs);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // as many as it takes
    channel_ = MakeChannel(options.server, options.tls, arguments);
    jobs_ = v1::JobService::NewStub(channel_);
    cluster_ = v1::ClusterService::NewStub(channel_);
  }

  absl::StatusOr<v1::Job> CreateJob(const v1::CreateJobRequest& request) override {
    return Call<v1::Job>(jobs_, &v1::JobService::Stub::CreateJob, request);
  }
  absl::StatusOr<v1::Job> GetJob(const v1::GetJobRequest& request) override {
    return Call<v1::Job>(jobs_, &v1::JobService::Stub::GetJob, request);
  }
  absl::StatusOr<v1::ListJobsResponse> ListJobs(const v1::ListJobsRequest& request) override {
    return Call<v1::ListJobsResponse>(jobs_, &v1::JobService::Stub::ListJobs, request);
  }
  absl::StatusOr<v1::Job> CancelJob(const v1::CancelJobRequest& request) override {
    return Call<v1::Job>(jobs_, &v1::JobService::Stub::CancelJob, request);
  }
  absl::StatusOr<v1::PlanJobResponse> PlanJob(const v1::PlanJobRequest& request) override {
    return Call<v1::PlanJobResponse>(jobs_, &v1::JobService::Stub::PlanJob, request);
  }
  absl::StatusOr<v1::GetJobLogsResponse> GetJobLogs(const v1::GetJobLogsRequest& request) override {
    return Call<v1::GetJobLogsResponse>(jobs_, &v1::JobService::Stub::GetJobLogs, request);
  }
  absl::StatusOr<v1::GetJobTraceResponse> GetJobTrace(const v1::GetJobTraceRequest& request) override {
    return Call<v1::GetJobTraceResponse>(jobs_, &v1::JobService::Stub::GetJobTrace, request);
  }
  absl::StatusOr<v1::ListNodesResponse> ListNodes(const v1::ListNodesRequest& request) override {
    return Call<v1::ListNodesResponse>(cluster_, &v1::ClusterService::Stub::ListNodes, request);
  }
  absl::StatusOr<v1::Node> GetNode(const v1::GetNodeRequest& request) override {
    return Call<v1::Node>(cluster_, &v1::ClusterService::Stub::GetNode, request);
  }
  absl::StatusOr<v1::Node> DrainNode(const v1::DrainNodeRequest& request) override {
    return Call<v1::Node>(cluster_, &v1::ClusterService::Stub::DrainNode, request);
  }
  absl::StatusOr<v1::BackupStoreResponse> BackupStore(const v1::BackupStoreRequest& request) override {
    return Call<v1::BackupStoreResponse>(cluster_, &v1::ClusterService::Stub::BackupStore, request);
  }

  absl::Status WatchJob(const v1::WatchJobRequest& request, double seconds,
                        const std::function<bool(const v1::JobEvent&)>& on_event) override {
    if (!tls_checked_.ok()) return tls_checked_;
    grpc::ClientContext context;
    Prepare(context, seconds);
    const std::unique_ptr<grpc::ClientReader<v1::JobEvent>> reader = jobs_->WatchJob(&context, request);
    v1::JobEvent event;
    while (reader->Read(&event)) {
      if (on_event(event)) continue;
      context.TryCancel();
      reader->Finish();
      return absl::OkStatus();
    }
    return FromGrpc(reader->Finish());
  }

 private:
  // For a call of so many seconds, waiting included.
  void Prepare(grpc::ClientContext& context, double seconds) {
    const std::chrono::duration<double> limit(seconds);
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::duration_cast<std::chrono::system_clock::duration>(limit));
    WaitOutFailure(*channel_, std::min<std::chrono::duration<double>>(limit, kConnectPart));
  }

  template <typename Response, typename Stub, typename Method, typename Request>
  absl::StatusOr<Response> Call(const Stub& stub, Method method, const Request& request) {
    if (!tls_checked_.ok()) return tls_checked_;
    grpc::ClientContext context;
    Prepare(context, timeout_seconds_);
    Response response;
    const grpc::Status status = ((*stub).*method)(&context, request, &response);
    if (!status.ok()) return FromGrpc(status);
    return response;
  }

  const double timeout_seconds_;
  const absl::Status tls_checked_;  // not OK: there are no channel and stubs
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::ClusterService::Stub> cluster_;
};

}  // namespace

std::unique_ptr<SeqparService> ConnectService(const ClientOptions& options) {
  return std::make_unique<GrpcService>(options);
}

}  // namespace seqpar
