#include "client/cli/progress.h"

#include <gtest/gtest.h>

#include <string>

namespace seqpar {
namespace {

v1::Job Running(double percent, int layer) {
  v1::Job job;
  job.set_id("j-1");
  job.set_state(v1::JOB_STATE_RUNNING);
  job.set_phase(v1::JOB_PHASE_EXECUTE);
  job.set_attempt(1);
  job.mutable_progress()->set_pass("backward");
  job.mutable_progress()->set_layer(layer);
  job.mutable_progress()->set_layers(2);
  job.mutable_progress()->set_percent(percent);
  return job;
}

TEST(RenderProgress, SaysWhatIsKnown) {
  v1::Job job = Running(42, 1);
  EXPECT_EQ(RenderProgress(job), "RUNNING  execute  backward  layer 1/2  42.0%");
  job.mutable_progress()->set_seconds_left(12.34);
  job.mutable_progress()->set_step(87);
  job.set_attempt(2);
  EXPECT_EQ(RenderProgress(job),
            "RUNNING  execute  attempt 2  backward  layer 1/2  step 87  42.0%  12.3 s left");

  job.set_phase(v1::JOB_PHASE_MERGE);
  EXPECT_EQ(RenderProgress(job), "RUNNING  merge  attempt 2");

  v1::Job pending;
  pending.set_state(v1::JOB_STATE_PENDING);
  pending.set_phase(v1::JOB_PHASE_PLACE);
  pending.set_reason("needs 6 devices, 4 are there");
  EXPECT_EQ(RenderProgress(pending), "PENDING  place  needs 6 devices, 4 are there");
}

TEST(ProgressPrinter, WithoutATerminalALineForEachChange) {
  std::string out;
  ProgressPrinter printer(/*terminal=*/false, 0, [&](const std::string& text) { out += text; });
  printer.Show(Running(41, 0));
  printer.Show(Running(42, 0));  // the same tenth
  printer.Show(Running(50, 0));
  printer.Show(Running(51, 1));
  printer.Note("the coordinator answers again");
  printer.Finish();
  EXPECT_EQ(out,
            "j-1  RUNNING  execute  backward  layer 0/2  41.0%\n"
            "j-1  RUNNING  execute  backward  layer 0/2  50.0%\n"
            "j-1  RUNNING  execute  backward  layer 1/2  51.0%\n"
            "the coordinator answers again\n");
}

TEST(ProgressPrinter, OnATerminalOneLineRedrawnAndNeverWrapped) {
  std::string out;
  ProgressPrinter printer(/*terminal=*/true, 20, [&](const std::string& text) { out += text; });
  printer.Show(Running(41, 0));
  printer.Note("note");
  printer.Finish();
  const std::string erase = "\r\x1b[2K";
  EXPECT_EQ(out, erase + "j-1  RUNNING  execu" + erase + "note\nj-1  RUNNING  execu\n");
}

TEST(ProgressPrinter, OnANarrowTerminalNoCharacterIsCut) {
  std::string out;
  ProgressPrinter printer(/*terminal=*/true, 18, [&](const std::string& text) { out += text; });
  v1::Job job;
  job.set_id("j-1");
  job.set_state(v1::JOB_STATE_PENDING);
  job.set_reason("\xe9\x95\xb7\xe6\x96\x87");
  printer.Show(job);
  EXPECT_EQ(out, "\r\x1b[2Kj-1  PENDING  \xe9\x95\xb7") << "the next one would begin in the last column";
}

}  // namespace
}  // namespace seqpar
