#include "worker/executor/trace_buffer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace seqpar {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kBootOffset = 5'000'000'000;
using Track = TraceBuffer::Track;

StreamSpan Busy(int64_t begin_ns, int64_t end_ns, WorkKind kind, const char* name = nullptr) {
  return {begin_ns, end_ns, false, kind, name};
}
StreamSpan Waiting(int64_t begin_ns, int64_t end_ns) {
  return {begin_ns, end_ns, true, WorkKind::kOther, nullptr};
}

// "compute attention execute forward 0 [100, 150)", in node time from the boot offset on.
std::vector<std::string> Told(const v1::TraceChunk& chunk) {
  std::vector<std::string> told;
  for (const v1::TraceTrack& track : chunk.tracks()) {
    int64_t at = track.base_ns() - kBootOffset;
    for (int i = 0; i < track.gap_ns_size(); ++i) {
      const v1::TraceActivity& activity = chunk.activities(track.activity(i));
      const int64_t begin = at + track.gap_ns(i);
      at = begin + track.duration_ns(i);
      std::string line = track.name() + ": " + activity.name() + " " + activity.phase();
      if (!activity.pass().empty()) line += " " + activity.pass() + " " + std::to_string(activity.layer());
      told.push_back(line + " [" + std::to_string(begin) + ", " + std::to_string(at) + ")");
    }
  }
  return told;
}

TEST(TraceBuffer, TellsWhatHappenedInWhichLayer) {
  TraceBuffer buffer(TraceLimits(), kBootOffset);
  buffer.EnterPhase("shard", 10);
  buffer.EnterPhase("execute", 100);
  buffer.EnterLayer("forward", 0);
  buffer.Add(Track::kCompute, Busy(110, 120, WorkKind::kProduct));
  buffer.Add(Track::kCommunication, Busy(112, 140, WorkKind::kOther, "ring"));
  buffer.Add(Track::kCompute, Waiting(120, 140));
  buffer.Add(Track::kCommunication, Waiting(140, 141));
  buffer.EnterLayer("forward", 1);
  buffer.Add(Track::kCompute, Busy(150, 160, WorkKind::kAttention));
  buffer.LeaveLayer();
  EXPECT_EQ(buffer.pending(), 6);
  const v1::TraceChunk chunk = *buffer.Take(200);
  EXPECT_THAT(Told(chunk),
              ElementsAre("compute: products execute forward 0 [110, 120)",
                          "compute: wait for communication execute forward 0 [120, 140)",
                          "compute: attention execute forward 1 [150, 160)",
                          "communication: ring execute forward 0 [112, 140)",
                          "communication: wait for compute execute forward 0 [140, 141)",
                          "phases: shard shard [10, 100)", "phases: execute execute [100, 200)"));
  EXPECT_EQ(chunk.number(), 0);
  EXPECT_EQ(chunk.activities(chunk.tracks(0).activity(1)).kind(), v1::TRACE_ACTIVITY_KIND_EXPOSED);
  EXPECT_EQ(chunk.activities(chunk.tracks(1).activity(1)).kind(), v1::TRACE_ACTIVITY_KIND_IDLE);
  EXPECT_EQ(chunk.dropped_size(), 0);
}

TEST(TraceBuffer, ChunksFollowEachOtherAndAnEmptyOneIsNone) {
  TraceBuffer buffer(TraceLimits(), kBootOffset);
  EXPECT_FALSE(buffer.Take(5).has_value());
  buffer.EnterPhase("execute", 10);
  EXPECT_THAT(Told(*buffer.Take(50)), ElementsAre("phases: execute execute [10, 50)"));
  buffer.EnterLayer("backward", 3);
  buffer.Add(Track::kCompute, Busy(60, 70, WorkKind::kPointwise));
  const v1::TraceChunk second = *buffer.Take(80);
  EXPECT_EQ(second.number(), 1);
  EXPECT_THAT(Told(second), ElementsAre("compute: pointwise execute backward 3 [60, 70)",
                                        "phases: execute execute [50, 80)"));
}

TEST(TraceBuffer, OutsideLayersOnlyLongSpansAreKept) {
  TraceBuffer buffer(TraceLimits(), kBootOffset);
  buffer.EnterPhase("merge", 0);
  buffer.Add(Track::kCompute, Busy(0, kMs - 1, WorkKind::kOther));
  buffer.Add(Track::kCompute, Busy(kMs, 3 * kMs, WorkKind::kOther));
  EXPECT_THAT(Told(*buffer.Take(3 * kMs)),
              ElementsAre("compute: other merge [1000000, 3000000)", "phases: merge merge [0, 3000000)"));
}

TEST(TraceBuffer, PastItsBoundSpansAreCountedByWhatTheyWere) {
  TraceLimits limits;
  limits.spans = 3;
  TraceBuffer buffer(limits, kBootOffset);
  buffer.EnterPhase("execute", 0);
  buffer.EnterLayer("forward", 0);
  for (int64_t i = 0; i < 2; ++i) buffer.Add(Track::kCompute, Busy(10 * i, 10 * i + 7, WorkKind::kProduct));
  ASSERT_TRUE(buffer.Take(100).has_value());
  // The bound is that of all chunks.
  for (int64_t i = 2; i < 6; ++i) buffer.Add(Track::kCompute, Busy(10 * i, 10 * i + 7, WorkKind::kProduct));
  buffer.Add(Track::kCompute, Waiting(67, 90));
  const v1::TraceChunk chunk = *buffer.Take(100);
  EXPECT_THAT(Told(chunk), ElementsAre("compute: products execute forward 0 [20, 27)"));
  ASSERT_EQ(chunk.dropped_size(), 2);
  EXPECT_EQ(chunk.activities(chunk.dropped(0).activity()).name(), "products");
  EXPECT_EQ(chunk.dropped(0).spans(), 3);
  EXPECT_EQ(chunk.dropped(0).duration_ns(), 21);
  EXPECT_EQ(chunk.activities(chunk.dropped(1).activity()).name(), "wait for communication");
  EXPECT_EQ(chunk.dropped(1).duration_ns(), 23);
}

TEST(TraceBuffer, AFullRankIsAboutAsLargeAsTheLimitsSay) {
  TraceBuffer buffer(TraceLimits(), kBootOffset);
  buffer.EnterPhase("execute", 0);
  int64_t at = 0;
  for (int i = 0; i < 40'000; ++i) {
    buffer.EnterLayer("forward", i / 400);
    buffer.Add(i % 2 == 0 ? Track::kCompute : Track::kCommunication,
               Busy(at, at + 80'000, WorkKind::kProduct));
    at += 100'000;
  }
  EXPECT_LT(buffer.Take(at)->ByteSizeLong(), 12u * TraceLimits().spans);
}

}  // namespace
}  // namespace seqpar
