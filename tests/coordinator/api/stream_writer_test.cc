#include "coordinator/api/stream_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Text {
  Text(const char* text) : text(text) {}  // NOLINT(google-explicit-constructor)
  explicit Text(size_t bytes) : text(bytes, 'x') {}
  size_t ByteSizeLong() const { return text.size(); }
  std::string text;
};

// Notes what it is told to do; the test says when a write is done.
struct FakeReactor {
  void StartWrite(const Text* message) { told.push_back(message->text); }
  void Break(const absl::Status& why) { told.push_back("break: " + std::string(why.message())); }
  void Finish(const grpc::Status& status) { told.push_back("end: " + status.error_message()); }
  std::vector<std::string> Take() { return std::exchange(told, {}); }
  std::vector<std::string> told;
};
using Writer = StreamWriter<FakeReactor, Text>;

TEST(StreamWriter, WritesInOrderOneAtATime) {
  FakeReactor reactor;
  Writer writer(&reactor);
  writer.Write("a");
  writer.Write("b");
  writer.Write("c");
  EXPECT_THAT(reactor.Take(), ElementsAre("a"));
  writer.OnWriteDone(true);
  EXPECT_THAT(reactor.Take(), ElementsAre("b"));
  writer.Finish(absl::UnavailableError("over"));
  writer.Finish(absl::OkStatus());
  writer.Write("too late");
  EXPECT_THAT(reactor.Take(), IsEmpty());
  writer.OnWriteDone(true);
  EXPECT_THAT(reactor.Take(), ElementsAre("c")) << "what was queued before the end is still written";
  writer.OnWriteDone(true);
  EXPECT_THAT(reactor.Take(), ElementsAre("end: over"));
}

TEST(StreamWriter, TheLatestTakesThePlaceOfWhatWaits) {
  FakeReactor reactor;
  Writer writer(&reactor);
  for (const char* message : {"a", "b", "c"}) writer.WriteLatest(message);
  writer.OnWriteDone(true);
  writer.WriteLatest("d");
  writer.Finish(absl::OkStatus());
  writer.OnWriteDone(true);
  writer.OnWriteDone(true);
  EXPECT_THAT(reactor.Take(), ElementsAre("a", "c", "d", "end: "));
}

TEST(StreamWriter, ABrokenStreamIsEndedAndTakesNothingMore) {
  FakeReactor reactor;
  Writer writer(&reactor);
  writer.Write("a");
  writer.Write("b");
  reactor.Take();
  writer.OnWriteDone(false);
  EXPECT_THAT(reactor.Take(), ElementsAre("end: the stream broke"));
  writer.Write("c");
  EXPECT_THAT(reactor.Take(), IsEmpty());
}

TEST(StreamWriter, WhatWaitsBehindTheMessageOnItsWayIsBoundedInNumber) {
  FakeReactor reactor;
  Writer writer(&reactor, {.messages = 2, .bytes = 100});
  for (const char* message : {"a", "b", "c"}) writer.Write(message);
  writer.OnWriteDone(true);
  writer.Write("d");
  EXPECT_THAT(reactor.Take(), ElementsAre("a", "b"));
  writer.Write("e");
  EXPECT_THAT(reactor.Take(), ElementsAre("break: nobody reads this stream: 2 messages wait, 2 bytes"));
  writer.Write("f");
  EXPECT_THAT(reactor.Take(), IsEmpty()) << "it is told once";
  writer.OnWriteDone(false);
  EXPECT_THAT(reactor.Take(), ElementsAre("end: nobody reads this stream: 2 messages wait, 2 bytes"))
      << "what waited is not written any more";
}

TEST(StreamWriter, WhatWaitsIsBoundedInBytesAndYetAMessageMayBeOfAnySize) {
  FakeReactor reactor;
  Writer writer(&reactor, {.messages = 100, .bytes = 10});
  writer.Write(Text(1000));  // on its way
  writer.Write(Text(9));
  writer.Write(Text(1000));
  EXPECT_EQ(reactor.Take().size(), 1u);
  writer.OnWriteDone(true);
  EXPECT_EQ(reactor.Take().size(), 1u);
  writer.OnWriteDone(true);  // now the large one is on its way, and nothing waits
  EXPECT_EQ(reactor.Take().size(), 1u);
  writer.Write(Text(10));
  EXPECT_THAT(reactor.Take(), IsEmpty());
  writer.Write("a");
  EXPECT_THAT(reactor.Take(), ElementsAre("break: nobody reads this stream: 1 messages wait, 10 bytes"));
}

TEST(StreamWriter, WhoWantsTheLatestOnlyIsNeverTooSlow) {
  FakeReactor reactor;
  Writer writer(&reactor, {.messages = 1, .bytes = 1});
  for (int i = 0; i < 100; ++i) writer.WriteLatest("state");
  writer.OnWriteDone(true);
  EXPECT_THAT(reactor.Take(), ElementsAre("state", "state"));
}

TEST(StreamWriter, OutlivesItsReactor) {
  auto reactor = std::make_unique<FakeReactor>();
  Writer writer(reactor.get());
  writer.OnDone();
  reactor.reset();
  writer.Write("a");
  writer.Finish(absl::OkStatus());
}

}  // namespace
}  // namespace seqpar
