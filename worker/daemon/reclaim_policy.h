// When a GPU that a rank has used may be given to the next one. Pure: what was seen and the time go in,
// decisions come out.
#ifndef SEQPAR_WORKER_DAEMON_RECLAIM_POLICY_H_
#define SEQPAR_WORKER_DAEMON_RECLAIM_POLICY_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "worker/daemon/device_gate.h"

namespace seqpar {

// What one device holds.
struct HeldMemory {
  int64_t used_bytes = 0;
  std::map<int64_t, int64_t> processes;  // pid, bytes
};
using HeldByDevice = std::map<int, HeldMemory>;

// A device is free again when its used memory is within kSlackBytes of what it was when idle; where others
// use the same GPUs, when no process of ours that has ended still holds any. Not so within kPatienceUs, it is
// set aside, looked at again every minute, and comes back by itself. A device that cannot be looked at is not
// known to be free.
class ReclaimPolicy : public DeviceGate {
 public:
  static constexpr int64_t kSlackBytes = int64_t{64} << 20;
  static constexpr int64_t kPatienceUs = 5'000'000;  // from the end of the process
  static constexpr int64_t kAgainUs = 100'000;       // between two looks of these
  static constexpr int64_t kRetryUs = 60'000'000;    // while set aside

  // `idle_bytes`: used memory by device when nothing of ours runs; devices that are not in it are never
  // checked.
  ReclaimPolicy(std::map<int, int64_t> idle_bytes, bool shared, int64_t retry_us = kRetryUs)
      : idle_bytes_(std::move(idle_bytes)), shared_(shared), retry_us_(retry_us) {}

  void Ended(int device, int64_t pid, int64_t now_us) override;
  State StateOf(int device) const override;
  std::string WhySetAside(int device) const override;

  // When the next look is to be taken; INT64_MAX: none is needed.
  int64_t NextLookUs() const;
  // A look that began at `begin_us` has shown this. What ended after it began is not judged by it, but told
  // why it failed.
  void Looked(int64_t begin_us, const absl::StatusOr<HeldByDevice>& seen, int64_t now_us);
  // Sets aside what has had its time. When the next one has, at the earliest; INT64_MAX: there is none.
  int64_t Tick(int64_t now_us);

 private:
  struct Watched {
    int64_t ended_us = 0;
    int64_t next_look_us = 0;
    std::set<int64_t> pids;  // of processes that drove it and have ended
    bool set_aside = false;
    std::string why;  // not free, as last seen
  };
  // "" where the device is free.
  std::string WhyNotFree(int device, const Watched& watched, const HeldMemory& held) const;

  const std::map<int, int64_t> idle_bytes_;
  const bool shared_;
  const int64_t retry_us_;
  std::map<int, Watched> watched_;  // what is not open
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_RECLAIM_POLICY_H_
