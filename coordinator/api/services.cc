#include "coordinator/api/services.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "coordinator/api/grpc_status.h"
#include "coordinator/api/stream_writer.h"
#include "seqpar/v1/service.grpc.pb.h"

namespace seqpar {
namespace {

const absl::Status& ShuttingDown() {
  static const auto* status = new absl::Status(absl::UnavailableError("the coordinator is shutting down"));
  return *status;
}

// Answers a unary call with what `call` returns, on the pool. Request and response live until Finish.
template <typename Response, typename Call>
grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, TaskPool* pool, Response* response,
                                 Call call) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const bool queued = pool->Run([reactor, response, call = std::move(call)] {
    absl::StatusOr<Response> answer = call();
    if (answer.ok()) *response = *std::move(answer);
    reactor->Finish(ToGrpcStatus(answer.status()));
  });
  if (!queued) reactor->Finish(ToGrpcStatus(ShuttingDown()));
  return reactor;
}

// The stream of one WatchJob call: its reader sees the latest state, not each one.
class WatchStream : public grpc::ServerWriteReactor<v1::JobEvent> {
 public:
  // Outlives the reactor where the engine still holds it.
  class Handle : public Watcher {
   public:
    explicit Handle(WatchStream* stream) : writer(stream) {}

    void Offer(const v1::Job& job) override {
      v1::JobEvent event;
      event.set_revision(job.revision());
      *event.mutable_job() = job;
      writer.WriteLatest(std::move(event));
    }
    void End(const absl::Status& status) override { writer.Finish(status); }

    StreamWriter<WatchStream, v1::JobEvent> writer;
  };

  WatchStream() : handle_(std::make_shared<Handle>(this)) {}
  const std::shared_ptr<Handle>& handle() const { return handle_; }

  void OnWriteDone(bool ok) override { handle_->writer.OnWriteDone(ok); }
  void OnCancel() override { handle_->End(absl::CancelledError("the client went away")); }
  void OnDone() override {
    handle_->writer.OnDone();
    delete this;
  }

 private:
  const std::shared_ptr<Handle> handle_;
};

class JobServiceImpl : public v1::JobService::CallbackService {
 public:
  JobServiceImpl(JobApi* api, TaskPool* pool) : api_(api), pool_(pool) {}

  grpc::ServerUnaryReactor* CreateJob(grpc::CallbackServerContext* context,
                                      const v1::CreateJobRequest* request, v1::Job* response) override {
    return Answer(context, pool_, response, [this, request] { return api_->CreateJob(*request); });
  }
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context, const v1::GetJobRequest* request,
                                   v1::Job* response) override {
    return Answer(context, pool_, response, [this, request] { return api_->GetJob(*request); });
  }
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context, const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override {
    return Answer(context, pool_, response, [this, request] { return api_->ListJobs(*request); });
  }
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* context,
                                      const v1::CancelJobRequest* request, v1::Job* response) override {
    return Answer(context, pool_, response, [this, request] { return api_->CancelJob(*request); });
  }
  grpc::ServerUnaryReactor* PlanJob(grpc::CallbackServerContext* context, const v1::PlanJobRequest* request,
                                    v1::PlanJobResponse* response) override {
    return Answer(context, pool_, response, [this, request] { return api_->PlanJob(*request); });
  }
  grpc::ServerUnaryReactor* GetJobLogs(grpc::CallbackServerContext* context,
                                       const v1::GetJobLogsRequest* request,
                                       v1::GetJobLogsResponse* response) override {
    return Answer(context, pool_, response, [this, request] { return api_->GetJobLogs(*request); });
  }
  grpc::ServerWriteReactor<v1::JobEvent>* WatchJob(grpc::CallbackServerContext*,
                                                   const v1::WatchJobRequest* request) override {
    auto* stream = new WatchStream();
    const std::shared_ptr<WatchStream::Handle> handle = stream->handle();
    // The request is gone once the stream has ended, which may be before the pool comes to it.
    const bool queued = pool_->Run([this, handle, request = *request] {
      if (const absl::Status watched = api_->WatchJob(request, handle); !watched.ok()) handle->End(watched);
    });
    if (!queued) handle->End(ShuttingDown());
    return stream;
  }

 private:
  JobApi* const api_;
  TaskPool* const pool_;
};

class ClusterServiceImpl : public v1::ClusterService::CallbackService {
 public:
  ClusterServiceImpl(JobApi* api, TaskPool* pool) : api_(api), pool_(pool) {}

  grpc::ServerUnaryReactor* ListNodes(grpc::CallbackServerContext* context,
                                      const v1::ListNodesRequest* request,
                                      v1::ListNodesResponse* response) override {
    return Answer(context, pool_, response, [this, request] { return api_->ListNodes(*request); });
  }
  grpc::ServerUnaryReactor* GetNode(grpc::CallbackServerContext* context, const v1::GetNodeRequest* request,
                                    v1::Node* response) override {
    return Answer(context, pool_, response, [this, request] { return api_->GetNode(*request); });
  }
  grpc::ServerUnaryReactor* DrainNode(grpc::CallbackServerContext* context,
                                      const v1::DrainNodeRequest* request, v1::Node* response) override {
    return Answer(context, pool_, response, [this, request] { return api_->DrainNode(*request); });
  }

 private:
  JobApi* const api_;
  TaskPool* const pool_;
};

}  // namespace

class ApiServices::Impl {
 public:
  Impl(JobApi* api, TaskPool* pool) : jobs(api, pool), cluster(api, pool) {}
  JobServiceImpl jobs;
  ClusterServiceImpl cluster;
};

ApiServices::ApiServices(JobApi* api, TaskPool* pool) : impl_(std::make_unique<Impl>(api, pool)) {}
ApiServices::~ApiServices() = default;

std::vector<grpc::Service*> ApiServices::services() const { return {&impl_->jobs, &impl_->cluster}; }

}  // namespace seqpar
