#include "common/comm/in_process.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/comm/spans.h"

namespace seqpar {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

// A send that is posted. It lives in its sender's Exchange, which does not return while somebody copies from
// it.
struct Message {
  enum class State { kPosted, kCopying, kDone };
  const Transfer* transfer = nullptr;
  int64_t bytes = 0;
  SteadyTime ready;  // when a slowed link has carried it
  State state = State::kPosted;
  absl::Status error;
};

struct Key {
  uint32_t channel;
  int from;
  int to;
  friend auto operator<=>(const Key&, const Key&) = default;
};

absl::Status PeerLost(int rank, const absl::Status& why) {
  return MakeError(absl::StatusCode::kUnavailable, reason::kPeerLost,
                   absl::StrCat("lost rank ", rank, ": ", why.message()));
}

absl::Status Mismatch(const Key& key, int64_t sent, int64_t expected) {
  return MakeError(absl::StatusCode::kInternal, reason::kInternal,
                   absl::StrCat("sizes disagree on edge ", key.from, " -> ", key.to, ", channel ",
                                key.channel, ": expected ", expected, " bytes, got ", sent));
}

// One call of Exchange.
struct Call {
  int rank;
  uint32_t channel;
  const std::vector<Transfer>& recvs;
  std::vector<bool> received;
  const std::vector<Transfer>& sends;
  std::vector<Message> messages;  // of sends
};

class Mailbox {
 public:
  Mailbox(int size, double bytes_per_second)
      : size_(size), bytes_per_second_(bytes_per_second), wake_(size), aborted_(size), gone_(size) {}

  int size() const { return size_; }
  absl::Status Exchange(int rank, uint32_t channel, const std::vector<Transfer>& sends,
                        const std::vector<Transfer>& recvs, std::atomic<int>* waiting_for);
  // `rank` takes part no more: its own calls fail with `why`, those of its peers that need it with PEER_LOST.
  void Leave(int rank, const absl::Status& why);

