// Latency and number of RPCs, by method and code.
#ifndef SEQPAR_COORDINATOR_METRICS_RPC_METRICS_H_
#define SEQPAR_COORDINATOR_METRICS_RPC_METRICS_H_

#include <string>

#include "common/metrics/registry.h"
#include "coordinator/api/rpc_observer.h"

namespace seqpar {

class RpcMetrics : public RpcObserver {
 public:
  // `registry` outlives it.
  explicit RpcMetrics(MetricRegistry* registry);
  void Begun(const std::string& method) override;
  void Ended(const std::string& method, const std::string& code, double seconds) override;

 private:
  MetricRegistry* const registry_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_METRICS_RPC_METRICS_H_
