#include "common/base/status.h"

#include <gtest/gtest.h>

namespace seqpar {
namespace {

TEST(MakeError, CarriesCodeReasonAndMessage) {
  const absl::Status status = MakeError(absl::StatusCode::kNotFound, reason::kNotFound, "no job j-1");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "no job j-1");
  EXPECT_EQ(ReasonOf(status), "NOT_FOUND");
  EXPECT_TRUE(ViolationsOf(status).empty());
}

TEST(ReasonOf, IsEmptyWithoutReason) {
  EXPECT_EQ(ReasonOf(absl::OkStatus()), "");
  EXPECT_EQ(ReasonOf(absl::InternalError("x")), "");
}

TEST(InvalidInput, ListsEveryViolationOneALine) {
  const absl::Status status =
      InvalidInput(reason::kInvalidJob, {{"config.head_dim", "must be even", "64"}, {"", "no input", ""}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "config.head_dim: must be even (nearest: 64)\nno input");
  EXPECT_EQ(ReasonOf(status), "INVALID_JOB");
}

TEST(InvalidInput, ViolationsSurviveAnyBytes) {
  const std::string odd("a:3:b\n\0c", 8);
  const absl::Status status = InvalidInput(reason::kInvalidJob, {{odd, "12:", ""}, {"f", odd, odd}});
  const std::vector<Violation> back = ViolationsOf(status);
  ASSERT_EQ(back.size(), 2u);
  EXPECT_EQ(back[0].field, odd);
  EXPECT_EQ(back[0].description, "12:");
  EXPECT_EQ(back[0].nearest, "");
  EXPECT_EQ(back[1].field, "f");
  EXPECT_EQ(back[1].description, odd);
  EXPECT_EQ(back[1].nearest, odd);
}

TEST(ViolationsOf, StopsAtAPayloadThatIsBroken) {
  for (const char* broken : {"x", "5:ab", "-1:a", "1:a1:b", "99999999999999999999:a", ":"}) {
    absl::Status status = absl::InvalidArgumentError("m");
    status.SetPayload("seqpar/violations", absl::Cord(broken));
    EXPECT_TRUE(ViolationsOf(status).empty()) << broken;
  }
}

TEST(Annotate, PrefixesAndKeepsPayloads) {
  const absl::Status inner = InvalidInput(reason::kInvalidJob, {{"dtype", "unknown", "float32"}});
  const absl::Status outer = Annotate(inner, "job.yaml");
  EXPECT_EQ(outer.code(), inner.code());
  EXPECT_EQ(outer.message(), "job.yaml: dtype: unknown (nearest: float32)");
  EXPECT_EQ(ReasonOf(outer), "INVALID_JOB");
  ASSERT_EQ(ViolationsOf(outer).size(), 1u);
  EXPECT_TRUE(Annotate(absl::OkStatus(), "x").ok());
}

TEST(NearestName, TakesTheSmallestEditDistance) {
  const std::vector<std::string> names = {"megatron_sp", "ulysses", "ring", "gather", "hybrid"};
  EXPECT_EQ(NearestName("ulises", names), "ulysses");
  EXPECT_EQ(NearestName("rings", names), "ring");
  EXPECT_EQ(NearestName("megatron-sp", names), "megatron_sp");
  EXPECT_EQ(NearestName("gather", names), "gather");
  EXPECT_EQ(NearestName("anything", {}), "");
}

absl::StatusOr<int> Half(int n) {
  if (n % 2 != 0) return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument, "odd");
  return n / 2;
}

absl::Status Quarter(int n, int* out) {
  SEQPAR_ASSIGN_OR_RETURN(const int half, Half(n));
  SEQPAR_ASSIGN_OR_RETURN(*out, Half(half));
  SEQPAR_RETURN_IF_ERROR(*out > 100 ? absl::OutOfRangeError("large") : absl::OkStatus());
  return absl::OkStatus();
}

TEST(Macros, ReturnTheFirstError) {
  int out = 0;
  EXPECT_TRUE(Quarter(8, &out).ok());
  EXPECT_EQ(out, 2);
  EXPECT_EQ(ReasonOf(Quarter(7, &out)), "INVALID_ARGUMENT");
  EXPECT_EQ(Quarter(6, &out).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Quarter(4000, &out).code(), absl::StatusCode::kOutOfRange);
}

}  // namespace
}  // namespace seqpar
