// What a service tells the manager that started it, by systemd's documented protocol (sd_notify(3)):
// datagrams to the socket that NOTIFY_SOCKET names. Where there is no manager, nothing happens.
#ifndef SEQPAR_COMMON_BASE_SERVICE_MANAGER_H_
#define SEQPAR_COMMON_BASE_SERVICE_MANAGER_H_

#include <cstdint>
#include <string>

namespace seqpar {

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
