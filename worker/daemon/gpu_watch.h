// Looks at the memory of this node's GPUs after their ranks have ended, by way of a process of its own.
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
#include "worker/daemon/probe_process.h"
#include "worker/daemon/reclaim_policy.h"

namespace seqpar {

// Of the daemon's one thread. A node without GPUs, or whose GPUs cannot be looked at, watches nothing: its
// gate is open.
class GpuWatch {
 public:
  GpuWatch(const v1::NodeSpec& node, const WorkerConfig& config);

  DeviceGate* gate() { return &policy_; }
  // Starts what is due and takes what has come; when it is to be called again at the latest (BootMicros).
  int64_t Tick();
  // Whether a device has been set aside, or has come back, since the last call.
  bool TakeChanged();
  void AddPolls(std::vector<pollfd>* fds) const;

 private:
  void Look(int64_t now_us);
  void Finish(const absl::StatusOr<std::string>& answer, int64_t now_us);
  absl::StatusOr<HeldByDevice> Parse(const std::string& json) const;
  std::map<int, int> States() const;

  std::multimap<std::string, int> devices_;  // by uuid; several of one GPU in tests
  ReclaimPolicy policy_;
  std::unique_ptr<ProbeProcess> look_;
  int64_t look_began_us_ = 0;
  std::map<int, int> states_;  // as last told
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_GPU_WATCH_H_
