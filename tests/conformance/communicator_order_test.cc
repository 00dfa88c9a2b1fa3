// Operations in flight, several communicators at once, splits, and what is counted.
#include <algorithm>
#include <vector>

#include "tests/conformance/communicator_world.h"

namespace seqpar {
namespace {

constexpr TrafficKey kRingKey{Operation::kRing, Pass::kForward};
constexpr TrafficKey kGradientKey{Operation::kWeightGradients, Pass::kBackward};

SEQPAR_INSTANTIATE_CONFORMANCE(1, 8);

// Enqueues: `value` goes around the ring of `comm`, one hop.
void Shift(Communicator& comm, Stream& stream, const OnDevice<int32_t>& from, const OnDevice<int32_t>& to) {
  if (comm.size() == 1) return;
  const int next = (comm.rank() + 1) % comm.size(), previous = (comm.rank() + comm.size() - 1) % comm.size();
  comm.SendRecv(stream, kRingKey, {{next, {from.all()}}}, {{previous, {to.all()}}});
}

TEST_P(CommunicatorConformance, ManyOperationsInFlightHappenInOrder) {
  RunRanks(world_, [](RankWorld& r) {
    if (r.size() == 1) return;
    const OnDevice<int32_t> a(r, std::vector<int32_t>(100, r.rank())), b(r, 100);
    const OnDevice<float> sum(r, std::vector<float>(7, 1));
    // An even number of hops, each sending what the one before it received.
    for (int hop = 0; hop < 100; ++hop) {
      Shift(*r.comm, *r.stream, hop % 2 == 0 ? a : b, hop % 2 == 0 ? b : a);
      if (hop % 50 == 0) r.comm->AllReduce(*r.stream, kGradientKey, sum.data(), 7);
      if (hop % 10 == 0) r.comm->Barrier(*r.stream);
    }
    const int origin = ((r.rank() - 100) % r.size() + r.size()) % r.size();
    EXPECT_EQ(a.Read(), std::vector<int32_t>(100, origin));
    EXPECT_EQ(sum.Read(), std::vector<float>(7, static_cast<float>(r.size() * r.size())));
    const CommProgress progress = r.comm->progress();
    EXPECT_EQ(progress.group, "world");
    EXPECT_EQ(progress.entered, 112);
    EXPECT_EQ(progress.finished, 112);
    EXPECT_EQ(progress.waiting_for_peer, -1);
  });
}

TEST_P(CommunicatorConformance, CommunicatorsOnTwoStreamsDoNotWaitForEachOther) {
  RunRanks(world_, [](RankWorld& r) {
    auto one = r.comm->Split(0, r.rank(), "one"), two = r.comm->Split(0, -r.rank(), "two");
    ASSERT_TRUE(one.ok()) << one.status();
    ASSERT_TRUE(two.ok()) << two.status();
    const OnDevice<int32_t> a(r, Count(100 * r.rank(), 50)), b(r, 50), c(r, Count(200 * r.rank(), 5000)),
        d(r, 5000);
    // Odd ranks reach the second group's operation only when the first group's have happened, even ones at
    // once: a transport that served one exchange at a time would hang.
    for (int i = 0; i < 20; ++i) {
      if (r.rank() % 2 == 1) r.second_stream->Wait(r.stream->Record());
      Shift(**two, *r.second_stream, c, d);
      Shift(**one, *r.stream, a, b);
    }
    ASSERT_TRUE(r.second_stream->Synchronize().ok());
    if (r.size() == 1) return;
    const int previous = (r.rank() + r.size() - 1) % r.size(), next = (r.rank() + 1) % r.size();
    EXPECT_EQ(b.Read(), Count(100 * previous, 50));
    EXPECT_EQ(d.Read(), Count(200 * next, 5000));  // the second group runs the other way round
  });
}

// The world ranks of a group, as its all-gather tells.
std::vector<int32_t> Members(RankWorld& r, Communicator& comm) {
  const OnDevice<int32_t> own(r, std::vector<int32_t>{r.rank()}), all(r, comm.size());
  comm.AllGather(*r.stream, TrafficKey{}, own.data(), std::vector<int64_t>(comm.size(), 4), all.data());
  return all.Read();
}

TEST_P(CommunicatorConformance, SplitsByColorAndOrdersByKey) {
  RunRanks(world_, [](RankWorld& r) {
    // Three colors, keys that turn the order round.
    const auto group = r.comm->Split(r.rank() % 3, -r.rank(), "turned");
    ASSERT_TRUE(group.ok()) << group.status();
    std::vector<int32_t> want;
    for (int rank = r.size() - 1; rank >= 0; --rank) {
      if (rank % 3 == r.rank() % 3) want.push_back(rank);
    }
    EXPECT_EQ((*group)->size(), static_cast<int>(want.size()));
    EXPECT_EQ(want[(*group)->rank()], r.rank());
    EXPECT_EQ((*group)->name(), "turned");
    EXPECT_EQ(Members(r, **group), want);
    // Equal keys: by rank.
    const auto same = r.comm->Split(7, 1, "same");
    ASSERT_TRUE(same.ok()) << same.status();
    EXPECT_EQ((*same)->rank(), r.rank());
  });
}

TEST_P(CommunicatorConformance, NegativeColorTakesNoPart) {
  RunRanks(world_, [](RankWorld& r) {
    const auto group = r.comm->Split(r.rank() == 0 ? -1 : 0, 0, "rest");
    ASSERT_TRUE(group.ok()) << group.status();
    if (r.rank() == 0) {
      EXPECT_EQ(*group, nullptr);
    } else {
      EXPECT_EQ(Members(r, **group).size(), static_cast<size_t>(r.size() - 1));
    }
    // The world works on, for both.
    EXPECT_EQ(Members(r, *r.comm).size(), static_cast<size_t>(r.size()));
  });
}

TEST_P(CommunicatorConformance, NestedSplitsAndAxesDoNotMix) {
  RunRanks(world_, [](RankWorld& r) {
    const int half = (r.size() + 1) / 2;
    const auto row = r.comm->Split(r.rank() / half, r.rank(), "row");
    const auto column = r.comm->Split(r.rank() % half, r.rank(), "column");
    ASSERT_TRUE(row.ok() && column.ok());
    const auto pair = (*row)->Split((*row)->rank() / 2, 0, "pair");
    ASSERT_TRUE(pair.ok());
    // All four in flight at once, in one order on every rank.
    const std::vector<Communicator*> groups = {r.comm.get(), row->get(), column->get(), pair->get()};
    std::vector<OnDevice<float>> sums;
    for (int i = 0; i < 4; ++i) sums.emplace_back(r, std::vector<float>(9, static_cast<float>(r.rank() + i)));
    for (int i = 0; i < 4; ++i) groups[i]->AllReduce(*r.stream, kGradientKey, sums[i].data(), 9);
    ASSERT_TRUE(r.stream->Synchronize().ok());
    for (int i = 0; i < 4; ++i) {
      float want = 0;
      for (const int32_t member : Members(r, *groups[i])) want += static_cast<float>(member + i);
      EXPECT_EQ(sums[i].Read(), std::vector<float>(9, want)) << groups[i]->name();
    }
    EXPECT_EQ((*pair)->size(), std::min(2, (*row)->size() - (*row)->rank() / 2 * 2));
  });
}

TEST_P(CommunicatorConformance, CountsExactlyWhatLeavesTheRank) {
  RunRanks(world_, [](RankWorld& r) {
    const int64_t g = r.size(), others = g - 1;
    const OnDevice<int32_t> data(r, 1000);
    // The second message is empty.
    const int next = (r.rank() + 1) % r.size(), previous = (r.rank() + r.size() - 1) % r.size();
    if (g > 1) {
      r.comm->SendRecv(*r.stream, kRingKey,
                       {{next, {data.span(0, 10), data.span(20, 25)}}, {next, {data.span(5, 5)}}},
                       {{previous, {data.span(100, 115)}}, {previous, {}}});
    }
    const int64_t ring_bytes = g > 1 ? 60 : 0, ring_messages = g > 1 ? 1 : 0;
    const OnDevice<float> sum(r, 10 * g);
    r.comm->AllReduce(*r.stream, kGradientKey, sum.data(), 10 * g);

    const TrafficKey gather_key{Operation::kGather, Pass::kBackward};
    std::vector<int64_t> bytes(r.size(), 8);
    bytes[0] = 0;
    r.comm->AllGather(*r.stream, gather_key, data.data() + 500, bytes, data.data());
    const int64_t gather_messages = r.rank() == 0 ? 0 : others;
    ASSERT_TRUE(r.stream->Synchronize().ok());

    const auto counted = r.traffic.Snapshot();
    const auto expect = [&](const TrafficKey& key, int64_t want_bytes, int64_t want_messages) {
      const auto found = counted.find(key);
      const Traffic got = found == counted.end() ? Traffic{} : found->second;
      EXPECT_EQ(got.bytes, want_bytes) << OperationName(key.operation);
      EXPECT_EQ(got.messages, want_messages) << OperationName(key.operation);
    };
    expect(kRingKey, ring_bytes, ring_messages);
    expect(kGradientKey, 2 * others * 10 * 4, 2 * others);
    expect(gather_key, 8 * gather_messages, gather_messages);
    expect(TrafficKey{}, 0, 0);
  });
}

}  // namespace
}  // namespace seqpar
