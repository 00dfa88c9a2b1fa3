#include "coordinator/report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>

#include "common/base/status.h"
#include "tests/coordinator/job_machine/samples.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

class ReportTest : public ::testing::Test {
 protected:
  ReportTest()
      : spec_(SampleSpec()), plan_(SamplePlan(spec_, 2, 1)), results_{SampleResult(0), SampleResult(1)} {}

  absl::StatusOr<v1::Report> Build() { return BuildReport(spec_, plan_, 3, 0, Outcomes()); }
  std::vector<RankOutcome> Outcomes() { return {{&results_[0], threads_}, {&results_[1], threads_}}; }
  absl::Status Verified() { return CheckVerification(spec_, Outcomes(), *Build()); }
  // What a rank of a correct worker says: something of every layer.
  void AddEveryLayer() {
    for (size_t rank = 0; rank < results_.size(); ++rank) {
      for (int layer = 0; layer < spec_.config.layers; ++layer) AddError(rank, layer, "hidden_states", 1e-9);
    }
  }
  void AddError(size_t rank, int layer, const std::string& tensor, double error) {
    results_[rank].mutable_verification()->set_ran(true);
    v1::LayerError* e = results_[rank].mutable_verification()->add_layers();
    e->set_layer(layer);
    e->set_tensor(tensor);
    e->set_error(error);
  }

  JobSpec spec_;
  Plan plan_;
  std::vector<v1::RankEvent> results_;
  int threads_ = 1;
};

TEST_F(ReportTest, SecondsAreThoseOfTheSlowestRank) {
  const auto report = Build();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->attempt(), 3);
  EXPECT_EQ(report->strategy(), "ring");
  EXPECT_EQ(report->mesh(), "R2");
  EXPECT_EQ(report->step_seconds(), 1.5);
  EXPECT_EQ(report->predicted_step_seconds(), 1);
  EXPECT_EQ(report->tokens(), 64);
  EXPECT_DOUBLE_EQ(report->tokens_per_second(), 64 / 1.5);
  EXPECT_DOUBLE_EQ(report->model_flops(), CountModelFlops(spec_).total);
  // Of what the devices could have done in the time that the ranks computed: half a second each.
  EXPECT_DOUBLE_EQ(report->fraction_of_peak(), 2e6 / (2 * 0.5 * 1e9));
  ASSERT_EQ(report->phases_size(), 1 + 3);  // and the kinds of kernels of execute
  EXPECT_EQ(report->phases(0).seconds(), 1.5);
  EXPECT_EQ(report->ranks(1).device(), "a/1");
  EXPECT_EQ(report->ranks(1).predicted_peak_bytes(), 1000);
  EXPECT_FALSE(report->has_verification());
}

TEST_F(ReportTest, EachPassOfTheSlowestRankBesideWhatWasPredicted) {
  const auto add = [&](int rank, const char* pass, double compute, double exposed) {
    v1::PassFigures* figures = results_[rank].mutable_report()->add_passes();
    figures->set_pass(pass);
    figures->set_seconds(compute + exposed);
    figures->set_compute_seconds(compute);
    figures->set_communication_exposed_seconds(exposed);
  };
  add(0, "forward", 1, 0.5);
  add(0, "backward", 3, 0);
  add(1, "forward", 1.25, 0);
  add(1, "backward", 2, 0.25);
  plan_.prediction.forward = {1, 0.125};
  plan_.prediction.backward = {2, 0.25};
  const auto report = Build();
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->passes_size(), 2);
  EXPECT_EQ(report->passes(0).pass(), "forward");
  EXPECT_EQ(report->passes(0).seconds(), 1.5);
  EXPECT_EQ(report->passes(0).compute_seconds(), 1.25);
  EXPECT_EQ(report->passes(0).communication_exposed_seconds(), 0.5);
  EXPECT_EQ(report->passes(1).seconds(), 3);
  EXPECT_EQ(report->passes(1).communication_exposed_seconds(), 0.25);
  ASSERT_EQ(report->predicted_passes_size(), 2);
  EXPECT_EQ(report->predicted_passes(0).seconds(), 1.125);
  EXPECT_EQ(report->predicted_passes(1).pass(), "backward");
  EXPECT_EQ(report->predicted_passes(1).compute_seconds(), 2);
  EXPECT_EQ(report->predicted_passes(1).communication_exposed_seconds(), 0.25);
}

TEST_F(ReportTest, ARateAboveThePeakIsAnError) {
  // 1.25 times the peak, to the flop, in half a second of one thread's time.
  results_[1].mutable_report()->set_flops(1.25e9 * 0.5);
  EXPECT_TRUE(Build().ok());
  results_[1].mutable_report()->set_flops(1.26e9 * 0.5);
  const absl::Status status = Build().status();
  EXPECT_EQ(ReasonOf(status), reason::kRateAbovePeak);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 on a/1"));
  // The same time of two threads is a quarter of a second of the device.
  results_[1].mutable_report()->set_flops(1.0e9 * 0.5);
  threads_ = 2;
  EXPECT_EQ(ReasonOf(Build().status()), reason::kRateAbovePeak);
  // Too short to be judged.
  results_[1].mutable_report()->set_cpu_seconds(0.009);
  EXPECT_TRUE(Build().ok());
}

