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

// Notes what it is told to do; the test says when a write is done.
struct FakeReactor {
  void StartWrite(const std::string* message) { told.push_back(*message); }
  void Finish(const grpc::Status& status) { told.push_back("end: " + status.error_message()); }
  std::vector<std::string> Take() { return std::exchange(told, {}); }
  std::vector<std::string> told;
};
using Writer = StreamWriter<FakeReactor, std::string>;

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
