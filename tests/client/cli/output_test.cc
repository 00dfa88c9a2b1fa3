#include "client/cli/output.h"

#include <gtest/gtest.h>

#include "common/base/status.h"
#include "seqpar/v1/service.pb.h"

namespace seqpar {
namespace {

TEST(RenderError, AViolationALine) {
  const absl::Status status = InvalidInput(reason::kInvalidJob, {{"maks", "unknown field (line 3)", "mask"},
                                                                 {"name", "is given twice (line 4)", ""}});
  EXPECT_EQ(RenderError(status, "a:1"),
            "seqpar: 2 violations [INVALID_JOB]\n"
            "  maks: unknown field (line 3); nearest: mask\n"
            "  name: is given twice (line 4)\n");
}

TEST(RenderError, NamesTheReasonAndWhatToDo) {
  EXPECT_EQ(RenderError(MakeError(absl::StatusCode::kNotFound, reason::kNotFound, "no job j-1"), "a:1"),
            "seqpar: no job j-1 [NOT_FOUND]\n");
  EXPECT_EQ(RenderError(absl::UnavailableError("connection refused"), "a:1"),
            "seqpar: connection refused [UNAVAILABLE]\n"
            "Is a coordinator running at a:1? `seqpar local up` starts one here; --server or SEQPAR_SERVER "
            "names another.\n");
  EXPECT_EQ(
      RenderError(absl::UnavailableError("Tls handshake failed"), "a:1"),
      "seqpar: Tls handshake failed [UNAVAILABLE]\n"
      "Is --tls-ca the authority of its certificate, and the host that was dialled, or --tls-server-name, a "
      "name in it?\n");
  // The service itself said so: it runs.
  EXPECT_EQ(
      RenderError(MakeError(absl::StatusCode::kUnavailable, reason::kInfeasible, "needs 8 devices"), "a:1"),
      "seqpar: needs 8 devices [INFEASIBLE]\n");
}

TEST(RenderError, OnlyWhoWasAskedMayBeDown) {
  EXPECT_EQ(RenderError(absl::UnavailableError("the worker ended"), ""),
            "seqpar: the worker ended [UNAVAILABLE]\n");
}

TEST(Printable, LeavesATerminalAlone) {
  const std::string text = std::string("a\x1b[2J\r\n\t") + '\0' + "\x7f \xe9\x95\xb7";
  EXPECT_EQ(Printable(text), "a\\x1b[2J\\x0d\n\t\\x00\\x7f \xe9\x95\xb7");
  EXPECT_EQ(Printable("two\nlines", ""), "two\\x0alines");
  EXPECT_EQ(Printable("a\xc2\x9b"
                      "31m \xc2\xa9"),
            "a\\u009b31m \xc2\xa9")
      << "CSI in one character";
  EXPECT_EQ(RenderError(MakeError(absl::StatusCode::kNotFound, reason::kNotFound, "no job \x1b[31m"), "a:1"),
            "seqpar: no job \\x1b[31m [NOT_FOUND]\n");
}

TEST(ToJson, KeepsTheNamesOfTheProto) {
  v1::ListJobsResponse jobs;
  jobs.set_next_page_token("t");
  v1::Job* job = jobs.add_jobs();
  job->set_state(v1::JOB_STATE_PENDING);
  job->mutable_config()->set_hidden_size(8);
  EXPECT_EQ(ToJson(jobs, /*pretty=*/false),
            "{\"jobs\":[{\"config\":{\"hidden_size\":\"8\"},\"state\":\"JOB_STATE_PENDING\"}],\"next_page_"
            "token\":\"t\"}\n");
  EXPECT_EQ(ToJson(v1::ListJobsResponse()), "{}\n");
}

}  // namespace
}  // namespace seqpar
