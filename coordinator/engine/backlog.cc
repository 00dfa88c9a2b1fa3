#include "coordinator/engine/backlog.h"

#include "absl/strings/str_cat.h"
#include "common/base/retry.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr int kRetrySeconds = 1;

absl::Status Full(const char* whose, int64_t messages, int64_t bytes) {
  return WithRetry(MakeError(absl::StatusCode::kResourceExhausted, reason::kOverloaded,
                             absl::StrCat("the coordinator has not come to ", messages, " messages of ",
                                          whose, " yet, ", bytes, " bytes")),
                   kRetrySeconds);
}

}  // namespace

absl::Status Backlog::Enter(int64_t stream, int64_t bytes, bool heartbeat) {
  MutexLock lock(mutex_);
  const auto found = streams_.find(stream);
  const Use own = found == streams_.end() ? Use() : found->second;
  if (own.messages >= limits_.stream_messages || own.bytes + bytes > limits_.stream_bytes) {
    return Full("this worker", own.messages, own.bytes);
  }
  if (!heartbeat && (all_.messages >= limits_.messages || all_.bytes + bytes > limits_.bytes)) {
    return Full("all workers", all_.messages, all_.bytes);
  }
  streams_[stream].Add(1, bytes);
  all_.Add(1, bytes);
  return absl::OkStatus();
}

void Backlog::Leave(int64_t stream, int64_t bytes) {
  MutexLock lock(mutex_);
  all_.Add(-1, -bytes);
  const auto own = streams_.find(stream);
  own->second.Add(-1, -bytes);
  if (own->second.messages == 0) streams_.erase(own);
}

}  // namespace seqpar
