// What workers have sent and the engine has not come to yet. Their streams are all that can make it long:
// clients wait for an answer in a pool that is bounded, and work that was given away answers once.
#ifndef SEQPAR_COORDINATOR_ENGINE_BACKLOG_H_
#define SEQPAR_COORDINATOR_ENGINE_BACKLOG_H_

#include <cstdint>
#include <map>

#include "absl/status/status.h"
#include "common/base/mutex.h"

namespace seqpar {

struct BacklogLimits {
  // Of one stream: many times what a worker keeps to send again, which comes at once on a new one.
  int64_t stream_messages = 4096, stream_bytes = int64_t{64} << 20;
  // Of all: several times what a thousand nodes say while a disk stands still for a lease.
  int64_t messages = 65'536, bytes = int64_t{512} << 20;
};

// Thread-safe.
class Backlog {
 public:
  explicit Backlog(const BacklogLimits& limits) : limits_(limits) {}

  // Takes a message in. RESOURCE_EXHAUSTED (OVERLOADED), with a time after which to try again, where its
  // stream or all of them have too much waiting. A heartbeat is held against its stream's limits alone: what
  // others send costs no node its lease.
  absl::Status Enter(int64_t stream, int64_t bytes, bool heartbeat);
  // A message that was taken in has been handled.
  void Leave(int64_t stream, int64_t bytes);

 private:
  struct Use {
    int64_t messages = 0, bytes = 0;
    void Add(int64_t more_messages, int64_t more_bytes) {
      messages += more_messages;
      bytes += more_bytes;
    }
  };

  const BacklogLimits limits_;
  Mutex mutex_;
  Use all_ ABSL_GUARDED_BY(mutex_);
  std::map<int64_t, Use> streams_ ABSL_GUARDED_BY(mutex_);  // of those that have something waiting
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_ENGINE_BACKLOG_H_
