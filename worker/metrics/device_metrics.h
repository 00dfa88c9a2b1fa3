// The metrics of a node's devices and of the ranks on them: what the agent lets be seen, counted. The series
// belong to the daemon, so that they outlive executors.
#ifndef SEQPAR_WORKER_METRICS_DEVICE_METRICS_H_
#define SEQPAR_WORKER_METRICS_DEVICE_METRICS_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "common/metrics/registry.h"
#include "seqpar/v1/plan.pb.h"
#include "worker/daemon/agent_observer.h"

namespace seqpar {

// One thread; scrapes may come from others at any time.
class DeviceMetrics : public AgentObserver {
 public:
  // Both outlive it, and it outlives the scrapes of `registry`.
  DeviceMetrics(const std::string& node, MetricRegistry* registry, const Clock* clock);

  // Every device that there is: their series begin at zero, those of devices that there were go.
  void SetDevices(const v1::NodeSpec& devices);
  // From any thread.
  bool attached() const { return attached_; }
  bool draining() const { return draining_; }

  void Attached(bool attached) override;
  void Draining() override { draining_ = true; }
  void LeaseExtended(int64_t deadline_us) override { lease_deadline_us_ = deadline_us; }
  void HeartbeatAnswered(int64_t after_us) override;
  void DeviceSetAside(int device, bool aside) override;
  void RankStarted(const RankKey& key, int device, const v1::StartRanks& start) override;
  void RankProgressed(const RankKey& key, const v1::RankProgress& progress) override;
  void RankReported(const RankKey& key, const v1::RankEvent& event) override;
  void RankEnded(const RankKey& key) override;

 private:
  using Values = MetricRegistry::Values;
  struct Rank {
    int device = 0;
    Values info;  // of seqpar_rank_info
    bool finished = false;
    double verify_bound = 0;
    // The highest total seen of each counter.
    std::map<std::pair<Metric, Values>, double> counted;
    bool connected = false;  // its bootstrap was observed
  };

  Values Device(int device) const;
  void Count(Rank* rank, Metric metric, const Values& more, double total);
  void CountTotals(Rank* rank, const v1::RankTotals& totals);

  const std::string node_;
  MetricRegistry* const registry_;
  const Clock* const clock_;
  std::atomic<bool> attached_{false}, draining_{false};
  std::atomic<int64_t> lease_deadline_us_{0};
  int devices_ = 0;
  std::map<RankKey, Rank> ranks_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_METRICS_DEVICE_METRICS_H_
