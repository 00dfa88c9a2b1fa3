#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/comm/measure_link.h"
#include "tests/conformance/communicator_world.h"

namespace seqpar {
namespace {

using MeasureLinkConformance = CommunicatorConformance;

TEST_P(MeasureLinkConformance, EveryRankGetsTheSameFigures) {
  std::vector<MeasuredLink> links(size());
  RunRanks(world_, [&](RankWorld& rank) {
    const auto link = MeasureLink(*rank.device, *rank.comm, *rank.second_stream, *rank.stream);
    ASSERT_TRUE(link.ok()) << link.status();
    links[rank.rank()] = *link;
  });
  for (const MeasuredLink& link : links) {
    EXPECT_GT(link.latency, 0);
    EXPECT_GT(link.bandwidth, 0);
    EXPECT_TRUE(std::isfinite(link.bandwidth));
    EXPECT_EQ(link.latency, links[0].latency) << "what they decide by it, they must decide alike";
    EXPECT_EQ(link.bandwidth, links[0].bandwidth);
  }
}

TEST_P(MeasureLinkConformance, TakesNoMoreThanItMay) {
  LinkEffort effort;
  effort.from_bytes = 4 << 10;
  effort.to_bytes = 24 << 10;
  effort.seconds = 0.05;
  std::vector<MeasuredLink> links(size());
  RunRanks(world_, [&](RankWorld& rank) {
    const int64_t before = rank.device->memory().used_bytes;
    rank.device->ResetPeak();
    const auto link = MeasureLink(*rank.device, *rank.comm, *rank.second_stream, *rank.stream, effort);
    ASSERT_TRUE(link.ok()) << link.status();
    links[rank.rank()] = *link;
    // Two messages, and a little beside them.
    EXPECT_LE(rank.device->memory().peak_bytes - before, 3 * effort.to_bytes);
  });
  for (const MeasuredLink& link : links) {
    EXPECT_GT(link.bandwidth, 0);
    EXPECT_EQ(link.latency, links[0].latency);
    EXPECT_EQ(link.bandwidth, links[0].bandwidth);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, MeasureLinkConformance,
                         testing::Combine(testing::Range(0, static_cast<int>(CommunicatorBackends().size())),
                                          testing::Range(2, 4)),
                         ConformanceName);

}  // namespace
}  // namespace seqpar
