#include "worker/metrics/metrics.h"

#include <utility>

#include "common/base/status.h"
#include "common/metrics/certificate_metrics.h"
#include "common/metrics/disk_metrics.h"
#include "common/metrics/http_server.h"
#include "common/metrics/process_metrics.h"
#include "common/metrics/registry.h"
#include "worker/metrics/device_metrics.h"

namespace seqpar {

class WorkerMetrics::Impl {
 public:
  Impl(const std::string& node, const Clock* clock)
      : registry(MetricProcess::kWorker), devices(node, &registry, clock) {}

  absl::Status Ready() const {
    if (devices.draining()) return absl::UnavailableError("this worker was told to stop");
    if (devices.attached()) return absl::OkStatus();
    return absl::UnavailableError("no coordinator has welcomed this node");
  }

  MetricRegistry registry;
  DeviceMetrics devices;
  std::unique_ptr<HttpServer> server;  // last: asks the others
};

WorkerMetrics::WorkerMetrics(const std::string& node, const ClientTls& tls, const std::string& state_dir,
                             const DataRoots& roots, const Clock* clock)
    : impl_(std::make_unique<Impl>(node, clock)) {
  AddProcessMetrics("worker", &impl_->registry);
  AddDiskMetrics(state_dir, roots, clock, &impl_->registry);
  AddCertificateMetrics(tls.cert_file, tls.ca_file, &impl_->registry);
}

WorkerMetrics::~WorkerMetrics() = default;

absl::Status WorkerMetrics::Serve(const std::string& listen, std::function<absl::Status()> alive) {
  HttpContent content{[this] { return impl_->registry.Scrape(); }, std::move(alive),
                      [this] { return impl_->Ready(); }};
  SEQPAR_ASSIGN_OR_RETURN(impl_->server, HttpServer::Create(listen, std::move(content)));
  return absl::OkStatus();
}

std::string WorkerMetrics::address() const {
  return impl_->server == nullptr ? "" : impl_->server->address();
}

AgentObserver* WorkerMetrics::Watch(const v1::NodeSpec& devices) {
  impl_->devices.SetDevices(devices);
  return &impl_->devices;
}

}  // namespace seqpar
