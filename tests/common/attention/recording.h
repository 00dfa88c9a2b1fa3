// What a rank enqueues, and what of it must have happened before what: streams and a communicator that take
// notes and do nothing. Pure: no thread, no clock.
#ifndef SEQPAR_TESTS_COMMON_ATTENTION_RECORDING_H_
#define SEQPAR_TESTS_COMMON_ATTENTION_RECORDING_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/comm/communicator.h"
#include "common/device/stream.h"

namespace seqpar {

// For each stream, how many of its operations have happened.
using StreamClock = std::map<const Stream*, int64_t>;

struct RecordedOperation {
  enum class Kind { kExchange, kTile } kind;
  const Stream* stream = nullptr;
  int64_t place = 0;                // in its stream, from 0
  std::vector<Span> reads, writes;  // memory
  StreamClock before;               // what has happened when it begins
};

// In the order of enqueueing. Outlives the streams and communicators that it makes.
class Recording {
 public:
  std::unique_ptr<Stream> MakeStream();
  // Of which only SendRecv and AllToAll may be used. Their spans are read or written by the exchange.
  std::unique_ptr<Communicator> MakeCommunicator(int rank, int size);

  void Add(RecordedOperation::Kind kind, const Stream& stream, std::vector<Span> reads,
           std::vector<Span> writes);
  const std::vector<RecordedOperation>& operations() const { return operations_; }

  // Whether the streams and their events guarantee that `a` has happened when `b` begins.
  static bool Before(const RecordedOperation& a, const RecordedOperation& b);
  static bool Concurrent(const RecordedOperation& a, const RecordedOperation& b) {
    return !Before(a, b) && !Before(b, a);
  }

 private:
  friend class RecordingStream;
  std::map<const Stream*, StreamClock> clocks_;
  std::vector<RecordedOperation> operations_;
};

// Whether any byte is in both.
bool Overlap(const std::vector<Span>& a, const std::vector<Span>& b);

}  // namespace seqpar

#endif  // SEQPAR_TESTS_COMMON_ATTENTION_RECORDING_H_
