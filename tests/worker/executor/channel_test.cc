#include "worker/executor/channel.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <thread>

namespace seqpar {
namespace {

std::string FrameOf(const std::string& data) {
  v1::FromExecutor message;
  message.mutable_blob()->set_data(data);
  return *EncodeFrame(message);
}

std::string DataOf(const std::string& payload) {
  v1::FromExecutor message;
  EXPECT_TRUE(message.ParseFromString(payload));
  return message.blob().data();
}

TEST(FrameDecoderTest, FindsFramesHoweverTheBytesAreCut) {
  const std::string bytes = FrameOf("one") + FrameOf("") + FrameOf(std::string(1000, 'x'));
  for (size_t piece : {size_t{1}, size_t{3}, size_t{7}, bytes.size()}) {
    FrameDecoder decoder;
    std::vector<std::string> found;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      decoder.Feed(bytes.data() + at, std::min(piece, bytes.size() - at));
      while (true) {
        const auto next = decoder.Next();
        ASSERT_TRUE(next.ok());
        if (!next->has_value()) break;
        found.push_back(DataOf(**next));
      }
    }
    EXPECT_EQ(found, (std::vector<std::string>{"one", "", std::string(1000, 'x')}))
        << "in pieces of " << piece;
  }
}

TEST(FrameDecoderTest, RefusesALengthThatNoMessageHas) {
  FrameDecoder decoder;
  decoder.Feed("\xff\xff\xff\xff", 4);
  EXPECT_EQ(decoder.Next().status().code(), absl::StatusCode::kDataLoss);
}

class ExecutorChannelTest : public ::testing::Test {
 protected:
  ExecutorChannelTest() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    daemon_.Reset(ends[0]);
    channel_ = std::make_unique<ExecutorChannel>(UniqueFd(ends[1]));
  }
  UniqueFd daemon_;
  std::unique_ptr<ExecutorChannel> channel_;
};

TEST_F(ExecutorChannelTest, CarriesMessagesBothWays) {
  v1::ToExecutor down;
  down.mutable_lease()->set_deadline_us(42);
  const std::string frame = *EncodeFrame(down);
  ASSERT_EQ(send(daemon_.get(), frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
  const auto received = channel_->Receive();
  ASSERT_TRUE(received.ok());
  EXPECT_EQ(received->lease().deadline_us(), 42);

  // Larger than the socket's buffer: goes out in parts.
  v1::FromExecutor up;
  up.mutable_blob()->set_data(std::string(3 << 20, 'b'));
  std::thread sender([&] { EXPECT_TRUE(channel_->Send(up).ok()); });
  FrameDecoder decoder;
  std::optional<std::string> payload;
  while (!payload.has_value()) {
    char buffer[65536];
    const ssize_t n = recv(daemon_.get(), buffer, sizeof(buffer), 0);
    ASSERT_GT(n, 0);
    decoder.Feed(buffer, static_cast<size_t>(n));
    payload = *decoder.Next();
  }
  sender.join();
  EXPECT_EQ(DataOf(*payload), up.blob().data());
}

TEST_F(ExecutorChannelTest, ADaemonThatIsGoneIsUnavailable) {
  daemon_.Reset();
  EXPECT_EQ(channel_->Receive().status().code(), absl::StatusCode::kUnavailable);
  v1::FromExecutor up;
  up.mutable_blob()->set_data("x");
  EXPECT_EQ(channel_->Send(up).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace seqpar
