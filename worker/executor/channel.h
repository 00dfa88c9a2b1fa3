// The private channel between a daemon and one of its executors: protobuf messages over a stream socket, each
// with its length before it (4 bytes, little endian).
#ifndef SEQPAR_WORKER_EXECUTOR_CHANNEL_H_
#define SEQPAR_WORKER_EXECUTOR_CHANNEL_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/fd.h"
#include "common/base/mutex.h"
#include "seqpar/v1/executor.pb.h"

namespace seqpar {

// Exit codes of an executor.
inline constexpr int kExitFinished = 0;
inline constexpr int kExitFailed = 1;  // said so on the channel before
inline constexpr int kExitUsage = 2;
inline constexpr int kExitOrphaned = 3;   // the daemon is gone
inline constexpr int kExitLeaseOver = 4;  // no heartbeat was answered in time

// Longer frames are refused: no plan comes near, a corrupt length does.
inline constexpr uint32_t kFrameBytesMax = 256u << 20;

// The message with its length before it. RESOURCE_EXHAUSTED above kFrameBytesMax.
absl::StatusOr<std::string> EncodeFrame(const google::protobuf::MessageLite& message);

// Turns a stream of bytes, cut anywhere, into frames. Not thread-safe.
class FrameDecoder {
 public:
  void Feed(const char* data, size_t bytes) { pending_.append(data, bytes); }
  // The payload of the next whole frame; none: more bytes are needed. DATA_LOSS for a length above
  // kFrameBytesMax, after which the stream cannot be read any more.
  absl::StatusOr<std::optional<std::string>> Next();

 private:
  std::string pending_;
  size_t begin_ = 0;  // what lies before it was returned already
};

// The executor's end. Send from any thread; Receive from one thread. Blocking.
class ExecutorChannel {
 public:
  explicit ExecutorChannel(UniqueFd fd) : fd_(std::move(fd)) {}
  // UNAVAILABLE where the daemon is gone.
  absl::Status Send(const v1::FromExecutor& message);
  // The next message. UNAVAILABLE at the end of the stream: the daemon is gone.
  absl::StatusOr<v1::ToExecutor> Receive();

 private:
  const UniqueFd fd_;
  Mutex send_mutex_;
  FrameDecoder decoder_;  // the receiving thread's
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_CHANNEL_H_
