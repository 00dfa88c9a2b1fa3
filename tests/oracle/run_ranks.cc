#include "tests/oracle/run_ranks.h"

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/comm/in_process.h"
#include "tests/devices/test_devices.h"

namespace seqpar {
namespace {

absl::Status RunRank(std::shared_ptr<Endpoint> endpoint, const std::function<absl::Status(TestRank&)>& body,
                     const RunRanksOptions& options, TrafficCounter* traffic) {
  const std::string kernel = options.kernel.empty() ? DefaultTestKernel() : options.kernel;
  SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, MakeTestDevice(kernel));
  const std::unique_ptr<Stream> compute = device->CreateStream("compute");
  const std::unique_ptr<Stream> comm = device->CreateStream("comm");
  const int rank = endpoint->world_rank();
  const std::unique_ptr<Communicator> world = MakeExchangeCommunicator(endpoint, device.get(), traffic);
  TestRank self{rank, device.get(), compute.get(), comm.get(), world.get(), traffic};
  absl::Status status = body(self);
  if (!status.ok()) {
    world->Abort(status);
    compute->Fail(status);
    comm->Fail(status);
  }
  const absl::Status computed = compute->Synchronize(), sent = comm->Synchronize();
  if (status.ok()) status = computed;
  if (status.ok()) status = sent;
  return status;
}

// Aborts the process with a message where the ranks do not finish: a hang must have a name.
class Watchdog {
 public:
  Watchdog(int ranks, double seconds_max) : finished_(ranks) {
    thread_ = std::thread([this, seconds_max] {
      std::unique_lock<std::mutex> lock(mutex_);
      if (changed_.wait_for(lock, std::chrono::duration<double>(seconds_max), [this] { return stopped_; }))
        return;
      std::fprintf(stderr, "RunRanks: after %g s these ranks have not finished:", seconds_max);
      for (size_t r = 0; r < finished_.size(); ++r) {
        if (!finished_[r]) std::fprintf(stderr, " %zu", r);
      }
      std::fprintf(stderr, "\n");
      std::abort();
    });
  }
  ~Watchdog() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopped_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void Finish(int rank) {
    std::lock_guard<std::mutex> lock(mutex_);
    finished_[rank] = true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> finished_;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace

absl::Status RunRanks(int ranks, const std::function<absl::Status(TestRank&)>& body,
                      const RunRanksOptions& options, std::vector<std::map<TrafficKey, Traffic>>* traffic) {
  std::vector<std::shared_ptr<Endpoint>> endpoints = MakeInProcessWorld(ranks, options.bytes_per_second);
  std::vector<TrafficCounter> counters(ranks);
  std::vector<absl::Status> statuses(ranks);
  {
    Watchdog watchdog(ranks, options.seconds_max);
    std::vector<std::thread> threads;
    for (int r = 0; r < ranks; ++r) {
      threads.emplace_back([&, r] {
        statuses[r] = RunRank(std::move(endpoints[r]), body, options, &counters[r]);
        watchdog.Finish(r);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  if (traffic != nullptr) {
    traffic->clear();
    for (const TrafficCounter& counter : counters) traffic->push_back(counter.Snapshot());
  }
  for (int r = 0; r < ranks; ++r) {
    if (!statuses[r].ok()) return Annotate(statuses[r], absl::StrCat("rank ", r));
  }
  return absl::OkStatus();
}

}  // namespace seqpar
