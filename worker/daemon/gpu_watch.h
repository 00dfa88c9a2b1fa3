// Which of this node's GPUs may be given to ranks: not those whose memory is still held after a rank has
// ended, nor those that cannot be measured. By way of processes that look at them.
#ifndef SEQPAR_WORKER_DAEMON_GPU_WATCH_H_
#define SEQPAR_WORKER_DAEMON_GPU_WATCH_H_

#include <poll.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "seqpar/v1/plan.pb.h"
#include "worker/config.h"
#include "worker/daemon/device_gate.h"
#include "worker/daemon/gpus.h"
#include "worker/daemon/probe_process.h"
#include "worker/daemon/reclaim_policy.h"

namespace seqpar {

// Of the daemon's one thread. A node without GPUs, or whose GPUs cannot be looked at, watches nothing: its
// gate is open. A GPU that could not be measured is set aside, measured again every minute, and comes back by
// itself.
class GpuWatch : public DeviceGate {
 public:
  GpuWatch(const FoundDevices& found, const WorkerConfig& config);

  void Ended(int device, int64_t pid, int64_t now_us) override { policy_.Ended(device, pid, now_us); }
  State StateOf(int device) const override;
  std::string WhySetAside(int device) const override;
  // Starts what is due and takes what has come; when it is to be called again at the latest (BootMicros).
  int64_t Tick();
  // Whether a device has been set aside, or has come back, since the last call.
  bool TakeChanged();
  void AddPolls(std::vector<pollfd>* fds) const;

 private:
  int64_t TickMeasuring(int64_t now_us);
  void Look(int64_t now_us);
  void Finish(const absl::StatusOr<std::string>& answer, int64_t now_us);
  absl::StatusOr<HeldByDevice> Parse(const std::string& json) const;
  std::map<int, int> States() const;

  std::multimap<std::string, int> devices_;  // by uuid; several of one GPU in tests
  ReclaimPolicy policy_;
  std::unique_ptr<ProbeProcess> look_;
  int64_t look_began_us_ = 0;
  std::map<int, int> states_;  // as last told

  const WorkerConfig config_;
  const v1::NodeSpec node_;
  std::map<int, std::string> unmeasured_;  // why
  std::unique_ptr<ProbeProcess> measuring_;
  int measured_device_ = -1;  // by measuring_, or last
  int64_t next_measuring_us_ = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_GPU_WATCH_H_
