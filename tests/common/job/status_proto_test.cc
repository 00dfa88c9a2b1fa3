#include <gtest/gtest.h>

#include <cctype>
#include <string>
#include <vector>

#include "common/base/error_info.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

TEST(StateAndPhaseProto, RoundTripAndMatchByName) {
  for (int i = 0; i <= static_cast<int>(JobState::kCancelled); ++i) {
    const JobState state = static_cast<JobState>(i);
    EXPECT_EQ(StateFromProto(StateToProto(state)), state);
    EXPECT_EQ(v1::JobState_Name(StateToProto(state)), std::string("JOB_STATE_") + StateName(state));
  }
  for (int i = 0; i <= static_cast<int>(JobPhase::kReport); ++i) {
    const JobPhase phase = static_cast<JobPhase>(i);
    EXPECT_EQ(PhaseFromProto(PhaseToProto(phase)), phase);
    std::string name = PhaseName(phase);
    for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    EXPECT_EQ(v1::JobPhase_Name(PhaseToProto(phase)), "JOB_PHASE_" + name);
  }
}

TEST(StatusProto, KeepsCodeMessageReasonAndViolations) {
  const absl::Status plain = absl::UnavailableError("gone");
  EXPECT_EQ(StatusFromProto(StatusToProto(plain)), plain);
  EXPECT_TRUE(StatusFromProto(StatusToProto(absl::OkStatus())).ok());

  const absl::Status lost = MakeError(absl::StatusCode::kUnavailable, reason::kRankLost, "rank 2 is lost");
  EXPECT_EQ(StatusFromProto(StatusToProto(lost)), lost);

  const absl::Status invalid = Annotate(
      InvalidInput(reason::kInvalidJob, {{"a.b", "must be even (it is 3)", "4"}, {"c", "is missing", ""}}),
      "submit");
  const absl::Status back = StatusFromProto(StatusToProto(invalid));
  EXPECT_EQ(back.message(), invalid.message());
  EXPECT_EQ(ReasonOf(back), reason::kInvalidJob);
  const std::vector<Violation> violations = ViolationsOf(back);
  ASSERT_EQ(violations.size(), 2u);
  EXPECT_EQ(violations[0].field, "a.b");
  EXPECT_EQ(violations[0].description, "must be even (it is 3)");
  EXPECT_EQ(violations[0].nearest, "4");
  EXPECT_EQ(violations[1].nearest, "");
}

TEST(StatusProto, WhatIsNotUtf8DoesNotTakeTheRestWithIt) {
  const absl::Status status =
      WithMetadata(InvalidInput(reason::kInvalidJob, {{"weights.\xff", "no tensor \xe2\x82", "\xc3"}}),
                   {{"limit", "\x80"}});
  const std::string wire = StatusToProto(status).SerializeAsString();
  google::rpc::Status read;
  ASSERT_TRUE(read.ParseFromString(wire)) << "a receiver would get nothing of what it is in";
  const absl::Status back = StatusFromProto(read);
  EXPECT_EQ(ReasonOf(back), reason::kInvalidJob);
  ASSERT_EQ(ViolationsOf(back).size(), 1u);
  EXPECT_EQ(ViolationsOf(back)[0].field, "weights.?");
  EXPECT_EQ(ViolationsOf(back)[0].description, "no tensor ??");
  EXPECT_EQ(ViolationsOf(back)[0].nearest, "?");
}

TEST(StatusProto, CarriesWhenToTryAgain) {
  const absl::Status full =
      WithRetry(MakeError(absl::StatusCode::kResourceExhausted, reason::kTooManyJobs, "full"), 5);
  const google::rpc::Status proto = StatusToProto(full);
  google::rpc::RetryInfo retry;
  ASSERT_EQ(proto.details_size(), 2);
  ASSERT_TRUE(proto.details(1).UnpackTo(&retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 5);
  const absl::Status back = StatusFromProto(proto);
  EXPECT_EQ(RetrySecondsOf(back), 5);
  EXPECT_EQ(ReasonOf(back), reason::kTooManyJobs);
  EXPECT_EQ(RetrySecondsOf(absl::InternalError("another")), 0);
}

TEST(StatusProto, CarriesFactsForPrograms) {
  const std::map<std::string, std::string> facts = {{"limit", "devices"}, {"value", "8"}};
  const absl::Status full =
      WithMetadata(MakeError(absl::StatusCode::kResourceExhausted, reason::kTenantLimit, "full"), facts);
  const google::rpc::Status proto = StatusToProto(full);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(proto.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), reason::kTenantLimit);
  EXPECT_EQ(info.metadata().at("value"), "8");
  EXPECT_EQ(MetadataOf(StatusFromProto(proto)), facts);
  EXPECT_TRUE(MetadataOf(absl::InternalError("another")).empty());
  EXPECT_TRUE(WithMetadata(absl::OkStatus(), facts).ok());
}

}  // namespace
}  // namespace seqpar
