// What both processes say about themselves.
#ifndef SEQPAR_COMMON_METRICS_PROCESS_METRICS_H_
#define SEQPAR_COMMON_METRICS_PROCESS_METRICS_H_

#include <string>

#include "common/metrics/registry.h"

namespace seqpar {

// Version, start, CPU time, memory and descriptors: read from the kernel at each scrape. `registry` outlives
// all scrapes.
void AddProcessMetrics(const std::string& process, MetricRegistry* registry);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_METRICS_PROCESS_METRICS_H_
