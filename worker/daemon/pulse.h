// That the daemon's loop goes round, for those who end and start it anew where it does not.
#ifndef SEQPAR_WORKER_DAEMON_PULSE_H_
#define SEQPAR_WORKER_DAEMON_PULSE_H_

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/service_manager.h"

namespace seqpar {

// That the loop goes round: told to the service manager, as often as it wants to hear it, and to whoever
// asks.
class Pulse {
 public:
  explicit Pulse(const ServiceManager* manager) : manager_(manager) {}
  // Once a round; when it is due again (Clock::BootMicros).
  int64_t Beat() {
    const int64_t now_us = Clock::System().BootMicros();
    round_us_ = now_us;
    if (now_us >= next_us_) {
      manager_->Alive();
      next_us_ = now_us + manager_->still_us() / 2;
    }
    return next_us_;
  }
  // From any thread: GoesRound's answer.
  absl::Status Alive() const {
    return GoesRound("the daemon", round_us_, Clock::System().BootMicros(), manager_->still_us());
  }

 private:
  const ServiceManager* const manager_;
  int64_t next_us_ = 0;
  std::atomic<int64_t> round_us_{0};
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_PULSE_H_
