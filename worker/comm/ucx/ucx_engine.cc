// One of the threads that are in Exchange leads: it alone calls UCX, for its own messages and for those of
// the others, who hand theirs over and sleep until they are done. A leader that is done hands the lead to one
// of the others. So no blocked exchange starves another, and UCX sees one thread at a time.
//
// Ranks share cores with threads that compute, so the leader polls for some microseconds only and
// then sleeps on UCX's event descriptor, a descriptor of its own (Abort, new messages) and the deaths of
// peers.
#include "worker/comm/ucx/ucx_engine.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "worker/comm/ucx/peer_watch.h"
#include "worker/comm/ucx/ucx_transfers.h"

namespace seqpar {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using Clock = std::chrono::steady_clock;

constexpr microseconds kPollingMax{5};
constexpr milliseconds kSleepMax{50};       // where events wake us: only against an event that is lost
constexpr microseconds kBlindSleepMin{50};  // where none do: twice as long each time
constexpr microseconds kBlindSleepMax{2000};
constexpr milliseconds kCancelMax{20};
constexpr milliseconds kFlushMax{1000};
constexpr int kProgressBurst = 64;

class UcxEngine : public Endpoint {
 public:
  // Owns `wake_fd`, an eventfd that does not block.
  UcxEngine(std::shared_ptr<UcxContext> context, int wake_fd, int world_rank,
            const std::vector<PeerAddress>& peers)
      : context_(std::move(context)),
        world_rank_(world_rank),
        world_size_(static_cast<int>(peers.size())),
        wake_fd_(wake_fd),
        watch_(Processes(peers)) {
    transfer_state_.context = context_.get();
    transfer_state_.world_rank = world_rank;
  }
  ~UcxEngine() override;

  int world_rank() const override { return world_rank_; }
  int world_size() const override { return world_size_; }
  absl::Status Exchange(uint32_t channel, const std::vector<Transfer>& sends,
                        const std::vector<Transfer>& recvs, std::atomic<int>* waiting_for) override;
  void Abort(const absl::Status& why) override;

 private:
  // One call of Exchange, on its stack.
  struct Call {
    uint32_t channel;
    const std::vector<Transfer>* sends;
    const std::vector<Transfer>* recvs;
    std::atomic<int>* waiting_for;
    std::unique_ptr<UcxTransfers> transfers;  // the leader's
    bool done;                                // guarded by mutex_
    absl::Status status;                      // guarded by mutex_
  };

  static std::vector<ProcessIdentity> Processes(const std::vector<PeerAddress>& peers);

  // The leader's; they run without the lock.
  void Lead(const Call& own) ABSL_LOCKS_EXCLUDED(mutex_);
  bool Progress();
  absl::Status PollActive();
  absl::Status FindDead() const;
  void FailActive(const absl::Status& why);
  void SleepUntilEvent(nanoseconds blind);

  // Small sends complete before they have left, and peers may still need them. Bounded: a peer may be gone.
  void Flush();
  void Complete(Call* call, const absl::Status& status);
  void FailAll(const absl::Status& why);

  // Constant.
  const std::shared_ptr<UcxContext> context_;
  const int world_rank_;
  const int world_size_;
  const int wake_fd_;

  // The leader's.
  PeerWatch watch_;
  UcxTransferState transfer_state_;
  std::vector<Call*> active_;
  // Of failed calls, still known to UCX: the worker is not progressed again, since that might write where
  // they point.
  std::vector<std::unique_ptr<UcxTransfers>> abandoned_;

