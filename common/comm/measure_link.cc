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
// Four times as large, until a message takes so many times as long as a small one, or so many seconds: what
// is measured then is the link, however fast it is.
constexpr double kLongEnough = 10, kLongEnoughSeconds = 2e-3;
constexpr int kSmallRounds = 8, kSmallRepetitions = 24;
constexpr int kLargeRounds = 2, kLargeRepetitions = 6;
// Of the effort's seconds, what one size of messages gets.
constexpr double kShareOfSize = 0.25;

class LinkBench {
 public:
  static absl::StatusOr<LinkBench> Create(Device* device, Communicator* group, Stream* compute, Stream* comm,
                                          const LinkEffort& effort) {
    LinkBench bench(device, group, compute, comm, effort.seconds);
    SEQPAR_ASSIGN_OR_RETURN(bench.marker_, device->Allocate(kSmallBytes, "link measurement"));
    SEQPAR_RETURN_IF_ERROR(bench.Resize(effort.from_bytes));
    return absl::StatusOr<LinkBench>(std::move(bench));
  }

  absl::Status Resize(int64_t bytes) {
    send_ = Buffer();
    receive_ = Buffer();
    SEQPAR_ASSIGN_OR_RETURN(send_, device_->Allocate(bytes, "link measurement"));
    SEQPAR_ASSIGN_OR_RETURN(receive_, device_->Allocate(bytes, "link measurement"));
    device_->Zero(*compute_, send_.data(), bytes);
    return compute_->Synchronize();
  }

  // Seconds of an exchange: the lower quartile over repetitions of `rounds` each, the mean of all ranks.
  absl::StatusOr<double> Seconds(int64_t bytes, int rounds, int repetitions) {
    SEQPAR_RETURN_IF_ERROR(Exchange(bytes, 1));  // connects, touches memory
    if (limit_seconds_ > 0) {
      SEQPAR_ASSIGN_OR_RETURN(const double one, Timed(bytes, 1));
      SEQPAR_ASSIGN_OR_RETURN(const double all, MeanOfRanks(one));
      const double fit = kShareOfSize * limit_seconds_ / std::max(all * rounds, 1e-9);
      repetitions = static_cast<int>(std::clamp(fit, 1.0, static_cast<double>(repetitions)));
    }
    std::vector<double> seconds;
    for (int i = 0; i < repetitions; ++i) {
      SEQPAR_ASSIGN_OR_RETURN(const double one, Timed(bytes, rounds));
      seconds.push_back(one);
    }
    const auto quartile = seconds.begin() + repetitions / 4;
    std::nth_element(seconds.begin(), quartile, seconds.end());
    SEQPAR_ASSIGN_OR_RETURN(const double mean, MeanOfRanks(*quartile));
    spent_seconds_ += mean * (rounds * repetitions + 2);
    return mean;
  }

  // What all that was measured has taken, nearly; the same on every rank.
  double spent_seconds() const { return spent_seconds_; }

 private:
  LinkBench(Device* device, Communicator* group, Stream* compute, Stream* comm, double limit_seconds)
      : device_(device), group_(group), compute_(compute), comm_(comm), limit_seconds_(limit_seconds) {}

  // Seconds of one exchange out of `rounds`, which all ranks begin together.
  absl::StatusOr<double> Timed(int64_t bytes, int rounds) {
    group_->Barrier(*comm_);
    SEQPAR_RETURN_IF_ERROR(comm_->Synchronize());
    const auto start = std::chrono::steady_clock::now();
    SEQPAR_RETURN_IF_ERROR(Exchange(bytes, rounds));
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / rounds;
  }

  absl::Status Exchange(int64_t bytes, int rounds) {
    const int size = group_->size(), rank = group_->rank();
    for (int round = 0; round < rounds; ++round) {
      device_->Zero(*compute_, marker_.data(), kSmallBytes);
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

  // The same number on every rank: what follows from it, they do together.
  absl::StatusOr<double> MeanOfRanks(double seconds) {
    const auto mine = static_cast<float>(seconds);
    float sum = 0;
    device_->CopyFromHost(*comm_, &mine, marker_.data(), sizeof(mine));
    group_->AllReduce(*comm_, {}, static_cast<float*>(marker_.data()), 1);
    device_->CopyToHost(*comm_, marker_.data(), &sum, sizeof(sum));
    SEQPAR_RETURN_IF_ERROR(comm_->Synchronize());
    return static_cast<double>(sum) / group_->size();
  }

  Device* device_;
  Communicator* group_;
  Stream *compute_, *comm_;
  double limit_seconds_ = 0, spent_seconds_ = 0;
  Buffer marker_, send_, receive_;
};

}  // namespace

absl::StatusOr<MeasuredLink> MeasureLink(Device& device, Communicator& group, Stream& compute, Stream& comm,
                                         const LinkEffort& effort) {
  SEQPAR_CHECK(group.size() > 1);
  SEQPAR_ASSIGN_OR_RETURN(LinkBench bench, LinkBench::Create(&device, &group, &compute, &comm, effort));
  MeasuredLink link;
  SEQPAR_ASSIGN_OR_RETURN(link.latency, bench.Seconds(kSmallBytes, kSmallRounds, kSmallRepetitions));
  double large = 0;
  int64_t bytes = effort.from_bytes;
  while (true) {
    SEQPAR_ASSIGN_OR_RETURN(large, bench.Seconds(bytes, kLargeRounds, kLargeRepetitions));
    if (large >= std::min(kLongEnough * link.latency, kLongEnoughSeconds) || bytes >= effort.to_bytes) break;
    if (effort.seconds > 0 && bench.spent_seconds() > effort.seconds / 2) break;
    bytes = std::min(4 * bytes, effort.to_bytes);
    SEQPAR_RETURN_IF_ERROR(bench.Resize(bytes));
  }
  link.bandwidth = static_cast<double>(bytes) / std::max(large - link.latency, large / 2);
  return link;
}

}  // namespace seqpar
