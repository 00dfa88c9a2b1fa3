// Whether a device may be given to a rank.
#ifndef SEQPAR_WORKER_DAEMON_DEVICE_GATE_H_
#define SEQPAR_WORKER_DAEMON_DEVICE_GATE_H_

#include <cstdint>
#include <string>

namespace seqpar {

class DeviceGate {
 public:
  enum class State {
    kOpen,
    kChecking,  // for a few seconds: what the last rank left is looked at
    kSetAside,  // until it is found free
  };
  virtual ~DeviceGate() = default;
  // The process that drove `device` has been reaped. `pid`: 0 where it is not known.
  virtual void Ended(int device, int64_t pid, int64_t now_us) = 0;
  virtual State StateOf(int device) const = 0;
  // In words; "" where it is not set aside.
  virtual std::string WhySetAside(int device) const = 0;
};

// For devices that leave nothing behind when their process ends: the kernel takes back a CPU slot's memory.
class OpenGate : public DeviceGate {
 public:
  void Ended(int, int64_t, int64_t) override {}
  State StateOf(int) const override { return State::kOpen; }
  std::string WhySetAside(int) const override { return ""; }
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_DEVICE_GATE_H_
