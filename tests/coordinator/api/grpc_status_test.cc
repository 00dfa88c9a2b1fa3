#include "coordinator/api/grpc_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

absl::Status Back(const grpc::Status& status) {
  google::rpc::Status proto;
  EXPECT_TRUE(proto.ParseFromString(status.error_details()));
  return StatusFromProto(proto);
}

TEST(GrpcStatus, CarriesReasonAndViolations) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  const grpc::Status status = ToGrpcStatus(
      InvalidInput(reason::kInvalidJob, {{"config.head_dim", "is odd", "8"}, {"mask", "is wrong", ""}}));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const absl::Status back = Back(status);
  EXPECT_EQ(ReasonOf(back), reason::kInvalidJob);
  ASSERT_EQ(ViolationsOf(back).size(), 2u);
  EXPECT_EQ(ViolationsOf(back)[0].field, "config.head_dim");
}

TEST(GrpcStatus, AnErrorWithoutAReasonGetsThatOfItsCode) {
  EXPECT_EQ(ReasonOf(Back(ToGrpcStatus(absl::UnavailableError("away")))), "UNAVAILABLE");
}

TEST(GrpcStatus, FitsIntoTrailers) {
  std::vector<Violation> violations;
  for (int i = 0; i < 500; ++i) {
    violations.push_back(
        {absl::StrCat("field.", i), "is longer than a line and says so in many words, as some do", ""});
  }
  const grpc::Status status = ToGrpcStatus(InvalidInput(reason::kInvalidJob, violations));
  EXPECT_LT(status.error_message().size() + status.error_details().size() * 4 / 3, 8000u);
  EXPECT_THAT(status.error_message(), HasSubstr("of 500 violations"));
  EXPECT_GT(ViolationsOf(Back(status)).size(), 10u);
  // One violation that is too long by itself still arrives, cut.
  const grpc::Status longest = ToGrpcStatus(absl::InternalError(std::string(100'000, 'x')));
  EXPECT_LT(longest.error_message().size() + longest.error_details().size() * 4 / 3, 8000u);
}

}  // namespace
}  // namespace seqpar