 private:
  void Post(Call& call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Copies one message that is ready for `call`; false where there is none. The lock is open while it copies.
  bool ReceiveOne(Call& call, absl::Status* error) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The next peer that `call` waits for; nothing when it is complete.
  std::optional<int> Pending(const Call& call, absl::Status* error) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // When the next message on its way to `call` will have arrived.
  std::optional<SteadyTime> NextArrival(const Call& call) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Withdraw(Call& call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int size_;
  const double bytes_per_second_;
  Mutex mutex_;
  std::vector<ConditionVariable> wake_;                        // by rank
  std::vector<absl::Status> aborted_ ABSL_GUARDED_BY(mutex_);  // by rank: what its own calls fail with
  std::vector<absl::Status> gone_ ABSL_GUARDED_BY(mutex_);     // by rank: why peers cannot have it
  std::map<Key, std::deque<Message*>> posted_ ABSL_GUARDED_BY(mutex_);  // in the order of posting
  std::map<std::pair<int, int>, SteadyTime> links_
      ABSL_GUARDED_BY(mutex_);  // (from, to): when the link is free again
};

absl::Status Mailbox::Exchange(int rank, uint32_t channel, const std::vector<Transfer>& sends,
                               const std::vector<Transfer>& recvs, std::atomic<int>* waiting_for) {
  MutexLock lock(mutex_);
  if (!aborted_[rank].ok()) return aborted_[rank];
  Call call{rank, channel, recvs, std::vector<bool>(recvs.size()), sends, std::vector<Message>(sends.size())};
  Post(call);
  absl::Status error;
  while (error.ok()) {
    if (!aborted_[rank].ok()) {
      error = aborted_[rank];
    } else if (!ReceiveOne(call, &error)) {
      const std::optional<int> peer = Pending(call, &error);
      if (!error.ok() || !peer) break;
      waiting_for->store(*peer, std::memory_order_relaxed);
      if (const std::optional<SteadyTime> arrival = NextArrival(call)) {
        wake_[rank].wait_until(mutex_, *arrival);
      } else {
        wake_[rank].wait(mutex_);
      }
    }
  }
  if (!error.ok()) Withdraw(call);
  waiting_for->store(-1, std::memory_order_relaxed);
  return error;
}

void Mailbox::Leave(int rank, const absl::Status& why) {
  MutexLock lock(mutex_);
  if (aborted_[rank].ok()) aborted_[rank] = why;
  if (gone_[rank].ok()) gone_[rank] = why;
  for (ConditionVariable& wake : wake_) wake.notify_all();
}

void Mailbox::Post(Call& call) {
  const SteadyTime now = std::chrono::steady_clock::now();
  for (size_t i = 0; i < call.sends.size(); ++i) {
    const Transfer& send = call.sends[i];
    SEQPAR_CHECK(send.peer >= 0 && send.peer < size_ && send.peer != call.rank);
    Message& message = call.messages[i];
    message.transfer = &send;
    message.bytes = send.bytes();
    if (bytes_per_second_ > 0) {
      SteadyTime& free = links_[{call.rank, send.peer}];
      free = std::max(free, now) + std::chrono::nanoseconds(static_cast<int64_t>(
                                       1e9 * static_cast<double>(message.bytes) / bytes_per_second_));
      message.ready = free;
    }
    posted_[Key{call.channel, call.rank, send.peer}].push_back(&message);
    wake_[send.peer].notify_all();
  }
}

bool Mailbox::ReceiveOne(Call& call, absl::Status* error) {
  for (size_t i = 0; i < call.recvs.size(); ++i) {
    if (call.received[i]) continue;
    const Transfer& recv = call.recvs[i];
    const Key key{call.channel, recv.peer, call.rank};
    const auto queue = posted_.find(key);
    if (queue == posted_.end() || queue->second.front()->ready > std::chrono::steady_clock::now()) continue;
    Message* const message = queue->second.front();
    queue->second.pop_front();
    if (queue->second.empty()) posted_.erase(queue);
    call.received[i] = true;
    if (message->bytes == recv.bytes()) {
      message->state = Message::State::kCopying;
      mutex_.unlock();
      CopySpans(message->transfer->spans, recv.spans);
      mutex_.lock();
    } else {
      *error = Mismatch(key, message->bytes, recv.bytes());
      message->error = *error;
    }
    message->state = Message::State::kDone;
    wake_[recv.peer].notify_all();
    return true;
  }
  return false;
}

std::optional<int> Mailbox::Pending(const Call& call, absl::Status* error) const {
  std::optional<int> peer;
  const auto wait_for = [&](int rank) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!peer) peer = rank;
    if (!gone_[rank].ok()) *error = PeerLost(rank, gone_[rank]);
  };
  for (size_t i = 0; i < call.recvs.size(); ++i) {
    if (!call.received[i]) wait_for(call.recvs[i].peer);
  }
  for (size_t i = 0; i < call.sends.size(); ++i) {
    const Message& message = call.messages[i];
    if (message.state == Message::State::kPosted) wait_for(call.sends[i].peer);
    if (message.state == Message::State::kCopying && !peer) peer = call.sends[i].peer;
    if (!message.error.ok()) *error = message.error;
  }
  return peer;
}

std::optional<SteadyTime> Mailbox::NextArrival(const Call& call) const {
  std::optional<SteadyTime> next;
  for (size_t i = 0; i < call.recvs.size(); ++i) {
    const auto queue = posted_.find(Key{call.channel, call.recvs[i].peer, call.rank});
    if (call.received[i] || queue == posted_.end()) continue;
    const SteadyTime ready = queue->second.front()->ready;
    if (!next || ready < *next) next = ready;
  }
  return next;
}

void Mailbox::Withdraw(Call& call) {
  for (size_t i = 0; i < call.sends.size(); ++i) {
    Message& message = call.messages[i];
    if (message.state == Message::State::kPosted) {
      const auto queue = posted_.find(Key{call.channel, call.rank, call.sends[i].peer});
      queue->second.erase(std::find(queue->second.begin(), queue->second.end(), &message));
      if (queue->second.empty()) posted_.erase(queue);
    }
    while (message.state == Message::State::kCopying) wake_[call.rank].wait(mutex_);
  }
}

class InProcessEndpoint : public Endpoint {
 public:
  InProcessEndpoint(std::shared_ptr<Mailbox> mailbox, int rank) : mailbox_(std::move(mailbox)), rank_(rank) {}
  ~InProcessEndpoint() override { mailbox_->Leave(rank_, absl::UnavailableError("its endpoint is gone")); }

  int world_rank() const override { return rank_; }
  int world_size() const override { return mailbox_->size(); }
  absl::Status Exchange(uint32_t channel, const std::vector<Transfer>& sends,
                        const std::vector<Transfer>& recvs, std::atomic<int>* waiting_for) override {
    return mailbox_->Exchange(rank_, channel, sends, recvs, waiting_for);
  }
  void Abort(const absl::Status& why) override { mailbox_->Leave(rank_, why); }

 private:
  const std::shared_ptr<Mailbox> mailbox_;
  const int rank_;
};

}  // namespace

std::vector<std::shared_ptr<Endpoint>> MakeInProcessWorld(int size, double bytes_per_second) {
  const auto mailbox = std::make_shared<Mailbox>(size, bytes_per_second);
  std::vector<std::shared_ptr<Endpoint>> world;
  world.reserve(size);
  for (int rank = 0; rank < size; ++rank) world.push_back(std::make_shared<InProcessEndpoint>(mailbox, rank));
  return world;
}

}  // namespace seqpar
