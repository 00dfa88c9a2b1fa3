#include "common/metrics/certificate_metrics.h"

#include "common/base/tls.h"

namespace seqpar {
namespace {

void AddOne(const std::string& which, const std::string& file, MetricRegistry* registry) {
  if (file.empty()) return;
  registry->OnScrape([which, file, registry] {
    const absl::StatusOr<CertificateTimes> times = ReadCertificateTimes(file);
    if (!times.ok()) return;
    registry->Gauge(Metric::kCertificateExpiry, {which}).Set(static_cast<double>(times->end_us) / 1e6);
    registry->Gauge(Metric::kCertificateLifetime, {which})
        .Set(static_cast<double>(times->end_us - times->begin_us) / 1e6);
  });
}

}  // namespace

void AddCertificateMetrics(const std::string& own_file, const std::string& authority_file,
                           MetricRegistry* registry) {
  AddOne("own", own_file, registry);
  AddOne("authority", authority_file, registry);
}

}  // namespace seqpar
