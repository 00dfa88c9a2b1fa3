// docs/metrics.md, from the table of metrics.
#ifndef SEQPAR_COMMON_METRICS_DOCS_H_
#define SEQPAR_COMMON_METRICS_DOCS_H_

#include <string>

namespace seqpar {

// The whole page: what holds for all metrics, then each process's, each with its type, labels, values and
// buckets.
std::string MetricsPage();

}  // namespace seqpar

#endif  // SEQPAR_COMMON_METRICS_DOCS_H_
