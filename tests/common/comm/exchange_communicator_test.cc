// What is specific to the collectives over an endpoint: their scratch, and what they ask the endpoint for.
#include "common/comm/exchange_communicator.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "common/base/status.h"
#include "common/comm/in_process.h"
#include "worker/device/cpu/cpu_device.h"

namespace seqpar {
namespace {

constexpr TrafficKey kKey{Operation::kWeightGradients, Pass::kBackward};

std::unique_ptr<Device> MakeDevice(int64_t memory_bytes) {
  CpuDeviceConfig config;
  config.memory_bytes = memory_bytes;
  return MakeCpuDevice(config).value();
}

// Records what it is asked for; everything it receives is zero.
class RecordingEndpoint : public Endpoint {
 public:
  explicit RecordingEndpoint(int size) : size_(size) {}
  int world_rank() const override { return 1; }
  int world_size() const override { return size_; }
  absl::Status Exchange(uint32_t channel, const std::vector<Transfer>& sends,
                        const std::vector<Transfer>& recvs, std::atomic<int>* waiting_for) override {
    exchanges.push_back({channel, sends, recvs});
    return fail;
  }
  void Abort(const absl::Status& why) override { aborts.push_back(why); }

  struct Call {
    uint32_t channel;
    std::vector<Transfer> sends, recvs;
  };
  std::vector<Call> exchanges;
  std::vector<absl::Status> aborts;
  absl::Status fail;

 private:
  const int size_;
};

TEST(ExchangeCommunicatorTest, AsksForNothingThatIsEmpty) {
  const auto device = MakeDevice(0);
  const auto endpoint = std::make_shared<RecordingEndpoint>(3);
  const auto comm = MakeExchangeCommunicator(endpoint, device.get(), nullptr);
  const auto stream = device->CreateStream("test");
  std::vector<char> memory(30);
  comm->AllGather(*stream, kKey, memory.data(), {0, 10, 20}, memory.data());
  ASSERT_TRUE(stream->Synchronize().ok());
  ASSERT_EQ(endpoint->exchanges.size(), 1u);
  EXPECT_EQ(endpoint->exchanges[0].sends.size(), 2u);
  ASSERT_EQ(endpoint->exchanges[0].recvs.size(), 1u);  // rank 0 has nothing
  EXPECT_EQ(endpoint->exchanges[0].recvs[0].peer, 2);
}

TEST(ExchangeCommunicatorTest, FailureNamesOperationGroupAndRank) {
  const auto device = MakeDevice(0);
  const auto endpoint = std::make_shared<RecordingEndpoint>(3);
  endpoint->fail = MakeError(absl::StatusCode::kUnavailable, reason::kPeerLost, "lost rank 2");
  const auto comm = MakeExchangeCommunicator(endpoint, device.get(), nullptr);
  const auto stream = device->CreateStream("test");
  int value = 0;
  comm->Broadcast(*stream, kKey, 2, &value, sizeof(value));
  const absl::Status status = stream->Synchronize();
  EXPECT_EQ(ReasonOf(status), reason::kPeerLost);
  EXPECT_EQ(status.message(), "broadcast in group world (rank 1 of 3): lost rank 2");
  EXPECT_EQ(comm->progress().entered, 1);
  EXPECT_EQ(comm->progress().finished, 0);
}

TEST(ExchangeCommunicatorTest, FirstAbortReachesTheEndpoint) {
  const auto device = MakeDevice(0);
  const auto endpoint = std::make_shared<RecordingEndpoint>(2);
  const auto comm = MakeExchangeCommunicator(endpoint, device.get(), nullptr);
  comm->Abort(absl::AbortedError("first"));
  comm->Abort(absl::AbortedError("second"));
  for (const absl::Status& status : endpoint->aborts) EXPECT_EQ(status, absl::AbortedError("first"));
  EXPECT_EQ(endpoint->aborts.size(), 2u);
}

TEST(ExchangeCommunicatorTest, ScratchIsKeptAndGrownNotAddedTo) {
  const auto world = MakeInProcessWorld(2);
  const auto run = [&](int rank) {
    const auto device = MakeDevice(0);
    const auto comm = MakeExchangeCommunicator(world[rank], device.get(), nullptr);
    const auto stream = device->CreateStream("test");
    std::vector<float> data(20'000, 1);
    const auto sum = [&](int64_t count) {
      comm->AllReduce(*stream, kKey, data.data(), count);
      EXPECT_TRUE(stream->Synchronize().ok());
      return device->memory().used_bytes;
    };
    const int64_t large = sum(20'000);
    EXPECT_GE(large, 40'000);
    EXPECT_EQ(sum(100), large);
    EXPECT_EQ(sum(20'000), large);
    // Grown while the operation before is enqueued.
    comm->AllReduce(*stream, kKey, data.data(), 10);
    std::vector<float> more(40'000, 1);
    comm->AllReduce(*stream, kKey, more.data(), 40'000);
    EXPECT_TRUE(stream->Synchronize().ok());
    EXPECT_EQ(more, std::vector<float>(40'000, 2));
    EXPECT_LT(device->memory().used_bytes, large + 80'000);
  };
  std::thread other([&] { run(1); });
  run(0);
  other.join();
}

TEST(ExchangeCommunicatorTest, RefusedScratchFailsTheStreamWithItsStatus) {
  const auto world = MakeInProcessWorld(2);
  const auto device = MakeDevice(1 << 16);
  const auto comm = MakeExchangeCommunicator(world[0], device.get(), nullptr);
  const auto stream = device->CreateStream("test");
  std::vector<float> data(1 << 20);
  comm->AllReduce(*stream, kKey, data.data(), 1 << 20);
  const absl::Status status = stream->Synchronize();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), reason::kOutOfMemory);
}

TEST(ExchangeCommunicatorTest, OperationsOutliveTheirCommunicator) {
  const auto world = MakeInProcessWorld(2);
  const auto run = [&](int rank) {
    const auto device = MakeDevice(0);
    const auto stream = device->CreateStream("test");
    std::vector<float> data(1000, 3);
    MakeExchangeCommunicator(world[rank], device.get(), nullptr)->AllReduce(*stream, kKey, data.data(), 1000);
    EXPECT_TRUE(stream->Synchronize().ok());
    EXPECT_EQ(data, std::vector<float>(1000, 6));
  };
  std::thread other([&] { run(1); });
  run(0);
  other.join();
}

}  // namespace
}  // namespace seqpar
