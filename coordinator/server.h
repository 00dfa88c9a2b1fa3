// The coordinator as one object: store, engine, services and the port they are served on.
#ifndef SEQPAR_COORDINATOR_SERVER_H_
#define SEQPAR_COORDINATOR_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "coordinator/config.h"

namespace seqpar {

class CoordinatorServer {
 public:
  // Serves when it returns. `clock` outlives the server. `on_fatal` may be called once from any thread, when
  // the process must end because nothing can be promised any more. Errors: the state folder is in use or
  // unreadable, a data root does not exist, the address cannot be bound, a file of TLS or the tokens is
  // wrong.
  static absl::StatusOr<std::unique_ptr<CoordinatorServer>> Create(
      const CoordinatorConfig& config, const Clock* clock, std::function<void(const absl::Status&)> on_fatal);
  ~CoordinatorServer();

  // "127.0.0.1:7700", with the port that was taken.
  const std::string& address() const;
  // Of /metrics, /healthz and /readyz; "" where they are not served.
  std::string metrics_address() const;

  // UNAVAILABLE where the engine has stood still for longer than config.still_us: what /healthz says.
  absl::Status Alive() const;

  // Says NOT_SERVING, ends every stream, answers what was asked, and closes. Running gangs go on.
  void Shutdown();

 private:
  class Impl;
  explicit CoordinatorServer(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_SERVER_H_
