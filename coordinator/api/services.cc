#include "coordinator/api/services.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <grpcpp/grpcpp.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/failpoints.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "coordinator/api/grpc_status.h"
#include "coordinator/api/stream_writer.h"
#include "coordinator/auth/rules.h"
#include "seqpar/v1/service.grpc.pb.h"

namespace seqpar {
namespace {

const absl::Status& ShuttingDown() {
  static const auto* status = new absl::Status(absl::UnavailableError("the coordinator is shutting down"));
  return *status;
}

const absl::Status& Overloaded() {
  static const auto* status =
      new absl::Status(WithRetry(MakeError(absl::StatusCode::kResourceExhausted, reason::kOverloaded,
                                           "the coordinator has more calls than it can answer"),
                                 1));
  return *status;
}

// Of a message, what an audit can hold: its scalar fields, in words.
std::string ScalarsOf(const google::protobuf::Message& message) {
  std::unique_ptr<google::protobuf::Message> scalars(message.New());
  scalars->CopyFrom(message);
  const google::protobuf::Reflection& reflection = *scalars->GetReflection();
  for (int i = 0; i < scalars->GetDescriptor()->field_count(); ++i) {
    const google::protobuf::FieldDescriptor* field = scalars->GetDescriptor()->field(i);
    if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
      reflection.ClearField(scalars.get(), field);
    }
  }
  return scalars->ShortDebugString();
}

// The job or node that an answer is about: its id, or else its name.
std::string ObjectOf(const google::protobuf::Message& answer) {
  for (const char* name : {"id", "name"}) {
    const google::protobuf::FieldDescriptor* field = answer.GetDescriptor()->FindFieldByName(name);
    if (field == nullptr || field->type() != google::protobuf::FieldDescriptor::TYPE_STRING) continue;
    std::string value = answer.GetReflection()->GetString(answer, field);
    if (!value.empty()) return value;
  }
  return "";
}

// The rule of the method that takes requests of this type; each type belongs to one method.
const MethodRule& RuleOf(const google::protobuf::Descriptor* request) {
  const google::protobuf::FileDescriptor* file = request->file();
  for (int i = 0; i < file->service_count(); ++i) {
    const google::protobuf::ServiceDescriptor* service = file->service(i);
    for (int j = 0; j < service->method_count(); ++j) {
      if (service->method(j)->input_type() != request) continue;
      const MethodRule* rule =
          FindRule(absl::StrCat("/", service->full_name(), "/", service->method(j)->name()));
      SEQPAR_CHECK(rule != nullptr);  // tests/coordinator/auth/rules_test.cc looks at every method
      return *rule;
    }
  }
  SEQPAR_CHECK(false);
  std::abort();
}

// The failpoint around the calls of a method.
const char* PointOf(const MethodRule& rule) {
  const absl::string_view path = rule.path;
  if (path == "/seqpar.v1.JobService/CreateJob") return "coordinator.rpc.submit";
  if (path == "/seqpar.v1.JobService/CancelJob") return "coordinator.rpc.cancel";
  if (path == "/seqpar.v1.ClusterService/DrainNode") return "coordinator.rpc.drain";
  return "coordinator.rpc.other";
}

absl::Status LostCall() { return absl::UnavailableError("a call or its answer was lost (failpoint)"); }

// What the methods of both services have in common: who calls, the pool that answers, the audit.
class Edge {
 public:
  Edge(JobApi* api, TaskPool* pool, const CallGate* gate) : api_(api), pool_(pool), gate_(gate) {}

  // Answers a unary call with what `method` returns, on the pool. Request and response live until Finish.
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, const Request* request,
                                   Response* response,
                                   absl::StatusOr<Response> (JobApi::*method)(const Caller&,
                                                                              const Request&)) const {
    static const MethodRule& rule = RuleOf(Request::descriptor());
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (pool_->full()) {
      reactor->Finish(ToGrpcStatus(Overloaded()));
      return reactor;
    }
    const absl::StatusOr<Caller> caller = gate_->CallerOf(*context);
    if (!caller.ok()) {
      reactor->Finish(ToGrpcStatus(caller.status()));
      return reactor;
    }
    const bool queued = pool_->Run([this, reactor, caller = *caller, request, response, method] {
      const HandOverFailpoint point(FailpointsOn() ? PointOf(rule) : "");
      if (point.drops_request()) return reactor->Finish(ToGrpcStatus(LostCall()));
      absl::StatusOr<Response> answer = (api_->*method)(caller, *request);
      const absl::Status status = answer.status();
      if (status.ok()) *response = *std::move(answer);
      if (rule.change) {
        gate_->audit()->Changed(caller, rule.path, ObjectOf(*response), ScalarsOf(*request), status);
      }
      reactor->Finish(ToGrpcStatus(point.drops_response() ? LostCall() : status));
    });
    if (!queued) reactor->Finish(ToGrpcStatus(ShuttingDown()));
    return reactor;
  }

