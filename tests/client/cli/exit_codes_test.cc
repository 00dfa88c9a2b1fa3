#include "client/cli/exit_codes.h"

#include <gtest/gtest.h>

#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

TEST(ExitCodeOf, Errors) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCodeOf(InvalidInput(reason::kInvalidJob, {{"a", "b", ""}})), 3);
  EXPECT_EQ(ExitCodeOf(MakeError(absl::StatusCode::kFailedPrecondition, reason::kInfeasible, "")), 3);
  EXPECT_EQ(ExitCodeOf(MakeError(absl::StatusCode::kAlreadyExists, reason::kRequestIdReused, "")), 3);
  EXPECT_EQ(ExitCodeOf(absl::NotFoundError("")), 4);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), 5);
  EXPECT_EQ(ExitCodeOf(MakeError(absl::StatusCode::kUnavailable, reason::kTooFewDevices, "")), 5);
  const absl::Status full = MakeError(absl::StatusCode::kResourceExhausted, reason::kTenantLimit, "");
  EXPECT_EQ(ExitCodeOf(WithRetry(full, 5)), 5) << "no job has failed";
  EXPECT_EQ(ExitCodeOf(full), 3) << "it is larger than may be";
  EXPECT_EQ(ExitCodeOf(absl::DeadlineExceededError("")), 6);
  EXPECT_EQ(ExitCodeOf(absl::CancelledError("")), 7);
  EXPECT_EQ(ExitCodeOf(absl::UnauthenticatedError("")), 8);
  EXPECT_EQ(ExitCodeOf(absl::PermissionDeniedError("")), 8);
  EXPECT_EQ(ExitCodeOf(absl::InternalError("")), 1);
}

TEST(ExitCodeOf, Jobs) {
  v1::Job job;
  job.set_state(v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(ExitCodeOf(job), 0);
  job.set_state(v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(ExitCodeOf(job), 7);
  job.set_state(v1::JOB_STATE_FAILED);
  EXPECT_EQ(ExitCodeOf(job), 1);
  *job.mutable_error() = StatusToProto(
      MakeError(absl::StatusCode::kDeadlineExceeded, reason::kBootstrapTimeout, "ranks 2, 3 are missing"));
  EXPECT_EQ(ExitCodeOf(job), 1);
  *job.mutable_error() = StatusToProto(
      MakeError(absl::StatusCode::kDeadlineExceeded, reason::kDeadlineExceeded, "90 s are over"));
  EXPECT_EQ(ExitCodeOf(job), 6);
}

}  // namespace
}  // namespace seqpar
