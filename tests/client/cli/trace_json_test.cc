#include "client/cli/trace_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using Json = nlohmann::json;

// Builds a rank's chunk span by span.
class ChunkBuilder {
 public:
  ChunkBuilder(int rank, const std::string& device, int64_t number) {
    chunk_.set_rank(rank);
    chunk_.set_device(device);
    chunk_.set_number(number);
    chunk_.set_attempt(1);
  }

  int Activity(v1::TraceActivityKind kind, const std::string& name, const std::string& pass = "",
               int layer = 0) {
    v1::TraceActivity* activity = chunk_.add_activities();
    activity->set_kind(kind);
    activity->set_name(name);
    activity->set_phase("execute");
    activity->set_pass(pass);
    if (!pass.empty()) activity->set_layer(layer);
    return chunk_.activities_size() - 1;
  }
  ChunkBuilder& Span(const std::string& track, int64_t begin_ns, int64_t end_ns, int activity) {
    v1::TraceTrack* to = nullptr;
    for (v1::TraceTrack& t : *chunk_.mutable_tracks()) {
      if (t.name() == track) to = &t;
    }
    if (to == nullptr) {
      to = chunk_.add_tracks();
      to->set_name(track);
      to->set_base_ns(begin_ns);
      ends_[track] = begin_ns;
    }
    to->add_gap_ns(begin_ns - ends_[track]);
    to->add_duration_ns(end_ns - begin_ns);
    to->add_activity(activity);
    ends_[track] = end_ns;
    return *this;
  }
  ChunkBuilder& Clock(int64_t offset_ns, int64_t bound_ns) {
    chunk_.mutable_clock()->set_known(true);
    chunk_.mutable_clock()->set_offset_ns(offset_ns);
    chunk_.mutable_clock()->set_bound_ns(bound_ns);
    return *this;
  }
  ChunkBuilder& Dropped(int activity, int64_t spans, int64_t duration_ns) {
    v1::TraceDropped* dropped = chunk_.add_dropped();
    dropped->set_activity(activity);
    dropped->set_spans(spans);
    dropped->set_duration_ns(duration_ns);
    return *this;
  }
  const v1::TraceChunk& chunk() const { return chunk_; }

 private:
  v1::TraceChunk chunk_;
  std::map<std::string, int64_t> ends_;
};

v1::Job SomeJob() {
  v1::Job job;
  job.set_id("j-1");
  job.set_name("a \"quoted\" \xff name");
  job.set_state(v1::JOB_STATE_SUCCEEDED);
  return job;
}

std::vector<Json> Slices(const Json& trace) {
  std::vector<Json> slices;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] == "X") slices.push_back(event);
  }
  return slices;
}

TEST(TraceJson, TimesAreFromTheFirstSliceOnAndNamedInFull) {
  ChunkBuilder rank(3, "node-a/1", 0);
  const int product = rank.Activity(v1::TRACE_ACTIVITY_KIND_COMPUTE, "products", "forward", 2);
  const int ring = rank.Activity(v1::TRACE_ACTIVITY_KIND_COMMUNICATION, "ring", "forward", 2);
  rank.Span("compute", 7'000'001'000, 7'000'003'500, product)
      .Span("communication", 7'000'001'234, 7'000'002'000, ring);
  const Json trace = Json::parse(TraceToJson(SomeJob(), 1, {rank.chunk()}));
  const std::vector<Json> slices = Slices(trace);
  ASSERT_EQ(slices.size(), 2u);
  EXPECT_EQ(slices[0]["name"], "products");
  EXPECT_EQ(slices[0]["cat"], "compute");
  EXPECT_EQ(slices[0]["pid"], 3);
  EXPECT_EQ(slices[0]["ts"], 0.0);
  EXPECT_EQ(slices[0]["dur"], 2.5);
  EXPECT_EQ(slices[0]["args"], (Json{{"phase", "execute"}, {"pass", "forward"}, {"layer", 2}}));
  EXPECT_EQ(slices[1]["ts"], 0.234);
  EXPECT_NE(slices[0]["tid"], slices[1]["tid"]);
  std::vector<std::string> names;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] == "M") names.push_back(event["args"]["name"]);
  }
  EXPECT_THAT(names, ElementsAre("rank 3 (node-a/1)", "phases", "compute", "communication"));
  EXPECT_EQ(trace["otherData"]["job"], "j-1");
  EXPECT_EQ(trace["otherData"]["state"], "succeeded");
  EXPECT_FALSE(trace["otherData"].contains("clock_bound_seconds"));  // not known
}