  JobApi* api() const { return api_; }
  TaskPool* pool() const { return pool_; }
  const CallGate* gate() const { return gate_; }

 private:
  JobApi* const api_;
  TaskPool* const pool_;
  const CallGate* const gate_;
};

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
    absl::Status Standing() const override { return standing(); }

    seqpar::Standing standing = [] { return absl::OkStatus(); };  // set before others see it
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
  explicit JobServiceImpl(const Edge* edge) : edge_(edge) {}

  grpc::ServerUnaryReactor* CreateJob(grpc::CallbackServerContext* context,
                                      const v1::CreateJobRequest* request, v1::Job* response) override {
    return edge_->Answer(context, request, response, &JobApi::CreateJob);
  }
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context, const v1::GetJobRequest* request,
                                   v1::Job* response) override {
    return edge_->Answer(context, request, response, &JobApi::GetJob);
  }
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context, const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override {
    return edge_->Answer(context, request, response, &JobApi::ListJobs);
  }
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* context,
                                      const v1::CancelJobRequest* request, v1::Job* response) override {
    return edge_->Answer(context, request, response, &JobApi::CancelJob);
  }
  grpc::ServerUnaryReactor* PlanJob(grpc::CallbackServerContext* context, const v1::PlanJobRequest* request,
                                    v1::PlanJobResponse* response) override {
    return edge_->Answer(context, request, response, &JobApi::PlanJob);
  }
  grpc::ServerUnaryReactor* GetJobLogs(grpc::CallbackServerContext* context,
                                       const v1::GetJobLogsRequest* request,
                                       v1::GetJobLogsResponse* response) override {
    return edge_->Answer(context, request, response, &JobApi::GetJobLogs);
  }
  grpc::ServerUnaryReactor* GetJobTrace(grpc::CallbackServerContext* context,
                                        const v1::GetJobTraceRequest* request,
                                        v1::GetJobTraceResponse* response) override {
    return edge_->Answer(context, request, response, &JobApi::GetJobTrace);
  }
  grpc::ServerWriteReactor<v1::JobEvent>* WatchJob(grpc::CallbackServerContext* context,
                                                   const v1::WatchJobRequest* request) override {
    auto* stream = new WatchStream();
    const std::shared_ptr<WatchStream::Handle> handle = stream->handle();
    if (edge_->pool()->full()) {
      handle->End(Overloaded());
      return stream;
    }
    const absl::StatusOr<Caller> caller = edge_->gate()->CallerOf(*context);
    if (!caller.ok()) {
      handle->End(caller.status());
      return stream;
    }
    handle->standing = edge_->gate()->StandingOf(*context, *caller);
    // The request is gone once the stream has ended, which may be before the pool comes to it.
    const bool queued = edge_->pool()->Run([this, handle, caller = *caller, request = *request] {
      const absl::Status watched = edge_->api()->WatchJob(caller, request, handle);
      if (!watched.ok()) handle->End(watched);
    });
    if (!queued) handle->End(ShuttingDown());
    return stream;
  }

 private:
  const Edge* const edge_;
};

class ClusterServiceImpl : public v1::ClusterService::CallbackService {
 public:
  explicit ClusterServiceImpl(const Edge* edge) : edge_(edge) {}

  grpc::ServerUnaryReactor* ListNodes(grpc::CallbackServerContext* context,
                                      const v1::ListNodesRequest* request,
                                      v1::ListNodesResponse* response) override {
    return edge_->Answer(context, request, response, &JobApi::ListNodes);
  }
  grpc::ServerUnaryReactor* GetNode(grpc::CallbackServerContext* context, const v1::GetNodeRequest* request,
                                    v1::Node* response) override {
    return edge_->Answer(context, request, response, &JobApi::GetNode);
  }
  grpc::ServerUnaryReactor* DrainNode(grpc::CallbackServerContext* context,
                                      const v1::DrainNodeRequest* request, v1::Node* response) override {
    return edge_->Answer(context, request, response, &JobApi::DrainNode);
  }
  grpc::ServerUnaryReactor* BackupStore(grpc::CallbackServerContext* context,
                                        const v1::BackupStoreRequest* request,
                                        v1::BackupStoreResponse* response) override {
    return edge_->Answer(context, request, response, &JobApi::BackupStore);
  }

 private:
  const Edge* const edge_;
};

}  // namespace

class ApiServices::Impl {
 public:
  Impl(JobApi* api, TaskPool* pool, const CallGate* gate)
      : edge(api, pool, gate), jobs(&edge), cluster(&edge) {}
  const Edge edge;
  JobServiceImpl jobs;
  ClusterServiceImpl cluster;
};

ApiServices::ApiServices(JobApi* api, TaskPool* pool, const CallGate* gate)
    : impl_(std::make_unique<Impl>(api, pool, gate)) {}
ApiServices::~ApiServices() = default;

std::vector<grpc::Service*> ApiServices::services() const { return {&impl_->jobs, &impl_->cluster}; }

}  // namespace seqpar
