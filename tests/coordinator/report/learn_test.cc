#include "coordinator/report/learn.h"

#include <gtest/gtest.h>

#include <cmath>

namespace seqpar {
namespace {

constexpr char kKind[] = "cpu slot, 4 slots of 1 thread on 2 cores";

Plan PlanOf(StrategyKind strategy, double step_seconds) {
  Plan plan;
  plan.strategy = strategy;
  plan.node_kind = kKind;
  plan.prediction.step_seconds = step_seconds;
  return plan;
}

v1::Report ReportOf(double step_seconds) {
  v1::Report report;
  report.set_step_seconds(step_seconds);
  return report;
}

constexpr JobPass kPass = JobPass::kForward;

TEST(Learn, TheFirstJobMovesTheFactorHalfWay) {
  const Calibration learnt = Learn(Calibration(), PlanOf(StrategyKind::kRing, 1), kPass, ReportOf(1.44));
  EXPECT_NEAR(learnt.Factor(StepKey(kKind, kPass)), 1.2, 1e-12);
  EXPECT_NEAR(learnt.Factor(StepKey(kKind, kPass, StrategyKind::kRing)), std::pow(1.44, 1.0 / 16), 1e-12);
  EXPECT_EQ(learnt.Factor(StepKey(kKind, kPass, StrategyKind::kUlysses)), 1);
  EXPECT_EQ(learnt.Factor(StepKey(kKind, JobPass::kForwardBackward)), 1);
  EXPECT_EQ(learnt.Factor(StepKey("another", kPass)), 1);
}

TEST(Learn, EveryStrategyGainsFromWhatOneTaught) {
  const Calibration learnt = Learn(Calibration(), PlanOf(StrategyKind::kRing, 1), kPass, ReportOf(1.44));
  EXPECT_NEAR(learnt.StepFactor(kKind, kPass, StrategyKind::kUlysses), 1.2, 1e-12);
  EXPECT_GT(learnt.StepFactor(kKind, kPass, StrategyKind::kRing), 1.2);
}

// A job is planned with what is known by then; the same machine is always 1.5 times slower than calibrated.
TEST(Learn, ConvergesAndStays) {
  Calibration calibration;
  for (int i = 0; i < 40; ++i) {
    Plan plan = PlanOf(StrategyKind::kRing, 0);
    plan.prediction.correction = calibration.StepFactor(kKind, kPass, StrategyKind::kRing);
    plan.prediction.step_seconds = 2 * plan.prediction.correction;
    calibration = Learn(calibration, plan, kPass, ReportOf(3));
  }
  EXPECT_NEAR(calibration.StepFactor(kKind, kPass, StrategyKind::kRing), 1.5, 0.02);
  EXPECT_EQ(calibration.corrections.at(StepKey(kKind, kPass)).jobs, 40);
}

TEST(Learn, JobsThatWerePlannedBeforeOthersTaughtDoNotTeachTwice) {
  // All planned while nothing was known, as jobs that run side by side are.
  Calibration calibration;
  for (int i = 0; i < 100; ++i) {
    calibration = Learn(calibration, PlanOf(StrategyKind::kRing, 1), kPass, ReportOf(1.5));
  }
  EXPECT_NEAR(calibration.StepFactor(kKind, kPass, StrategyKind::kRing), 1.5, 0.02);
}

TEST(Learn, OneBusyNeighbourMovesLittleAndNothingPassesTheBounds) {
  Calibration calibration;
  for (int i = 0; i < 10; ++i) {
    calibration = Learn(calibration, PlanOf(StrategyKind::kRing, 1), kPass, ReportOf(1));
  }
  const Calibration after = Learn(calibration, PlanOf(StrategyKind::kRing, 1), kPass, ReportOf(50));
  EXPECT_LT(after.StepFactor(kKind, kPass, StrategyKind::kRing), std::pow(2, 1.0 / 8 + 1.0 / 16) + 1e-9);
  for (int i = 0; i < 200; ++i) {
    calibration = Learn(calibration, PlanOf(StrategyKind::kRing, 1), kPass, ReportOf(1000));
  }
  EXPECT_EQ(calibration.Factor(StepKey(kKind, kPass)), 4);
  EXPECT_EQ(calibration.Factor(StepKey(kKind, kPass, StrategyKind::kRing)), 1.15);
}

TEST(Learn, ShortStepsTeachNothing) {
  EXPECT_TRUE(
      Learn(Calibration(), PlanOf(StrategyKind::kRing, 1), kPass, ReportOf(0.019)).corrections.empty());
}

TEST(Learn, PhasesHaveFactorsOfTheirOwn) {
  v1::Report report = ReportOf(0);
  const auto add = [&](const char* name, double seconds, double predicted) {
    v1::PhaseSeconds* phase = report.add_phases();
    phase->set_phase(name);
    phase->set_seconds(seconds);
    phase->set_predicted(predicted);
  };
  add("shard", 0.44, 0.11 * 4 / 1.21);
  add("merge", 0.3, 0);            // nothing was predicted
  add("execute", 9, 1);            // the step teaches
  add("execute/attention", 9, 1);  // a part of it
  add("bootstrap", 0.01, 1);       // too short
  const Calibration learnt = Learn(Calibration(), PlanOf(StrategyKind::kRing, 1), kPass, report);
  EXPECT_NEAR(learnt.Factor(PhaseKey("shard", kKind)), 1.1, 1e-12);
  EXPECT_EQ(learnt.corrections.size(), 1u);
}

TEST(Calibration, SurvivesAsText) {
  Calibration calibration;
  calibration.corrections[StepKey(kKind, kPass)] = {1.0 / 3, 7};
  calibration.corrections[PhaseKey("shard", kKind)] = {2.5, 1};
  const Calibration read = CalibrationFromText(CalibrationToText(calibration));
  ASSERT_EQ(read.corrections.size(), 2u);
  EXPECT_EQ(read.Factor(StepKey(kKind, kPass)), 1.0 / 3);
  EXPECT_EQ(read.corrections.at(StepKey(kKind, kPass)).jobs, 7);
  EXPECT_EQ(CalibrationToText(read), CalibrationToText(calibration));
}

TEST(Calibration, WhatCannotBeReadIsLeftOut) {
  const Calibration read =
      CalibrationFromText("1 1 1\n-1\t2\tnegative\nnan\t2\tnot a number\n2\t-1\tjobs\n2\t3\tkept\n");
  ASSERT_EQ(read.corrections.size(), 1u);
  EXPECT_EQ(read.Factor("kept"), 2);
}

}  // namespace
}  // namespace seqpar