TEST(TraceJson, NodesAreMovedOntoOneClockByTheirBestEstimate) {
  ChunkBuilder early(0, "a/0", 0), later(0, "a/0", 1), sibling(1, "a/1", 0), other(2, "b/0", 0);
  for (ChunkBuilder* rank : {&early, &later, &sibling, &other}) {
    const int product = rank->Activity(v1::TRACE_ACTIVITY_KIND_COMPUTE, "products", "forward", 0);
    const int64_t begin = rank == &other ? 1'000'000 : rank == &later ? 50'000 : 10'000;
    rank->Span("compute", begin, begin + 1000, product);
  }
  early.Clock(500, 90'000);
  later.Clock(2000, 30'000);
  sibling.Clock(0, 400'000);
  other.Clock(-900'000, 70'000);
  const Json trace =
      Json::parse(TraceToJson(SomeJob(), 1, {other.chunk(), later.chunk(), sibling.chunk(), early.chunk()}));
  std::map<int, std::vector<double>> begins;
  for (const Json& slice : Slices(trace)) begins[slice["pid"]].push_back(slice["ts"]);
  // On the coordinator's clock node a's first slices begin at 12'000 ns, its last at 52'000, node b's at
  // 100'000.
  EXPECT_THAT(begins[0], ElementsAre(0.0, 40.0));
  EXPECT_THAT(begins[1], ElementsAre(0.0));
  EXPECT_THAT(begins[2], ElementsAre(88.0));
  EXPECT_DOUBLE_EQ(trace["otherData"]["clock_bound_seconds"], 70e-6);
  EXPECT_DOUBLE_EQ(trace["otherData"]["ranks"][1]["clock_bound_seconds"], 30e-6);
}

TEST(TraceJson, SumsAreAsTheReportCountsThem) {
  ChunkBuilder rank(0, "a/0", 0);
  const auto add = [&](const std::string& pass, int layer, int64_t at, int64_t compute, int64_t exposed,
                       int64_t communicating) {
    const int product = rank.Activity(v1::TRACE_ACTIVITY_KIND_COMPUTE, "products", pass, layer);
    const int wait = rank.Activity(v1::TRACE_ACTIVITY_KIND_EXPOSED, "wait for communication", pass, layer);
    const int ring = rank.Activity(v1::TRACE_ACTIVITY_KIND_COMMUNICATION, "ring", pass, layer);
    const int idle = rank.Activity(v1::TRACE_ACTIVITY_KIND_IDLE, "wait for compute", pass, layer);
    rank.Span("compute", at, at + compute, product)
        .Span("compute", at + compute, at + compute + exposed, wait);
    rank.Span("communication", at, at + communicating, ring)
        .Span("communication", at + communicating, at + communicating + 5, idle);
  };
  add("forward", 0, 0, 100, 30, 70);      // 40 hidden
  add("forward", 1, 1000, 100, 50, 20);   // waited for less than it waited: nothing hidden
  add("", 0, 2000, 700, 70, 700);         // not counted
  add("backward", 1, 4000, 200, 10, 15);  // 5 hidden
  const Json about = Json::parse(TraceToJson(SomeJob(), 1, {rank.chunk()}))["otherData"]["ranks"][0];
  EXPECT_DOUBLE_EQ(about["compute_seconds"], 400e-9);
  EXPECT_DOUBLE_EQ(about["communication_exposed_seconds"], 90e-9);
  EXPECT_DOUBLE_EQ(about["communication_hidden_seconds"], 45e-9);
  EXPECT_EQ(about["truncated"], false);
}

TEST(TraceJson, WhatWasDroppedIsSaidAndCounted) {
  ChunkBuilder rank(0, "a/0", 0), third(0, "a/0", 2);
  const int product = rank.Activity(v1::TRACE_ACTIVITY_KIND_COMPUTE, "products", "forward", 0);
  const int ring = rank.Activity(v1::TRACE_ACTIVITY_KIND_COMMUNICATION, "ring", "forward", 0);
  rank.Span("compute", 0, 100, product).Dropped(product, 4, 400).Dropped(ring, 2, 60);
  const Json about = Json::parse(TraceToJson(SomeJob(), 1, {rank.chunk(), third.chunk()}))["otherData"];
  EXPECT_EQ(about["truncated"], true);
  EXPECT_EQ(about["ranks"][0]["dropped_slices"], 6);
  EXPECT_DOUBLE_EQ(about["ranks"][0]["dropped_seconds"], 460e-9);
  EXPECT_DOUBLE_EQ(about["ranks"][0]["compute_seconds"], 500e-9);
  EXPECT_DOUBLE_EQ(about["ranks"][0]["communication_hidden_seconds"], 60e-9);
  EXPECT_EQ(about["ranks"][0]["missing_pieces"], 1);
}

TEST(TraceJson, APhaseThatWasSentInPiecesIsOneSlice) {
  ChunkBuilder first(0, "a/0", 0), second(0, "a/0", 1);
  first.Span("phases", 0, 10'000, first.Activity(v1::TRACE_ACTIVITY_KIND_PHASE, "execute"));
  second.Span("phases", 10'000, 30'000, second.Activity(v1::TRACE_ACTIVITY_KIND_PHASE, "execute"));
  second.Span("phases", 30'000, 35'000, second.Activity(v1::TRACE_ACTIVITY_KIND_PHASE, "merge"));
  const std::vector<Json> slices =
      Slices(Json::parse(TraceToJson(SomeJob(), 1, {first.chunk(), second.chunk()})));
  ASSERT_EQ(slices.size(), 2u);
  EXPECT_EQ(slices[0]["dur"], 30.0);
  EXPECT_EQ(slices[1]["name"], "merge");
}

// Whatever the spans: slices in order, none over another, each as long as it was.
TEST(TraceJson, SlicesOfATrackDoNotOverlap) {
  std::minstd_rand random(3);
  std::uniform_int_distribution<int64_t> lengths(0, 5'000'000);
  std::vector<v1::TraceChunk> chunks;
  double want_us = 0;
  for (int r = 0; r < 3; ++r) {
    int64_t at = 1'000'000'000'000 + lengths(random);
    for (int number = 0; number < 4; ++number) {
      ChunkBuilder rank(r, r < 2 ? "a/0" : "b/0", number);
      rank.Clock(lengths(random), lengths(random));
      const int product = rank.Activity(v1::TRACE_ACTIVITY_KIND_COMPUTE, "products", "forward", number);
      for (int i = 0; i < 200; ++i) {
        const int64_t begin = at + lengths(random) % 3;
        at = begin + lengths(random);
        want_us += static_cast<double>(at - begin) * 1e-3;
        rank.Span("compute", begin, at, product);
      }
      chunks.push_back(rank.chunk());
    }
  }
  const std::vector<Json> slices = Slices(Json::parse(TraceToJson(SomeJob(), 1, chunks)));
  ASSERT_EQ(slices.size(), 3u * 4 * 200);
  std::map<int, int64_t> ends;  // in nanoseconds
  double got_us = 0;
  for (const Json& slice : slices) {
    const int64_t begin = std::llround(slice["ts"].get<double>() * 1e3);
    const int64_t length = std::llround(slice["dur"].get<double>() * 1e3);
    ASSERT_GE(begin, ends[slice["pid"]]);
    ends[slice["pid"]] = begin + length;
    got_us += slice["dur"].get<double>();
  }
  EXPECT_NEAR(got_us, want_us, 1e-6 * want_us);
}

TEST(TraceJson, WithoutChunksItIsAFileWithoutSlices) {
  const Json trace = Json::parse(TraceToJson(SomeJob(), 1, {}));
  EXPECT_TRUE(trace["traceEvents"].empty());
  EXPECT_TRUE(trace["otherData"]["ranks"].empty());
}

}  // namespace
}  // namespace seqpar
