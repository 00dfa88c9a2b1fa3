// Of a job file that is wrong in its form, what the service is asked, and what becomes of its answer.
#include "client/cli/job_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr char kText[] = R"(
maks: {kind: causal}
config: {hidden_size: "32", num_hidden_layers: -3}
name: a
)";

TEST(AskAboutTheRestTest, SendsWhatWasReadAndWhatWasNot) {
  v1::Job job;
  const absl::Status refused = ParseJob(kText, {"priority=high", "dtype=bfloat16"}, &job);
  const std::optional<v1::CreateJobRequest> request = AskAboutTheRest(job, refused);
  ASSERT_TRUE(request.has_value());
  EXPECT_TRUE(request->validate_only()) << "whatever the service is, nothing is created";
  EXPECT_EQ(request->job().name(), "a");
  EXPECT_EQ(request->job().config().num_hidden_layers(), -3);
  EXPECT_EQ(request->job().dtype(), v1::DATA_TYPE_BFLOAT16);
  EXPECT_FALSE(request->job().has_mask());
  ASSERT_EQ(request->unread_size(), 3);
  EXPECT_EQ(request->unread(0).field(), "maks");
  EXPECT_EQ(request->unread(0).description(), "unknown field (line 2)");
  EXPECT_EQ(request->unread(0).nearest(), "mask");
  EXPECT_EQ(request->unread(1).field(), "config.hidden_size");
  EXPECT_EQ(request->unread(2).field(), "priority");
}

TEST(AskAboutTheRestTest, WhereThereIsNoDocumentThereIsNoRest) {
  for (const char* text : {"config: {a: 1", "", "- name: a", "--- {name: a}\n--- {name: b}\n"}) {
    v1::Job job;
    const absl::Status refused = ParseJob(text, {}, &job);
    EXPECT_FALSE(refused.ok());
    EXPECT_FALSE(AskAboutTheRest(job, refused).has_value()) << text;
  }
}

TEST(OfFileTest, SaysWhichFile) {
  const absl::Status refused =
      InvalidInput(reason::kInvalidJob, {{"", "is not YAML", ""}, {"name", "is long", "x"}});
  EXPECT_EQ(OfFile(refused, "job.yaml", false).message(),
            "job.yaml: is not YAML\nname: is long (nearest: x)");
  EXPECT_EQ(OfFile(refused, "-", true).message(),
            "standard input: is not YAML\nstandard input: name: is long (nearest: x)");
  EXPECT_EQ(ReasonOf(OfFile(refused, "-", true)), reason::kInvalidJob);
  EXPECT_EQ(OfFile(absl::InternalError("no violations"), "job.yaml", true),
            absl::InternalError("no violations"));
}

TEST(WholeRefusalTest, IsTheAnswerWhereItHoldsEverything) {
  const std::vector<Violation> own = {{"maks", "unknown field (line 2)", "mask"}, {"priority", "is 'x'", ""}};
  std::vector<Violation> more = own;
  more.push_back({"config.num_hidden_layers", "is -3", "1"});
  const absl::Status refused = InvalidInput(reason::kInvalidJob, own);
  const absl::Status whole = InvalidInput(reason::kInvalidJob, more);
  EXPECT_EQ(WholeRefusal(refused, whole), whole);
  EXPECT_EQ(WholeRefusal(refused, refused), refused);
  // Of a service that does not know of the question, and of none.
  EXPECT_EQ(WholeRefusal(refused, InvalidInput(reason::kInvalidJob, {more[2]})), refused);
  EXPECT_EQ(WholeRefusal(refused, InvalidInput(reason::kInvalidJob, {own[0], more[2]})), refused);
  EXPECT_EQ(WholeRefusal(refused, absl::OkStatus()), refused);
  EXPECT_EQ(WholeRefusal(refused, absl::UnavailableError("nobody there")), refused);
}

}  // namespace
}  // namespace seqpar