  Mutex mutex_;
  ConditionVariable changed_;
  bool leading_ ABSL_GUARDED_BY(mutex_) = false;
  bool asleep_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Call*> submitted_ ABSL_GUARDED_BY(mutex_);
  absl::Status failed_ ABSL_GUARDED_BY(mutex_);
};

std::vector<ProcessIdentity> UcxEngine::Processes(const std::vector<PeerAddress>& peers) {
  std::vector<ProcessIdentity> processes;
  for (const PeerAddress& peer : peers) processes.push_back(peer.process);
  return processes;
}

absl::Status UcxEngine::Exchange(uint32_t channel, const std::vector<Transfer>& sends,
                                 const std::vector<Transfer>& recvs, std::atomic<int>* waiting_for) {
  MutexLock lock(mutex_);
  if (!failed_.ok() || (sends.empty() && recvs.empty())) return failed_;
  Call call{channel, &sends, &recvs, waiting_for, nullptr, false, absl::OkStatus()};
  submitted_.push_back(&call);
  if (asleep_) eventfd_write(wake_fd_, 1);
  while (!call.done) {
    if (leading_) {
      changed_.wait(mutex_);
      continue;
    }
    leading_ = true;
    mutex_.unlock();
    Lead(call);
    mutex_.lock();
    leading_ = false;
    changed_.notify_all();
  }
  waiting_for->store(-1, std::memory_order_relaxed);
  return call.status;
}

void UcxEngine::Abort(const absl::Status& why) { FailAll(why); }

void UcxEngine::FailAll(const absl::Status& why) {
  MutexLock lock(mutex_);
  if (failed_.ok()) failed_ = why;
  if (asleep_) eventfd_write(wake_fd_, 1);
}

void UcxEngine::Lead(const Call& own) {
  Clock::time_point busy = Clock::now();
  nanoseconds blind = kBlindSleepMin;
  while (true) {
    std::vector<Call*> added;
    absl::Status failure;
    {
      MutexLock lock(mutex_);
      if (own.done) return;
      added.swap(submitted_);
      failure = failed_;
    }
    active_.insert(active_.end(), added.begin(), added.end());
    if (!failure.ok()) {
      FailActive(failure);
      return;
    }
    for (Call* call : added) {
      call->transfers =
          std::make_unique<UcxTransfers>(&transfer_state_, call->channel, *call->sends, *call->recvs);
    }
    const bool progressed = Progress();
    failure = PollActive();
    // Only when nothing is left to progress: what a peer sent before its end counts.
    if (failure.ok() && !progressed) failure = FindDead();
    if (!failure.ok()) {
      FailAll(failure);
    } else if (progressed || !added.empty()) {
      busy = Clock::now();
      blind = kBlindSleepMin;
    } else if (Clock::now() - busy > kPollingMax && !active_.empty()) {
      SleepUntilEvent(blind);
      blind = std::min<nanoseconds>(2 * blind, kSleepMax);
    }
  }
}

bool UcxEngine::Progress() {
  bool progressed = false;
  for (int i = 0; i < kProgressBurst && ucp_worker_progress(context_->worker()) > 0; ++i) progressed = true;
  return progressed;
}

absl::Status UcxEngine::PollActive() {
  for (size_t i = 0; i < active_.size();) {
    Call* const call = active_[i];
    SEQPAR_RETURN_IF_ERROR(call->transfers->Poll());
    const int peer = call->transfers->waiting_for();
    call->waiting_for->store(peer, std::memory_order_relaxed);
    if (peer >= 0) {
      ++i;
    } else {
      active_.erase(active_.begin() + i);
      Complete(call, absl::OkStatus());
    }
  }
  return absl::OkStatus();
}

absl::Status UcxEngine::FindDead() const {
  int first = -1;
  for (const Call* call : active_) {
    for (const int peer : call->transfers->peers()) {
      if (watch_.dead(peer) && (first < 0 || watch_.DiedBefore(peer, first))) first = peer;
    }
  }
  if (first < 0) return absl::OkStatus();
  return MakeError(absl::StatusCode::kUnavailable, reason::kPeerLost,
                   absl::StrCat("lost rank ", first, ": its process has ended"));
}

void UcxEngine::FailActive(const absl::Status& why) {
  for (const Call* call : active_) {
    if (call->transfers != nullptr) call->transfers->Cancel();
  }
  const Clock::time_point deadline = Clock::now() + kCancelMax;
  const auto unfinished = [](const Call* call) {
    return call->transfers != nullptr && call->transfers->unfinished();
  };
  while (std::any_of(active_.begin(), active_.end(), unfinished) && Clock::now() < deadline) {
    if (!Progress()) std::this_thread::sleep_for(kBlindSleepMin);
    for (const Call* call : active_) {
      if (call->transfers != nullptr) call->transfers->Poll().IgnoreError();
    }
  }
  for (Call* call : active_) {
    if (unfinished(call)) abandoned_.push_back(std::move(call->transfers));
    Complete(call, why);
  }
  active_.clear();
}

void UcxEngine::Complete(Call* call, const absl::Status& status) {
  MutexLock lock(mutex_);
  call->status = status;
  call->done = true;
  changed_.notify_all();
}

void UcxEngine::SleepUntilEvent(nanoseconds blind) {
  {
    MutexLock lock(mutex_);
    if (!submitted_.empty() || !failed_.ok()) return;
    asleep_ = true;
  }
  const bool has_events = context_->event_fd() >= 0;
  const ucs_status_t armed = has_events ? ucp_worker_arm(context_->worker()) : UCS_ERR_UNSUPPORTED;
  const bool sends =
      std::any_of(active_.begin(), active_.end(), [](const Call* call) { return call->transfers->sends(); });
  nanoseconds longest = armed == UCS_OK ? kSleepMax : kBlindSleepMax;
  // A transport may have a part of a send that no event tells of: then at most as long again as until now.
  if (armed != UCS_OK || sends) longest = std::min(longest, blind);
  // Something has come in. Where that stays so without progress, a peer stopped or died while it wrote to the
  // memory that it shares with this rank: then its death must be found all the same.
  if (armed == UCS_ERR_BUSY && blind == kBlindSleepMin) longest = nanoseconds(0);
  const timespec timeout{0, static_cast<long>(longest.count())};
  // Negative descriptors are ignored.
  pollfd fds[] = {{wake_fd_, POLLIN, 0},
                  {watch_.fd(), POLLIN, 0},
                  {armed == UCS_OK ? context_->event_fd() : -1, POLLIN, 0}};
  ppoll(fds, 3, &timeout, nullptr);
  if ((fds[0].revents & POLLIN) != 0) {
    eventfd_t count;
    eventfd_read(wake_fd_, &count);
  }
  if ((fds[1].revents & POLLIN) != 0) watch_.Update();
  MutexLock lock(mutex_);
  asleep_ = false;
}

UcxEngine::~UcxEngine() {
  if (failed_.ok()) Flush();
  close(wake_fd_);
}

void UcxEngine::Flush() {
  if (transfer_state_.sent.empty()) return;  // flushing would connect to peers that may never be there
  const ucp_request_param_t param{};
  void* const request = ucp_worker_flush_nbx(context_->worker(), &param);
  if (!UCS_PTR_IS_PTR(request)) return;
  const Clock::time_point deadline = Clock::now() + kFlushMax;
  while (ucp_request_check_status(request) == UCS_INPROGRESS && Clock::now() < deadline) {
    if (!Progress()) std::this_thread::sleep_for(kBlindSleepMin);
  }
  ucp_request_free(request);
}

}  // namespace

absl::StatusOr<std::shared_ptr<Endpoint>> MakeUcxEndpoint(std::shared_ptr<UcxContext> context, int world_rank,
                                                          const std::vector<PeerAddress>& peers) {
  const int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd < 0) return absl::ErrnoToStatus(errno, "making an event descriptor");
  return std::shared_ptr<Endpoint>(
      std::make_shared<UcxEngine>(std::move(context), wake_fd, world_rank, peers));
}

}  // namespace seqpar
