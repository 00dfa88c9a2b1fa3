// Communication within a group of ranks, ordered on streams. Implementations pair with a device: in-process
// threads (common/comm) and UCX (worker/comm/ucx) with the CPU, NCCL with CUDA.
//
// Every rank of the group calls the same operations in the same order; group-wise order, not stream-wise: one
// communicator is used from one stream at a time or with events between. Counts may be uneven and zero.
// Transfers of zero bytes are not sent, and no message goes to oneself (all_gather and all_to_all copy the
// own part). Failures are sticky in the stream: a peer's death, Abort, or a mismatch fails it with a status
// that names the peer.
#ifndef SEQPAR_COMMON_COMM_COMMUNICATOR_H_
#define SEQPAR_COMMON_COMM_COMMUNICATOR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/device/device.h"
#include "common/device/stream.h"

namespace seqpar {

// What a transfer is for: traffic is counted under it (report, metrics).
enum class Operation {
  kTensorAttention,
  kTensorMlp,
  kUlysses,
  kRing,
  kGather,
  kWeightGradients,
  kVerify,
  kControl
};
enum class Pass { kForward, kBackward };
const char* OperationName(Operation op);  // "tensor_attention", ... as in reports
const char* PassName(Pass pass);          // "forward", "backward"

struct TrafficKey {
  Operation operation = Operation::kControl;
  Pass pass = Pass::kForward;
  friend auto operator<=>(const TrafficKey&, const TrafficKey&) = default;
};

struct Traffic {
  int64_t bytes = 0;     // payload that left the rank
  int64_t messages = 0;  // non-empty transfers to other ranks
};

// How two ranks are connected.
enum class Link { kLocal, kNetwork };  // within a node, between nodes
const char* LinkName(Link link);       // "local", "network"

// Counts what a rank sends, over all of its communicators. Thread-safe. kControl (barriers, bootstrap) counts
// too.
class TrafficCounter {
 public:
  TrafficCounter() = default;  // every rank is of this node
  // `links`: to each rank of the world.
  explicit TrafficCounter(std::vector<Link> links) : links_(std::move(links)) {}

  // `peer` is a rank of the world; -1: not known, taken to be on another node.
  void Add(const TrafficKey& key, int peer, int64_t bytes, int64_t messages);
  std::map<TrafficKey, Traffic> Snapshot() const;                // over all links
  std::map<std::pair<Operation, Link>, Traffic> ByLink() const;  // over both passes

 private:
  const std::vector<Link> links_{};
  mutable Mutex mutex_;
  std::map<std::pair<TrafficKey, Link>, Traffic> counts_ ABSL_GUARDED_BY(mutex_);
};

// A piece of device memory.
struct Span {
  void* data = nullptr;
  int64_t bytes = 0;
};

// One message to or from `peer` (a rank of the group): its spans one after the other. The two ends agree on
// the total number of bytes, not on how it is cut into spans.
struct Transfer {
  int peer = 0;
  std::vector<Span> spans;
  int64_t bytes() const;
};

// How far a communicator is, for whoever watches from outside (heartbeats). Sequence numbers count
// operations.
struct CommProgress {
  std::string group;  // "world", "ring", ...
  int64_t entered = 0;
  int64_t finished = 0;
  int waiting_for_peer = -1;  // rank in the group, -1 where not waiting
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const std::string& name() const = 0;

  // All transfers at once: none waits for another. Several sends to one peer arrive in the order given.
  virtual void SendRecv(Stream& s, TrafficKey key, std::vector<Transfer> sends,
                        std::vector<Transfer> recvs) = 0;
  // recv holds size() blocks one after the other, block i of bytes[i]; send is this rank's block (may be its
  // place in recv).
  virtual void AllGather(Stream& s, TrafficKey key, const void* send, const std::vector<int64_t>& bytes,
                         void* recv) = 0;
  // sends[i] goes to rank i, recvs[i] comes from rank i (sizes may differ for every pair). sends[rank()] is
  // copied.
  virtual void AllToAll(Stream& s, TrafficKey key, std::vector<std::vector<Span>> sends,
                        std::vector<std::vector<Span>> recvs) = 0;
  // Rows of `in` are cut in size() blocks of rows[i]; out (rows[rank()] rows) = sum over ranks of their block
  // rank(), in float32 in rank order, rounded once. `in` is contiguous. out may alias the own block of `in`.
  virtual void ReduceScatter(Stream& s, TrafficKey key, const Matrix& in, const std::vector<int64_t>& rows,
                             const Matrix& out) = 0;
  // In place, float32, summed in rank order: equal bits on every rank.
  virtual void AllReduce(Stream& s, TrafficKey key, float* data, int64_t count) = 0;
  virtual void Broadcast(Stream& s, TrafficKey key, int root, void* data, int64_t bytes) = 0;
  // No rank's stream passes before all have entered.
  virtual void Barrier(Stream& s) = 0;

  // A sub-group: ranks that give the same color >= 0, ordered by (key, rank). color < 0 takes no part and
  // gets null. Called by all ranks of this group with nothing outstanding; blocks. `name` is for errors and
  // progress.
  virtual absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key,
                                                              const std::string& name) = 0;

  // From any thread, also on behalf of a dead peer: everything that waits in this communicator and every
  // communicator split from the same world fails with `why` within 100 ms, and so does everything later. The
  // first status stays.
  virtual void Abort(const absl::Status& why) = 0;
  // From any thread.
  virtual CommProgress progress() const = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_COMM_COMMUNICATOR_H_
