// The collectives over Endpoint::Exchange; common/comm/collective_layout.h says what each sends.
//
// Endpoints read and write the spans from the host, so what stays on the rank is copied on the host as well.
#include "common/comm/exchange_communicator.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/comm/collective_layout.h"
#include "common/comm/spans.h"

namespace seqpar {
namespace {

constexpr int64_t kScratchAlignment = 64;

// What all communicators of one rank share.
struct Family {
  std::shared_ptr<Endpoint> endpoint;
  Device* device = nullptr;
  TrafficCounter* traffic = nullptr;

  Mutex mutex;
  absl::Status aborted ABSL_GUARDED_BY(mutex);       // the first abort
  uint32_t next_channel ABSL_GUARDED_BY(mutex) = 1;  // lower ones may be in use; the world has 0
};

// The state of one communicator. Enqueued operations share it, so that a communicator may go before they
// happen.
struct Group {
  std::shared_ptr<Family> family;
  std::string name;
  uint32_t channel = 0;
  std::vector<int> world_ranks;  // by rank of the group
  int rank = 0;
  Buffer scratch;  // contributions of others to a sum; used in the order of the communicator's operations

  std::atomic<int64_t> entered{0};
  std::atomic<int64_t> finished{0};
  std::atomic<int> waiting_for{-1};  // a world rank

  int size() const { return static_cast<int>(world_ranks.size()); }
  absl::Status Exchange(const char* verb, TrafficKey key, const std::vector<Transfer>& sends,
                        const std::vector<Transfer>& recvs);
  // What an operation of a single exchange is from begin to end.
  absl::Status Operate(const char* verb, TrafficKey key, const std::vector<Transfer>& sends,
                       const std::vector<Transfer>& recvs);

 private:
  std::vector<Transfer> ToWorld(const std::vector<Transfer>& transfers) const;
};

std::vector<Transfer> Group::ToWorld(const std::vector<Transfer>& transfers) const {
  std::vector<Transfer> world;
  for (const Transfer& transfer : transfers) {
    SEQPAR_CHECK(transfer.peer >= 0 && transfer.peer < size() && transfer.peer != rank);
    if (transfer.bytes() > 0) world.push_back(Transfer{world_ranks[transfer.peer], transfer.spans});
  }
  return world;
}

absl::Status Group::Exchange(const char* verb, TrafficKey key, const std::vector<Transfer>& sends,
                             const std::vector<Transfer>& recvs) {
  const std::vector<Transfer> world_sends = ToWorld(sends);
  const absl::Status status = family->endpoint->Exchange(channel, world_sends, ToWorld(recvs), &waiting_for);
  if (!status.ok()) {
    {
      MutexLock lock(family->mutex);
      if (!family->aborted.ok()) return family->aborted;
    }
    return Annotate(status, absl::StrCat(verb, " in group ", name, " (rank ", rank, " of ", size(), ")"));
  }
  for (const Transfer& send : world_sends) {
    if (family->traffic != nullptr) family->traffic->Add(key, send.peer, send.bytes(), 1);
  }
  return absl::OkStatus();
}

absl::Status Group::Operate(const char* verb, TrafficKey key, const std::vector<Transfer>& sends,
                            const std::vector<Transfer>& recvs) {
  ++entered;
  SEQPAR_RETURN_IF_ERROR(Exchange(verb, key, sends, recvs));
  ++finished;
  return absl::OkStatus();
}

class ExchangeCommunicator : public Communicator {
 public:
  explicit ExchangeCommunicator(std::shared_ptr<Group> group) : group_(std::move(group)) {}

  int rank() const override { return group_->rank; }
  int size() const override { return group_->size(); }
  const std::string& name() const override { return group_->name; }

  void SendRecv(Stream& s, TrafficKey key, std::vector<Transfer> sends, std::vector<Transfer> recvs) override;
  void AllGather(Stream& s, TrafficKey key, const void* send, const std::vector<int64_t>& bytes,
                 void* recv) override;
  void AllToAll(Stream& s, TrafficKey key, std::vector<std::vector<Span>> sends,
                std::vector<std::vector<Span>> recvs) override;
  void ReduceScatter(Stream& s, TrafficKey key, const Matrix& in, const std::vector<int64_t>& rows,
                     const Matrix& out) override;
  void AllReduce(Stream& s, TrafficKey key, float* data, int64_t count) override;
  void Broadcast(Stream& s, TrafficKey key, int root, void* data, int64_t bytes) override;
  void Barrier(Stream& s) override;
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key, const std::string& name) override;
  void Abort(const absl::Status& why) override;
  CommProgress progress() const override;

