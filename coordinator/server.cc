#include "coordinator/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <atomic>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/failpoints.h"
#include "common/base/log.h"
#include "common/base/service_manager.h"
#include "common/base/status.h"
#include "common/base/tls.h"
#include "coordinator/api/call_gate.h"
#include "coordinator/api/job_api.h"
#include "coordinator/api/rpc_observer.h"
#include "coordinator/api/services.h"
#include "coordinator/auth/audit_log.h"
#include "coordinator/auth/authenticator.h"
#include "coordinator/fleet/fleet_service.h"
#include "coordinator/metrics/metrics.h"
#include "coordinator/store/faulty_store.h"

namespace seqpar {
namespace {

constexpr int kApiThreads = 16;  // some wait for files or nodes
constexpr int kWorkThreads = 4;
constexpr size_t kApiQueueMax = 2000;     // calls that wait for one of these
constexpr int kSendBytesMax = 256 << 20;  // plans of thousands of ranks
// What comes is smaller: a job with a million documents, a cluster of thousands of nodes.
constexpr int kReceiveBytesMax = 16 << 20;
constexpr int kKeepaliveMs = 60'000, kKeepaliveTimeoutMs = 20'000;
constexpr auto kAnswerTime = std::chrono::milliseconds(1500);

const char* const kServices[] = {"seqpar.v1.JobService", "seqpar.v1.ClusterService",
                                 "seqpar.v1.FleetService"};

}  // namespace

class CoordinatorServer::Impl {
 public:
  Impl(const CoordinatorConfig& config, DataRoots roots, std::unique_ptr<Store> store,
       std::unique_ptr<Authenticator> authenticator, std::unique_ptr<AuditLog> audit, const Clock* clock,
       std::function<void(const absl::Status&)> on_fatal)
      : clock_(clock),
        still_us_(config.still_us),
        roots_(std::move(roots)),
        authenticator_(std::move(authenticator)),
        audit_(std::move(audit)),
        gate_(authenticator_.get(), audit_.get()),
        metrics_(config.engine, config.tls, config.state_dir, roots_, clock),
        store_(metrics_.Observe(FailpointsOn() ? MakeFaultyStore(std::move(store)) : std::move(store))),
        hold_(config.test_holds),
        work_(kWorkThreads),
        engine_(config.engine, store_.get(), &roots_, clock, &work_, &hold_, std::move(on_fatal),
                metrics_.hooks()),
        api_(&engine_, store_.get(), &roots_, config.state_dir, clock, &hold_, metrics_.hooks()),
        api_pool_(kApiThreads, kApiQueueMax),
        services_(&api_, &api_pool_, &gate_),
        fleet_(&engine_, &gate_) {
    metrics_.WatchLeases([this] { return engine_.LeasesLeft(); });
  }

  absl::Status ServeMetrics(const CoordinatorConfig& config) {
    if (config.metrics_listen == kMetricsOff) return absl::OkStatus();
    absl::Status served = metrics_.Serve(
        config.metrics_listen, [this] { return Alive(); }, [this] { return Ready(); });
    if (served.ok() || config.metrics_required) return served;
    LogWarning("no metrics are served", {{"error", served.message()}});
    return absl::OkStatus();
  }

  absl::Status Serve(const std::string& listen, const ServerTls& tls) {
    SEQPAR_RETURN_IF_ERROR(engine_.Start());
    running_ = true;
    SEQPAR_RETURN_IF_ERROR(Failpoint("coordinator.start.serve"));
    const size_t colon = listen.rfind(':');
    if (colon == std::string::npos)
      return absl::InvalidArgumentError(absl::StrCat(listen, " is not ADDRESS:PORT"));
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(listen, gate_.MakeCredentials(tls), &port);
    // Two coordinators on one port would share its connections.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    // Workers and clients ping to notice a dead peer; without this they are told too_many_pings.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    // A client whose machine is gone says nothing: its streams end when it has not answered a ping.
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    builder.SetMaxReceiveMessageSize(kReceiveBytesMax);
    builder.SetMaxSendMessageSize(kSendBytesMax);
    ObserveRpcs(metrics_.rpcs(), &builder);
    for (grpc::Service* service : services_.services()) builder.RegisterService(service);
    builder.RegisterService(fleet_.service());
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return MakeError(absl::StatusCode::kUnavailable, reason::kInternal,
                       absl::StrCat("cannot listen on ", listen));
    }
    address_ = absl::StrCat(listen.substr(0, colon), ":", port);
    for (const char* name : kServices) server_->GetHealthCheckService()->SetServingStatus(name, true);
    serving_ = true;
    return absl::OkStatus();
  }

