// What fails, fails with a status that names the cause, and nothing stays blocked.
#include <barrier>
#include <chrono>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "common/base/status.h"
#include "tests/conformance/communicator_world.h"

namespace seqpar {
namespace {

constexpr TrafficKey kKey{Operation::kRing, Pass::kForward};

SEQPAR_INSTANTIATE_CONFORMANCE(2, 8);

// Sleeps in between: those who are to block need the cores.
void WaitUntilBlocked(const Communicator& comm) {
  while (comm.progress().waiting_for_peer < 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
}

TEST_P(CommunicatorConformance, AbortEndsTheWholeFamilyWithItsStatus) {
  const absl::Status why =
      MakeError(absl::StatusCode::kCancelled, reason::kCancelled, "the user changed his mind");
  std::barrier<> turn(size());
  RunRanks(world_, [&](RankWorld& r) {
    auto group = r.comm->Split(0, 0, "group");
    ASSERT_TRUE(group.ok()) << group.status();
    const OnDevice<int32_t> small(r, 10), large(r, 1 << 20);
    // All but the last wait for the next rank: it does not send what the first waits for, nor receive what
    // the second sends. They abort in order, so that each still has the peer that it waits for.
    const bool waits = r.rank() + 1 < r.size();
    if (waits) {
      const int next = r.rank() + 1;
      r.comm->SendRecv(*r.stream, kKey, {}, {{next, {small.all()}}, {next, {small.all()}}});
      (*group)->SendRecv(*r.second_stream, kKey, {{next, {large.all()}}}, {});
      WaitUntilBlocked(*r.comm);
      WaitUntilBlocked(**group);
      EXPECT_EQ(r.comm->progress().waiting_for_peer, next);
    }
    turn.arrive_and_wait();
    for (int rank = 0; rank < r.size(); ++rank) {
      if (rank == r.rank()) {
        (*group)->Abort(why);
        EXPECT_EQ(r.stream->Synchronize(), waits ? why : absl::OkStatus());
        EXPECT_EQ(r.second_stream->Synchronize(), waits ? why : absl::OkStatus());
      }
      turn.arrive_and_wait();
    }
    EXPECT_EQ(r.comm->progress().entered - r.comm->progress().finished, waits ? 1 : 0);

    // Later, on a fresh stream; the first status stays.
    r.comm->Abort(absl::InternalError("later"));
    const std::unique_ptr<Stream> fresh = r.device->CreateStream("fresh");
    r.comm->Barrier(*fresh);
    EXPECT_EQ(fresh->Synchronize(), why);
    EXPECT_EQ(r.comm->Split(0, 0, "none").status(), why);
  });
}

TEST_P(CommunicatorConformance, AbortBeforeAnythingElse) {
  RunRanks(world_, [&](RankWorld& r) {
    const absl::Status why = absl::AbortedError("over before it began");
    r.comm->Abort(why);
    const OnDevice<float> data(r, 100);
    r.comm->AllReduce(*r.stream, kKey, data.data(), 100);
    EXPECT_EQ(r.stream->Synchronize(), why);
  });
}

TEST_P(CommunicatorConformance, SizesThatDisagreeNameTheEdge) {
  if (!backend().checks_sizes) GTEST_SKIP() << backend().name << " sends no sizes";
  for (const int64_t sent : {100, 1 << 18}) {
    for (const int64_t difference : {4, -4}) {
      SetUp();  // a world that disagreed is of no use any more
      std::barrier<> receiver_has_failed(size());
      RunRanks(world_, [&](RankWorld& r) {
        const OnDevice<int32_t> data(r, sent + 4);
        if (r.rank() == 0) {
          r.comm->SendRecv(*r.stream, kKey, {{1, {data.span(0, sent)}}}, {});
        } else if (r.rank() == 1) {
          r.comm->SendRecv(*r.stream, kKey, {}, {{0, {data.span(0, sent + difference)}}});
          const absl::Status status = r.stream->Synchronize();
          EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
          EXPECT_EQ(ReasonOf(status), reason::kInternal);
          const std::string text(status.message());
          EXPECT_TRUE(absl::StrContains(text, "0 -> 1")) << text;
          EXPECT_TRUE(absl::StrContains(text, std::to_string(4 * (sent + difference)))) << text;
        }
        receiver_has_failed.arrive_and_wait();
        r.comm->Abort(absl::AbortedError("the attempt is over"));  // as a daemon does
      });
    }
  }
}

}  // namespace
}  // namespace seqpar
