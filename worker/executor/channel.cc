#include "worker/executor/channel.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr size_t kLengthBytes = 4;

uint32_t ReadLength(const char* bytes) {
  uint32_t length = 0;
  for (int i = 3; i >= 0; --i) length = length << 8 | static_cast<unsigned char>(bytes[i]);
  return length;
}

absl::Status DaemonGone(const std::string& how) {
  return MakeError(absl::StatusCode::kUnavailable, reason::kRankLost,
                   absl::StrCat("the daemon is gone: ", how));
}

}  // namespace

absl::StatusOr<std::string> EncodeFrame(const google::protobuf::MessageLite& message) {
  const size_t length = message.ByteSizeLong();
  if (length > kFrameBytesMax) {
    return MakeError(absl::StatusCode::kResourceExhausted, reason::kInternal,
                     absl::StrCat("a message of ", length, " bytes exceeds the channel's ", kFrameBytesMax));
  }
  std::string frame(kLengthBytes, '\0');
  for (size_t i = 0; i < kLengthBytes; ++i) frame[i] = static_cast<char>(length >> (8 * i) & 0xff);
  message.AppendToString(&frame);
  return frame;
}

absl::StatusOr<std::optional<std::string>> FrameDecoder::Next() {
  if (pending_.size() - begin_ < kLengthBytes) return std::optional<std::string>();
  const uint32_t length = ReadLength(pending_.data() + begin_);
  if (length > kFrameBytesMax) {
    return absl::DataLossError(absl::StrCat("a frame claims ", length, " bytes: the channel is corrupt"));
  }
  if (pending_.size() - begin_ - kLengthBytes < length) return std::optional<std::string>();
  std::string payload = pending_.substr(begin_ + kLengthBytes, length);
  begin_ += kLengthBytes + length;
  if (begin_ > pending_.size() / 2) {  // each byte moves once at most on average
    pending_.erase(0, begin_);
    begin_ = 0;
  }
  return std::optional<std::string>(std::move(payload));
}

absl::Status ExecutorChannel::Send(const v1::FromExecutor& message) {
  SEQPAR_ASSIGN_OR_RETURN(const std::string frame, EncodeFrame(message));
  MutexLock lock(send_mutex_);
  for (size_t sent = 0; sent < frame.size();) {
    const ssize_t n = send(fd_.get(), frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return DaemonGone(std::strerror(errno));
    sent += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::ToExecutor> ExecutorChannel::Receive() {
  while (true) {
    SEQPAR_ASSIGN_OR_RETURN(std::optional<std::string> payload, decoder_.Next());
    if (payload.has_value()) {
      v1::ToExecutor message;
      if (!message.ParseFromString(*payload))
        return absl::DataLossError("a message of the daemon cannot be parsed");
      return message;
    }
    char buffer[16384];
    const ssize_t n = recv(fd_.get(), buffer, sizeof(buffer), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return DaemonGone(std::strerror(errno));
    if (n == 0) return DaemonGone("its end of the channel is closed");
    decoder_.Feed(buffer, static_cast<size_t>(n));
  }
}

}  // namespace seqpar