  void Shutdown() {
    StopServing();
    metrics_.StopServing();
  }

  const std::string& address() const { return address_; }
  std::string metrics_address() const { return metrics_.address(); }
  absl::Status Alive() const {
    return GoesRound("the engine", engine_.last_round_us(), clock_->BootMicros(), still_us_);
  }

 private:
  absl::Status Ready() const {
    if (!serving_) return absl::UnavailableError("it takes no calls");
    return engine_.Health();
  }

  void StopServing() {
    serving_ = false;
    if (!running_) return;
    running_ = false;
    if (server_ != nullptr) server_->GetHealthCheckService()->Shutdown();
    // gRPC's Shutdown waits for callback calls for ever: each stream is ended first.
    hold_.Release();
    fleet_.RefuseStreams();
    engine_.EndStreams();
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now() + kAnswerTime);
    api_pool_.Drain();
    work_.Drain();
    engine_.Stop();
  }

  const Clock* const clock_;
  const int64_t still_us_;
  const DataRoots roots_;
  const std::unique_ptr<Authenticator> authenticator_;  // null: no TLS
  const std::unique_ptr<AuditLog> audit_;
  const CallGate gate_;
  CoordinatorMetrics metrics_;
  const std::unique_ptr<Store> store_;
  TestHold hold_;
  TaskPool work_;
  Engine engine_;
  JobApi api_;
  TaskPool api_pool_;
  ApiServices services_;
  FleetServiceEdge fleet_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  bool running_ = false;
  std::atomic<bool> serving_{false};
};

CoordinatorServer::CoordinatorServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CoordinatorServer::~CoordinatorServer() { impl_->Shutdown(); }
const std::string& CoordinatorServer::address() const { return impl_->address(); }
absl::Status CoordinatorServer::Alive() const { return impl_->Alive(); }
std::string CoordinatorServer::metrics_address() const { return impl_->metrics_address(); }
void CoordinatorServer::Shutdown() { impl_->Shutdown(); }

absl::StatusOr<std::unique_ptr<CoordinatorServer>> CoordinatorServer::Create(
    const CoordinatorConfig& config, const Clock* clock, std::function<void(const absl::Status&)> on_fatal) {
  SEQPAR_ASSIGN_OR_RETURN(DataRoots roots, DataRoots::Create(config.data_roots));
  SEQPAR_RETURN_IF_ERROR(CheckTls(config.tls, clock->WallMicros()));
  std::unique_ptr<Authenticator> authenticator;
  if (config.tls.enabled()) {
    SEQPAR_ASSIGN_OR_RETURN(std::unique_ptr<TokenFile> tokens, TokenFile::Open(config.tokens_file, clock));
    authenticator = std::make_unique<Authenticator>(std::move(tokens), clock);
  }
  SEQPAR_ASSIGN_OR_RETURN(std::unique_ptr<AuditLog> audit, AuditLog::Open(config.audit_log, clock));
  SEQPAR_ASSIGN_OR_RETURN(std::unique_ptr<Store> store, Store::Open(config.state_dir));
  auto impl = std::make_unique<Impl>(config, std::move(roots), std::move(store), std::move(authenticator),
                                     std::move(audit), clock, std::move(on_fatal));
  absl::Status served = impl->ServeMetrics(config);
  if (served.ok()) served = impl->Serve(config.listen, config.tls);
  if (!served.ok()) {
    impl->Shutdown();
    return served;
  }
  return std::unique_ptr<CoordinatorServer>(new CoordinatorServer(std::move(impl)));
}

}  // namespace seqpar
