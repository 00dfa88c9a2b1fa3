// How long the certificates of a process are still good.
#ifndef SEQPAR_COMMON_METRICS_CERTIFICATE_METRICS_H_
#define SEQPAR_COMMON_METRICS_CERTIFICATE_METRICS_H_

#include <string>

#include "common/metrics/registry.h"

namespace seqpar {

// Expiry and lifetime of the process's own certificate and of the authority that it believes, from their PEM
// files at each scrape, so that renewed ones count; an empty path has no series. A file that cannot be read
// leaves the series as they were: the process goes on with what it read before, too. `registry` outlives all
// scrapes.
void AddCertificateMetrics(const std::string& own_file, const std::string& authority_file,
                           MetricRegistry* registry);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_METRICS_CERTIFICATE_METRICS_H_
