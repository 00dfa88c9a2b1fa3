#include "common/job/rpc_status.h"

#include <gtest/gtest.h>

#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "google/rpc/error_details.pb.h"

namespace seqpar {
namespace {

constexpr int kResourceExhausted = 8;  // google.rpc.Code

TEST(StatusFromRpc, HasWhatTheDetailsTell) {
  const absl::Status sent = WithRetry(
      MakeError(absl::StatusCode::kResourceExhausted, reason::kOverloaded, "more than it can answer"), 7);
  const absl::Status read =
      StatusFromRpc(kResourceExhausted, "more than it can answer", StatusToProto(sent).SerializeAsString());
  EXPECT_EQ(read.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(read.message(), "more than it can answer");
  EXPECT_EQ(ReasonOf(read), reason::kOverloaded);
  EXPECT_EQ(RetrySecondsOf(read), 7);
}

TEST(StatusFromRpc, IsCodeAndMessageWithoutDetails) {
  for (const char* details : {"", "\xff\xff no message"}) {
    const absl::Status read = StatusFromRpc(kResourceExhausted, "too large", details);
    EXPECT_EQ(read, absl::ResourceExhaustedError("too large"));
  }
  EXPECT_TRUE(StatusFromRpc(0, "", "").ok());
}

}  // namespace
}  // namespace seqpar
