// What a service tells the manager that started it, by systemd's documented protocol (sd_notify(3)):
// datagrams to the socket that NOTIFY_SOCKET names. Where there is no manager, nothing happens.
#ifndef SEQPAR_COMMON_BASE_SERVICE_MANAGER_H_
#define SEQPAR_COMMON_BASE_SERVICE_MANAGER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace seqpar {

// How long the loop that a process lives by may stand still until the process is to be ended and started
// anew, where no service manager says.
inline constexpr int64_t kStillUs = 30'000'000;

// Whether that loop, `loop` by name, goes round: OK where a round of it began within `still_us` before
// `now_us` (all Clock::BootMicros), and before its first (`round_us` of 0). Else UNAVAILABLE, with how long
// it has stood still.
absl::Status GoesRound(const char* loop, int64_t round_us, int64_t now_us, int64_t still_us);

// One thread. Lost datagrams are not errors: the manager then times out, which is what it is for.
class ServiceManager {
 public:
  // Takes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of the environment, so that no child speaks for
  // this process. Call before threads start.
  static ServiceManager FromEnvironment();

  void Ready() const { Send("READY=1"); }
  void Stopping() const { Send("STOPPING=1"); }

  // How long the manager waits for the next Alive until it ends this process; 0: it does not.
  int64_t watchdog_us() const { return watchdog_us_; }
  // How long a loop may stand still until Alive is no longer said: half of that, or kStillUs.
  int64_t still_us() const { return watchdog_us_ > 0 ? watchdog_us_ / 2 : kStillUs; }
  // How often to say it: several times within that. 0 as above.
  int64_t alive_period_us() const { return watchdog_us_ / 4; }
  void Alive() const {
    if (watchdog_us_ > 0) Send("WATCHDOG=1");
  }

 private:
  void Send(const std::string& state) const;

  std::string socket_;  // "": no manager
  int64_t watchdog_us_ = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_SERVICE_MANAGER_H_
