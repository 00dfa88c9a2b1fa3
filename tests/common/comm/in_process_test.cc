#include "common/comm/in_process.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

Transfer To(int peer, std::vector<char>& memory) {
  return Transfer{peer, {Span{memory.data(), static_cast<int64_t>(memory.size())}}};
}

void WaitUntilWaitingFor(const std::atomic<int>& waiting_for, int rank) {
  while (waiting_for.load() != rank) std::this_thread::sleep_for(std::chrono::microseconds(100));
}

TEST(InProcessTest, DestroyedEndpointIsADeadPeer) {
  auto world = MakeInProcessWorld(3);
  std::vector<char> memory(10);
  std::atomic<int> receiver{-1}, sender{-1};
  absl::Status received, sent;
  std::thread zero([&] { received = world[0]->Exchange(5, {}, {To(2, memory)}, &receiver); });
  std::thread one([&] { sent = world[1]->Exchange(5, {To(2, memory)}, {}, &sender); });
  WaitUntilWaitingFor(receiver, 2);
  WaitUntilWaitingFor(sender, 2);
  world[2].reset();
  zero.join();
  one.join();
  for (const absl::Status& status : {received, sent}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(ReasonOf(status), reason::kPeerLost);
    EXPECT_TRUE(absl::StrContains(std::string(status.message()), "rank 2")) << status;
  }
  EXPECT_EQ(receiver.load(), -1);
  // Those that are left go on.
  std::atomic<int> a{-1}, b{-1};
  std::vector<char> out = {'h', 'i'}, in(2);
  std::thread again([&] { sent = world[1]->Exchange(5, {To(0, out)}, {}, &b); });
  EXPECT_TRUE(world[0]->Exchange(5, {}, {To(1, in)}, &a).ok());
  again.join();
  EXPECT_TRUE(sent.ok());
  EXPECT_EQ(in, out);
}

TEST(InProcessTest, AbortedRankIsLostToItsPeers) {
  auto world = MakeInProcessWorld(2);
  std::vector<char> memory(10);
  std::atomic<int> waiting{-1};
  absl::Status status;
  std::thread zero([&] { status = world[0]->Exchange(0, {}, {To(1, memory)}, &waiting); });
  WaitUntilWaitingFor(waiting, 1);
  world[1]->Abort(absl::CancelledError("stop"));
  zero.join();
  EXPECT_EQ(ReasonOf(status), reason::kPeerLost);
  EXPECT_EQ(world[1]->Exchange(0, {}, {}, &waiting), absl::CancelledError("stop"));
}

TEST(InProcessTest, ChannelsAreMatchedApart) {
  auto world = MakeInProcessWorld(2);
  std::vector<char> first = {'1'}, second = {'2'}, from_first(1), from_second(1);
  std::atomic<int> w[4] = {-1, -1, -1, -1};
  std::vector<std::thread> threads;
  const auto run = [&](int rank, uint32_t channel, const std::vector<Transfer>& sends,
                       const std::vector<Transfer>& recvs, std::atomic<int>* waiting) {
    threads.emplace_back(
        [=, &world] { EXPECT_TRUE(world[rank]->Exchange(channel, sends, recvs, waiting).ok()); });
  };
  run(0, 2, {}, {To(1, from_second)}, &w[0]);
  run(0, 1, {}, {To(1, from_first)}, &w[1]);
  run(1, 1, {To(0, first)}, {}, &w[2]);
  run(1, 2, {To(0, second)}, {}, &w[3]);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(from_first, first);
  EXPECT_EQ(from_second, second);
}

TEST(InProcessTest, SlowedLinkTakesItsTime) {
  // 2 x 50,000 bytes over one link of 10 MB/s cannot arrive in less than 10 ms; the link of the other way is
  // its own.
  auto world = MakeInProcessWorld(2, 1e7);
  std::vector<char> a(50'000, 'a'), b(50'000, 'b'), c(50'000), d(50'000), e(50'000, 'e'), f(50'000);
  std::atomic<int> w0{-1}, w1{-1};
  const auto begin = std::chrono::steady_clock::now();
  std::thread other([&] { EXPECT_TRUE(world[1]->Exchange(0, {To(0, e)}, {To(0, c), To(0, d)}, &w1).ok()); });
  EXPECT_TRUE(world[0]->Exchange(0, {To(1, a), To(1, b)}, {To(1, f)}, &w0).ok());
  other.join();
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(10));
  EXPECT_EQ(c, a);
  EXPECT_EQ(d, b);
  EXPECT_EQ(f, e);
}

}  // namespace
}  // namespace seqpar
