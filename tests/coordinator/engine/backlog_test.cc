#include "coordinator/engine/backlog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/retry.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

class BacklogTest : public ::testing::Test {
 protected:
  void Refuses(int64_t stream, int64_t bytes, bool heartbeat, const char* whose) {
    const absl::Status status = backlog_.Enter(stream, bytes, heartbeat);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(ReasonOf(status), reason::kOverloaded);
    EXPECT_GT(RetrySecondsOf(status), 0);
    EXPECT_THAT(std::string(status.message()), HasSubstr(whose));
  }
  void Takes(int64_t stream, int64_t bytes, bool heartbeat = false) {
    EXPECT_TRUE(backlog_.Enter(stream, bytes, heartbeat).ok()) << stream;
  }

  Backlog backlog_{BacklogLimits{.stream_messages = 3, .stream_bytes = 100, .messages = 5, .bytes = 220}};
};

TEST_F(BacklogTest, AStreamHasSoMuchWaitingUntilSomeOfItIsHandled) {
  for (int i = 0; i < 3; ++i) Takes(1, 10);
  Refuses(1, 10, false, "3 messages of this worker");
  Refuses(1, 10, true, "this worker");  // nor may heartbeats pile up
  Takes(2, 10);
  backlog_.Leave(1, 10);
  Takes(1, 80);
  backlog_.Leave(1, 10);
  Refuses(1, 11, false, "90 bytes");
  Takes(1, 10);
}

TEST_F(BacklogTest, WhereAllHaveTooMuchOnlyHeartbeatsGetIn) {
  for (int stream = 1; stream <= 5; ++stream) Takes(stream, 1);
  Refuses(6, 1, false, "5 messages of all workers");
  Takes(6, 1, /*heartbeat=*/true);
  for (int stream = 1; stream <= 6; ++stream) backlog_.Leave(stream, 1);
  for (int stream = 1; stream <= 2; ++stream) Takes(stream, 100);
  Refuses(3, 21, false, "200 bytes");
  Takes(3, 20);
}

TEST_F(BacklogTest, AMessageLargerThanAllMayHaveIsNotTaken) {
  Refuses(1, 101, false, "this worker");
  Takes(1, 100);
}

}  // namespace
}  // namespace seqpar
