#include "common/comm/communicator.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <thread>
#include <vector>

namespace seqpar {
namespace {

TEST(TrafficCounterTest, AddsUpFromManyThreads) {
  TrafficCounter counter;
  const TrafficKey ring{Operation::kRing, Pass::kForward}, back{Operation::kRing, Pass::kBackward};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 1000; ++n) counter.Add(n % 2 == 0 ? ring : back, 1, 3, 1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto counts = counter.Snapshot();
  ASSERT_EQ(counts.size(), 2u);
  EXPECT_EQ(counts.at(ring).bytes, 6000);
  EXPECT_EQ(counts.at(ring).messages, 2000);
  EXPECT_EQ(counts.at(back).messages, 2000);
}

TEST(TrafficCounterTest, TellsLinksApartByThePeersRankInTheWorld) {
  TrafficCounter counter({Link::kLocal, Link::kLocal, Link::kNetwork});
  const TrafficKey ring{Operation::kRing, Pass::kForward}, back{Operation::kRing, Pass::kBackward};
  counter.Add(ring, 1, 10, 1);
  counter.Add(ring, 2, 100, 1);
  counter.Add(back, 2, 1000, 2);
  EXPECT_EQ(counter.Snapshot().at(ring).bytes, 110);
  const auto links = counter.ByLink();
  ASSERT_EQ(links.size(), 2u);
  EXPECT_EQ(links.at({Operation::kRing, Link::kLocal}).bytes, 10);
  EXPECT_EQ(links.at({Operation::kRing, Link::kNetwork}).bytes, 1100);
  EXPECT_EQ(links.at({Operation::kRing, Link::kNetwork}).messages, 3);
}

TEST(OperationNameTest, NamesAreThoseOfReportsAndDistinct) {
  std::set<std::string> names;
  for (int op = 0; op <= static_cast<int>(Operation::kControl); ++op)
    names.insert(OperationName(static_cast<Operation>(op)));
  EXPECT_EQ(names, (std::set<std::string>{"tensor_attention", "tensor_mlp", "ulysses", "ring", "gather",
                                          "weight_gradients", "verify", "control"}));
  EXPECT_STREQ(PassName(Pass::kForward), "forward");
  EXPECT_STREQ(PassName(Pass::kBackward), "backward");
}

TEST(TransferTest, CountsTheBytesOfAllSpans) {
  EXPECT_EQ((Transfer{1, {Span{nullptr, 3}, Span{nullptr, 0}, Span{nullptr, 4}}}.bytes()), 7);
  EXPECT_EQ(Transfer{}.bytes(), 0);
}

}  // namespace
}  // namespace seqpar
