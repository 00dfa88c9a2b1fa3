// Everything that a worker daemon measures, and the port that it is read from.
#ifndef SEQPAR_WORKER_METRICS_METRICS_H_
#define SEQPAR_WORKER_METRICS_METRICS_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/data_roots.h"
#include "common/base/tls.h"
#include "seqpar/v1/plan.pb.h"
#include "worker/daemon/agent_observer.h"

namespace seqpar {

class WorkerMetrics {
 public:
  WorkerMetrics(const std::string& node, const ClientTls& tls, const std::string& state_dir,
                const DataRoots& roots, const Clock* clock);
  // Stops serving.
  ~WorkerMetrics();

  // Serves /metrics, /healthz (`alive`, which outlives this) and /readyz on `listen` (ADDRESS:PORT); errors
  // as HttpServer's. Ready: a coordinator has welcomed the node, and it was not told to stop.
  absl::Status Serve(const std::string& listen, std::function<absl::Status()> alive);
  // "" where nothing is served.
  std::string address() const;

  // The node's devices, once they are known: who watches the agent that runs ranks on them.
  AgentObserver* Watch(const v1::NodeSpec& devices);

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_METRICS_METRICS_H_
