// The worker's end of FleetService.Attach: dials, and dials again.
#ifndef SEQPAR_WORKER_DAEMON_FLEET_CLIENT_H_
#define SEQPAR_WORKER_DAEMON_FLEET_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/base/tls.h"
#include "seqpar/v1/fleet.pb.h"

namespace seqpar {

struct FleetEvent {
  enum class Kind { kConnected, kMessage, kBroken };
  Kind kind = Kind::kMessage;
  int64_t stream = 0;              // numbers streams from 1
  v1::CoordinatorMessage message;  // kMessage
  absl::Status error;              // kBroken
};

// Keeps one stream open until it is destroyed. A stream that breaks is dialled again after a pause that grows
// from 0.1 to 0.5 s (with jitter) and starts over once the coordinator has answered; on top of it comes the
// time that the coordinator asked for when it ended the stream. One that ended with UNAUTHENTICATED is
// dialled over a new connection, which is made with the certificate that is there by then. kConnected says
// that a stream was opened, not that anybody hears: what is written to it may come back as kBroken.
class FleetClient {
 public:
  // `on_event` is called from the client's threads, one at a time, in order; it must not call back.
  // REQUIRES: CheckTls(tls) was OK.
  FleetClient(const std::string& coordinator, const ClientTls& tls, std::function<void(FleetEvent)> on_event);
  // Sends what is queued (for at most half a second), closes the stream and joins.
  ~FleetClient();

  // From any thread, never waits. Messages for another stream than the open one are dropped.
  void Send(int64_t stream, const v1::WorkerMessage& message);
  void Break(int64_t stream, const absl::Status& why);

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_FLEET_CLIENT_H_
