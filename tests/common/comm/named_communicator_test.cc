#include "common/comm/named_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/comm/in_process.h"
#include "worker/device/cpu/cpu_device.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;

class Names : public StreamObserver {
 public:
  void Happened(const StreamSpan& span) override { names.push_back(span.name == nullptr ? "" : span.name); }
  std::vector<std::string> names;
};

TEST(NamedCommunicator, OperationsAreCalledByWhatTheyAreForInSplitGroupsToo) {
  const std::vector<std::string> want = {"gather", "ring", "barrier", "ulysses", ""};
  std::vector<std::shared_ptr<Endpoint>> endpoints = MakeInProcessWorld(2);
  std::vector<Names> names(2);
  std::vector<std::thread> ranks;
  std::vector<absl::Status> statuses(2);
  std::vector<int> colors(2);
  for (int r = 0; r < 2; ++r) {
    ranks.emplace_back([&, r] {
      const std::unique_ptr<Device> device = *MakeCpuDevice(CpuDeviceConfig());
      const std::unique_ptr<Communicator> world =
          MakeNamedCommunicator(MakeExchangeCommunicator(endpoints[r], device.get(), nullptr));
      const std::unique_ptr<Stream> stream = device->CreateStream("comm");
      stream->Observe(&names[r]);
      auto group = world->Split(0, r, "pair");
      ASSERT_TRUE(group.ok());
      EXPECT_EQ((*group)->name(), "pair");
      EXPECT_EQ(*world->Split(r == 0 ? -1 : 0, r, "alone") == nullptr, r == 0);
      char mine = static_cast<char>(r), all[2] = {9, 9}, other = 9;
      world->AllGather(*stream, {Operation::kGather, Pass::kForward}, &mine, {1, 1}, all);
      world->SendRecv(*stream, {Operation::kRing, Pass::kBackward}, {{1 - r, {{&mine, 1}}}},
                      {{1 - r, {{&other, 1}}}});
      world->Barrier(*stream);
      (*group)->Broadcast(*stream, {Operation::kUlysses, Pass::kForward}, 0, &all[0], 1);
      stream->HostFunction([] { return absl::OkStatus(); });
      statuses[r] = stream->Synchronize();
      EXPECT_EQ(all[1], 1);
      EXPECT_EQ(other, 1 - r);
    });
  }
  for (std::thread& rank : ranks) rank.join();
  for (int r = 0; r < 2; ++r) {
    EXPECT_TRUE(statuses[r].ok()) << statuses[r];
    EXPECT_EQ(names[r].names, want);
  }
}

}  // namespace
}  // namespace seqpar
