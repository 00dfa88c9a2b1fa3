// Everything that a coordinator measures, and the port that it is read from.
#ifndef SEQPAR_COORDINATOR_METRICS_METRICS_H_
#define SEQPAR_COORDINATOR_METRICS_METRICS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/data_roots.h"
#include "common/base/tls.h"
#include "coordinator/api/rpc_observer.h"
#include "coordinator/engine/engine.h"
#include "coordinator/store/store.h"

namespace seqpar {

// Outlives all that it measures; what it asks for at a scrape outlives StopServing.
class CoordinatorMetrics {
 public:
  CoordinatorMetrics(const EngineConfig& engine, const ServerTls& tls, const std::string& state_dir,
                     const DataRoots& roots, const Clock* clock);
  ~CoordinatorMetrics();

  std::unique_ptr<Store> Observe(std::unique_ptr<Store> store);
  EngineHooks hooks();
  RpcObserver* rpcs();
  // `left`: of each node's lease, in microseconds; asked at each scrape.
  void WatchLeases(std::function<std::map<std::string, int64_t>()> left);

  // Serves /metrics, /healthz (`alive`) and /readyz (`ready`) on `listen` (ADDRESS:PORT); errors as
  // HttpServer's.
  absl::Status Serve(const std::string& listen, std::function<absl::Status()> alive,
                     std::function<absl::Status()> ready);
  // "" where nothing is served.
  std::string address() const;
  void StopServing();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_METRICS_METRICS_H_
