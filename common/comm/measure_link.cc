#include "common/comm/measure_link.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr int64_t kSmallBytes = 8;
constexpr int64_t kLargeBytes = int64_t{4} << 20;
constexpr int kSmallRounds = 8, kSmallRepetitions = 24;
constexpr int kLargeRounds = 2, kLargeRepetitions = 6;

class LinkBench {
 public:
  LinkBench(Communicator* group, Stream* compute, Stream* comm, const Buffer& send, const Buffer& receive)
      : group_(group), compute_(compute), comm_(comm), send_(send), receive_(receive) {}

  // Seconds of an exchange: the lower quartile over repetitions of `rounds` each.
  absl::StatusOr<double> Seconds(int64_t bytes, int rounds, int repetitions) {
    SEQPAR_RETURN_IF_ERROR(Exchange(bytes, 1));  // connects, touches memory
    std::vector<double> seconds;
    for (int i = 0; i < repetitions; ++i) {
      group_->Barrier(*comm_);
      SEQPAR_RETURN_IF_ERROR(comm_->Synchronize());
      const auto start = std::chrono::steady_clock::now();
      SEQPAR_RETURN_IF_ERROR(Exchange(bytes, rounds));
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
                        rounds);
    }
    const auto quartile = seconds.begin() + repetitions / 4;
    std::nth_element(seconds.begin(), quartile, seconds.end());
    return *quartile;
  }

 private:
  absl::Status Exchange(int64_t bytes, int rounds) {
    const int size = group_->size(), rank = group_->rank();
    for (int round = 0; round < rounds; ++round) {
      compute_->HostFunction([] { return absl::OkStatus(); });
      comm_->Wait(compute_->Record());
      std::vector<Transfer> sends = {{(rank + 1) % size, {{send_.data(), bytes}}}};
      std::vector<Transfer> receives = {{(rank + size - 1) % size, {{receive_.data(), bytes}}}};
      group_->SendRecv(*comm_, {}, std::move(sends), std::move(receives));
      compute_->Wait(comm_->Record());
    }
    const absl::Status communicated = comm_->Synchronize();
    const absl::Status computed = compute_->Synchronize();
    return communicated.ok() ? computed : communicated;
  }

  Communicator* const group_;
  Stream *const compute_, *const comm_;
  const Buffer &send_, &receive_;
};

}  // namespace

absl::StatusOr<MeasuredLink> MeasureLink(Device& device, Communicator& group, Stream& compute, Stream& comm) {
  SEQPAR_CHECK(group.size() > 1);
  SEQPAR_ASSIGN_OR_RETURN(const Buffer send, device.Allocate(kLargeBytes, "link measurement"));
  SEQPAR_ASSIGN_OR_RETURN(const Buffer receive, device.Allocate(kLargeBytes, "link measurement"));
  device.Zero(compute, send.data(), kLargeBytes);
  SEQPAR_RETURN_IF_ERROR(compute.Synchronize());
  LinkBench bench(&group, &compute, &comm, send, receive);
  MeasuredLink link;
  SEQPAR_ASSIGN_OR_RETURN(link.latency, bench.Seconds(kSmallBytes, kSmallRounds, kSmallRepetitions));
  SEQPAR_ASSIGN_OR_RETURN(const double large, bench.Seconds(kLargeBytes, kLargeRounds, kLargeRepetitions));
  link.bandwidth = static_cast<double>(kLargeBytes) / std::max(large - link.latency, large / 2);
  return link;
}

}  // namespace seqpar
