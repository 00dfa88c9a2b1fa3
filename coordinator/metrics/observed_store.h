// A store that measures another one.
#ifndef SEQPAR_COORDINATOR_METRICS_OBSERVED_STORE_H_
#define SEQPAR_COORDINATOR_METRICS_OBSERVED_STORE_H_

#include <memory>

#include "common/metrics/registry.h"
#include "coordinator/store/store.h"

namespace seqpar {

// Does what `store` does; `registry`, which outlives it, gets the time of each operation and its failures
// (ALREADY_EXISTS is none).
std::unique_ptr<Store> ObserveStore(std::unique_ptr<Store> store, MetricRegistry* registry);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_METRICS_OBSERVED_STORE_H_