TEST_F(ReportTest, TheWorstErrorOfAnyRankIsNamed) {
  spec_.verify_rows = 4;
  spec_.verify_max_error = 1e-4;
  AddEveryLayer();
  AddError(0, 1, "k", 3e-6);
  AddError(1, 1, "k", 5e-6);
  const auto report = Build();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->verification().worst_error(), 5e-6);
  EXPECT_EQ(report->verification().worst_layer(), 1);
  EXPECT_EQ(report->verification().worst_tensor(), "k");
  EXPECT_EQ(report->verification().layers_size(), 3);
  EXPECT_EQ(report->verification().rows(), 4);
  EXPECT_TRUE(Verified().ok()) << Verified();

  AddError(0, 1, "dq", 2e-4);
  const absl::Status failed = Verified();
  EXPECT_EQ(ReasonOf(failed), reason::kVerificationFailed);
  EXPECT_THAT(std::string(failed.message()), HasSubstr("layer 1, dq"));
}

TEST_F(ReportTest, NotANumberIsTheWorstError) {
  spec_.verify_rows = 4;
  AddError(0, 0, "hidden_states", std::numeric_limits<double>::quiet_NaN());
  AddEveryLayer();
  const absl::Status failed = Verified();
  EXPECT_EQ(ReasonOf(failed), reason::kVerificationFailed);
  EXPECT_THAT(std::string(failed.message()), HasSubstr("layer 0"));
}

TEST_F(ReportTest, VerificationThatWasAskedForMustHaveRun) {
  spec_.verify_rows = 4;
  EXPECT_EQ(ReasonOf(Verified()), reason::kVerificationFailed);
  spec_.verify_rows = 0;
  EXPECT_TRUE(Verified().ok());
}

TEST_F(ReportTest, EveryRankMustHaveVerifiedEveryLayer) {
  spec_.verify_rows = 4;
  spec_.verify_max_error = 1e-4;
  const auto fails_for = [this](const char* what) {
    const absl::Status status = Verified();
    EXPECT_EQ(ReasonOf(status), reason::kVerificationFailed) << what;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  };
  for (v1::RankEvent& result : results_) result.mutable_verification()->set_ran(true);
  fails_for("rank 0 reported nothing of layer 0, of 2 layers");
  AddEveryLayer();
  EXPECT_TRUE(Verified().ok()) << Verified();
  results_[1].mutable_verification()->mutable_layers()->RemoveLast();
  fails_for("rank 1 reported nothing of layer 1");
  results_[1].clear_verification();
  fails_for("rank 1 reported nothing of layer 0");
}

TEST_F(ReportTest, PredictedStandsBesideMeasured) {
  spec_.pass = JobPass::kForwardBackward;
  spec_.verify_rows = 4;
  plan_.prediction.attention_seconds = 0.3;
  plan_.prediction.verify_seconds = 0.25;
  results_[0].mutable_report()->set_attention_seconds(0.1);
  results_[1].mutable_report()->set_attention_seconds(0.2);
  results_[0].mutable_phases(0)->set_seconds(2);
  const auto report = Build();
  ASSERT_TRUE(report.ok()) << report.status();
  std::map<std::string, v1::PhaseSeconds> phases;
  for (const v1::PhaseSeconds& phase : report->phases()) phases[phase.phase()] = phase;
  EXPECT_EQ(phases["execute"].seconds(), 2);
  EXPECT_EQ(phases["execute"].predicted(), 1.25);
  EXPECT_EQ(phases["execute/attention"].seconds(), 0.2);
  EXPECT_EQ(phases["execute/attention"].predicted(), 0.3);
  EXPECT_EQ(phases.count("execute/products"), 1u);
  EXPECT_EQ(phases.count("execute/pointwise"), 1u);
  EXPECT_EQ(phases["verify"].seconds(), 2 - 1.5) << "what the phase took beside the step";
  EXPECT_EQ(phases["verify"].predicted(), 0.25);
}

TEST_F(ReportTest, ARankIsSlowByTheTimeOfItsWork) {
  results_[1].mutable_report()->set_compute_seconds(1.5);
  auto report = Build();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_DOUBLE_EQ(report->ranks(0).slowness(), 1);
  EXPECT_DOUBLE_EQ(report->ranks(1).slowness(), 3);
  results_[1].mutable_report()->set_flops(3e6);  // it was given three times the work
  report = Build();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_DOUBLE_EQ(report->ranks(1).slowness(), 1);
}

TEST_F(ReportTest, AnAttemptFromACheckpointIsHeldAgainstWhatItRan) {
  const absl::StatusOr<v1::Report> report = BuildReport(spec_, plan_, 3, 1, Outcomes());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->layers(), 1);
  EXPECT_DOUBLE_EQ(report->predicted_step_seconds(), 0.5);
  EXPECT_DOUBLE_EQ(report->model_flops(), CountModelFlops(spec_).total / 2);
}

}  // namespace
}  // namespace seqpar
