#include "coordinator/metrics/metrics.h"

#include <chrono>
#include <utility>

#include "common/base/status.h"
#include "common/metrics/certificate_metrics.h"
#include "common/metrics/disk_metrics.h"
#include "common/metrics/http_server.h"
#include "common/metrics/process_metrics.h"
#include "common/metrics/registry.h"
#include "coordinator/metrics/job_metrics.h"
#include "coordinator/metrics/observed_store.h"
#include "coordinator/metrics/rpc_metrics.h"

namespace seqpar {

class CoordinatorMetrics::Impl {
 public:
  explicit Impl(const Clock* clock)
      : registry(MetricProcess::kCoordinator), jobs(&registry, clock), rpcs(&registry) {}

  MetricRegistry registry;
  JobMetrics jobs;
  RpcMetrics rpcs;
  std::unique_ptr<HttpServer> server;
};

CoordinatorMetrics::CoordinatorMetrics(const EngineConfig& engine, const ServerTls& tls,
                                       const std::string& state_dir, const DataRoots& roots,
                                       const Clock* clock)
    : impl_(std::make_unique<Impl>(clock)) {
  AddProcessMetrics("coordinator", &impl_->registry);
  AddDiskMetrics(state_dir, roots, clock, &impl_->registry);
  AddCertificateMetrics(tls.cert_file, tls.client_ca_file, &impl_->registry);
  impl_->registry.Gauge(Metric::kLeaseLength).Set(static_cast<double>(engine.lease_us) / 1e6);
}

CoordinatorMetrics::~CoordinatorMetrics() = default;

std::unique_ptr<Store> CoordinatorMetrics::Observe(std::unique_ptr<Store> store) {
  impl_->registry.Gauge(Metric::kTerm).Set(static_cast<double>(store->term()));
  return ObserveStore(std::move(store), &impl_->registry);
}

EngineHooks CoordinatorMetrics::hooks() {
  prometheus::Histogram& plan_seconds = impl_->registry.Histogram(Metric::kPlanSeconds);
  EngineHooks hooks;
  hooks.observer = &impl_->jobs;
  hooks.plan = [&plan_seconds, plan = std::move(hooks.plan)](
                   const JobSpec& job, const ClusterSnapshot& cluster, const Calibration& calibration,
                   const PlanOptions& options) {
    const auto begin = std::chrono::steady_clock::now();
    absl::StatusOr<PlannedJob> planned = plan(job, cluster, calibration, options);
    plan_seconds.Observe(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    return planned;
  };
  return hooks;
}

RpcObserver* CoordinatorMetrics::rpcs() { return &impl_->rpcs; }

void CoordinatorMetrics::WatchLeases(std::function<std::map<std::string, int64_t>()> left) {
  impl_->registry.OnScrape([registry = &impl_->registry, left = std::move(left)] {
    std::map<MetricRegistry::Values, double> series;
    for (const auto& [node, us] : left()) series[{node}] = static_cast<double>(us) / 1e6;
    registry->Replace(Metric::kNodeLeaseLeft, series);
  });
}

absl::Status CoordinatorMetrics::Serve(const std::string& listen, std::function<absl::Status()> alive,
                                       std::function<absl::Status()> ready) {
  HttpContent content{[registry = &impl_->registry] { return registry->Scrape(); }, std::move(alive),
                      std::move(ready)};
  SEQPAR_ASSIGN_OR_RETURN(impl_->server, HttpServer::Create(listen, std::move(content)));
  return absl::OkStatus();
}

std::string CoordinatorMetrics::address() const {
  return impl_->server == nullptr ? "" : impl_->server->address();
}

void CoordinatorMetrics::StopServing() { impl_->server.reset(); }

}  // namespace seqpar