 private:
  // Enqueues the reduce-scatter up to the sum; counts the operation as entered, not as finished.
  void SumOwnBlock(Stream& s, const char* verb, TrafficKey key, const Matrix& in,
                   const std::vector<int64_t>& rows, const Matrix& out);
  // Makes the scratch at least `bytes` long; false where that failed, and with it the stream.
  bool GrowScratch(Stream& s, int64_t bytes);

  const std::shared_ptr<Group> group_;
};

void ExchangeCommunicator::SendRecv(Stream& s, TrafficKey key, std::vector<Transfer> sends,
                                    std::vector<Transfer> recvs) {
  s.HostFunction([group = group_, key, sends = std::move(sends), recvs = std::move(recvs)] {
    return group->Operate("send_recv", key, sends, recvs);
  });
}

void ExchangeCommunicator::AllGather(Stream& s, TrafficKey key, const void* send,
                                     const std::vector<int64_t>& bytes, void* recv) {
  SEQPAR_CHECK(static_cast<int>(bytes.size()) == size());
  char* own = static_cast<char*>(recv);
  for (int i = 0; i < rank(); ++i) own += bytes[i];
  s.HostFunction([group = group_, key, send, bytes, recv, own] {
    const int64_t own_bytes = bytes[group->rank];
    if (own_bytes > 0 && send != own) std::memcpy(own, send, own_bytes);
    const Messages m = GatherMessages(group->rank, bytes, static_cast<char*>(recv));
    return group->Operate("all_gather", key, m.sends, m.recvs);
  });
}

void ExchangeCommunicator::AllToAll(Stream& s, TrafficKey key, std::vector<std::vector<Span>> sends,
                                    std::vector<std::vector<Span>> recvs) {
  SEQPAR_CHECK(static_cast<int>(sends.size()) == size() && static_cast<int>(recvs.size()) == size());
  s.HostFunction([group = group_, key, sends = std::move(sends), recvs = std::move(recvs)] {
    CopySpans(sends[group->rank], recvs[group->rank]);
    std::vector<Transfer> outgoing, incoming;
    for (int peer = 0; peer < group->size(); ++peer) {
      if (peer == group->rank) continue;
      outgoing.push_back(Transfer{peer, sends[peer]});
      incoming.push_back(Transfer{peer, recvs[peer]});
    }
    return group->Operate("all_to_all", key, outgoing, incoming);
  });
}

void ExchangeCommunicator::ReduceScatter(Stream& s, TrafficKey key, const Matrix& in,
                                         const std::vector<int64_t>& rows, const Matrix& out) {
  SumOwnBlock(s, "reduce_scatter", key, in, rows, out);
  s.HostFunction([group = group_] {
    ++group->finished;
    return absl::OkStatus();
  });
}

void ExchangeCommunicator::AllReduce(Stream& s, TrafficKey key, float* data, int64_t count) {
  const std::vector<int64_t> elements = EvenBlocks(count, size());
  std::vector<int64_t> bytes;
  for (int64_t block : elements) bytes.push_back(block * SizeOf(DType::kF32));
  float* own = data;
  for (int i = 0; i < rank(); ++i) own += elements[i];
  const Matrix all(data, DType::kF32, count, 1);
  SumOwnBlock(s, "all_reduce", key, all, elements, Matrix(own, DType::kF32, elements[rank()], 1));
  s.HostFunction([group = group_, key, bytes, data] {
    const Messages m = GatherMessages(group->rank, bytes, reinterpret_cast<char*>(data));
    SEQPAR_RETURN_IF_ERROR(group->Exchange("all_reduce", key, m.sends, m.recvs));
    ++group->finished;
    return absl::OkStatus();
  });
}

void ExchangeCommunicator::SumOwnBlock(Stream& s, const char* verb, TrafficKey key, const Matrix& in,
                                       const std::vector<int64_t>& rows, const Matrix& out) {
  SEQPAR_CHECK(static_cast<int>(rows.size()) == size());
  SEQPAR_CHECK(out.rows == rows[rank()] && out.cols == in.cols);
  if (!GrowScratch(s, SumScratchBytes(rank(), in, rows, kScratchAlignment))) return;
  OwnBlockSum sum =
      LayOutSum(rank(), in, rows, static_cast<char*>(group_->scratch.data()), kScratchAlignment);
  s.HostFunction([group = group_, verb, key, m = std::move(sum.messages)] {
    ++group->entered;
    return group->Exchange(verb, key, m.sends, m.recvs);
  });
  EnqueueSum(*group_->family->device, s, std::move(sum.terms), out);
}

bool ExchangeCommunicator::GrowScratch(Stream& s, int64_t bytes) {
  Buffer& scratch = group_->scratch;
  if (bytes <= scratch.bytes()) return true;
  // Operations that are enqueued may still use the old one. They never wait for what is enqueued after them.
  absl::Status status = scratch.bytes() > 0 ? s.Synchronize() : absl::OkStatus();
  if (status.ok()) {
    scratch = Buffer();
    absl::StatusOr<Buffer> larger =
        group_->family->device->Allocate(bytes, "contributions to a sum over ranks");
    if (larger.ok()) {
      scratch = std::move(larger).value();
      return true;
    }
    status = larger.status();
  }
  s.Fail(status);
  return false;
}

void ExchangeCommunicator::Broadcast(Stream& s, TrafficKey key, int root, void* data, int64_t bytes) {
  s.HostFunction([group = group_, key, m = BroadcastMessages(rank(), size(), root, data, bytes)] {
    return group->Operate("broadcast", key, m.sends, m.recvs);
  });
}

void ExchangeCommunicator::Barrier(Stream& s) {
  s.HostFunction([group = group_] {
    ++group->entered;
    char token = 0, received = 0;
    for (const Messages& round : BarrierRounds(group->rank, group->size(), &token, &received)) {
      SEQPAR_RETURN_IF_ERROR(group->Exchange("barrier", TrafficKey{}, round.sends, round.recvs));
    }
    ++group->finished;
    return absl::OkStatus();
  });
}

// Channels: every member proposes the lowest that it does not use, and the largest proposal is the first
// color's. Two ranks that share a group took part in its split, so no two groups of one pair of ranks have
// the same channel.
absl::StatusOr<std::unique_ptr<Communicator>> ExchangeCommunicator::Split(int color, int key,
                                                                          const std::string& name) {
  struct Entry {
    int32_t color, key;
    uint32_t next_channel;
  };
  Family& family = *group_->family;
  std::vector<Entry> entries(size());
  {
    MutexLock lock(family.mutex);
    entries[rank()] = Entry{color, key, family.next_channel};
  }
  const Messages m = GatherMessages(rank(), std::vector<int64_t>(size(), sizeof(Entry)),
                                    reinterpret_cast<char*>(entries.data()));
  SEQPAR_RETURN_IF_ERROR(group_->Operate("split", TrafficKey{}, m.sends, m.recvs));

  std::vector<int> colors, members;
  uint32_t first_channel = 0;
  for (int i = 0; i < size(); ++i) {
    first_channel = std::max(first_channel, entries[i].next_channel);
    if (entries[i].color >= 0) colors.push_back(entries[i].color);
    if (entries[i].color == color) members.push_back(i);
  }
  std::sort(colors.begin(), colors.end());
  colors.erase(std::unique(colors.begin(), colors.end()), colors.end());
  {
    MutexLock lock(family.mutex);
    family.next_channel = first_channel + static_cast<uint32_t>(colors.size());
  }
  if (color < 0) return std::unique_ptr<Communicator>();

  std::stable_sort(members.begin(), members.end(),
                   [&](int a, int b) { return entries[a].key < entries[b].key; });
  auto child = std::make_shared<Group>();
  child->family = group_->family;
  child->name = name;
  child->channel =
      first_channel +
      static_cast<uint32_t>(std::lower_bound(colors.begin(), colors.end(), color) - colors.begin());
  for (const int member : members) child->world_ranks.push_back(group_->world_ranks[member]);
  child->rank = static_cast<int>(std::find(members.begin(), members.end(), rank()) - members.begin());
  return std::unique_ptr<Communicator>(std::make_unique<ExchangeCommunicator>(std::move(child)));
}

void ExchangeCommunicator::Abort(const absl::Status& why) {
  SEQPAR_CHECK(!why.ok());
  Family& family = *group_->family;
  absl::Status first;
  {
    MutexLock lock(family.mutex);
    if (family.aborted.ok()) family.aborted = why;
    first = family.aborted;
  }
  family.endpoint->Abort(first);
}

CommProgress ExchangeCommunicator::progress() const {
  CommProgress progress;
  progress.group = group_->name;
  // In this order a reader never sees more finished than entered.
  progress.finished = group_->finished;
  progress.entered = group_->entered;
  const int world_rank = group_->waiting_for;
  const auto& ranks = group_->world_ranks;
  const auto peer = std::find(ranks.begin(), ranks.end(), world_rank);
  if (peer != ranks.end()) progress.waiting_for_peer = static_cast<int>(peer - ranks.begin());
  return progress;
}

}  // namespace

std::unique_ptr<Communicator> MakeExchangeCommunicator(std::shared_ptr<Endpoint> endpoint, Device* device,
                                                       TrafficCounter* traffic) {
  auto group = std::make_shared<Group>();
  group->name = "world";
  group->rank = endpoint->world_rank();
  for (int rank = 0; rank < endpoint->world_size(); ++rank) group->world_ranks.push_back(rank);
  group->family = std::make_shared<Family>();
  group->family->endpoint = std::move(endpoint);
  group->family->device = device;
  group->family->traffic = traffic;
  return std::make_unique<ExchangeCommunicator>(std::move(group));
}

}  // namespace seqpar
