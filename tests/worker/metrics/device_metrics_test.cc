#include "worker/metrics/device_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/scrape.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class DeviceMetricsTest : public ::testing::Test {
 protected:
  DeviceMetricsTest() { SetDevices(2); }

  void SetDevices(int count) {
    v1::NodeSpec node;
    for (int i = 0; i < count; ++i) {
      v1::DeviceSpec* device = node.add_devices();
      device->set_kind("cuda");
      device->set_name("NVIDIA H200");
      device->mutable_gpu()->set_uuid("GPU-" + std::to_string(i));
      device->set_memory_bytes(1 << 20);
      device->mutable_rates()->set_peak_flops(5e12);
    }
    metrics_.SetDevices(node);
  }

  static v1::StartRanks Start() {
    v1::StartRanks start;
    start.mutable_plan()->set_strategy(v1::STRATEGY_ULYSSES);
    start.mutable_plan()->mutable_prediction()->set_step_seconds(2.5);
    for (int i = 0; i < 3; ++i) start.mutable_plan()->add_ranks()->set_predicted_peak_bytes(1000 + i);
    start.mutable_job()->mutable_verify()->set_rows(1);
    start.mutable_job()->mutable_verify()->set_max_error(0.5);
    return start;
  }

  static v1::RankProgress Progress(double tokens, int64_t ring_bytes) {
    v1::RankProgress progress;
    progress.set_percent(50);
    progress.set_used_bytes(600);
    progress.set_peak_bytes(700);
    v1::RankTotals* totals = progress.mutable_totals();
    totals->set_tokens(tokens);
    totals->set_attention_seconds(tokens / 10);
    totals->set_communication_exposed_seconds(tokens / 100);
    v1::Traffic* traffic = totals->add_traffic();
    traffic->set_operation("ring");
    traffic->set_link("network");
    traffic->set_bytes(ring_bytes);
    traffic->set_messages(1);
    return progress;
  }

  static void AddPhase(const std::string& name, double seconds, v1::RankProgress* progress) {
    v1::PhaseSeconds* phase = progress->mutable_totals()->add_phases();
    phase->set_phase(name);
    phase->set_seconds(seconds);
  }

  // Of device 1: name{device="1",more...,node="a"}; -1: there is none.
  double Of1(const std::string& name, const std::string& more = "") {
    return Value(name + "{device=\"1\"," + (more.empty() ? "" : more + ",") + "node=\"a\"}");
  }
  double Value(const std::string& series) {
    const auto all = SeriesOf(registry_.Scrape());
    return all.count(series) == 0 ? -1 : all.at(series);
  }

  FakeClock clock_;
  MetricRegistry registry_{MetricProcess::kWorker};
  DeviceMetrics metrics_{"a", &registry_, &clock_};
  const RankKey key_{"j-1", 2, 1};
};

TEST_F(DeviceMetricsTest, EveryDeviceBeginsAtZeroAndSaysWhatItIs) {
  EXPECT_EQ(Of1("seqpar_device_tokens_total"), 0);
  EXPECT_EQ(Of1("seqpar_device_compute_seconds_total", "kernel=\"other\""), 0);
  EXPECT_EQ(Of1("seqpar_device_sent_bytes_total", "link=\"local\""), -1) << "operation is missing";
  EXPECT_EQ(Value(R"(seqpar_device_sent_bytes_total{device="1",link="local",node="a",operation="gather"})"),
            0);
  EXPECT_EQ(Of1("seqpar_device_bootstrap_seconds_count"), 0);
  EXPECT_EQ(Of1("seqpar_device_memory_limit_bytes"), 1 << 20);
  EXPECT_EQ(Of1("seqpar_device_peak_flops_per_second"), 5e12);
  EXPECT_EQ(Value(R"(seqpar_device_info{UUID="GPU-1",device="1",kind="cuda",model="NVIDIA H200",node="a"})"),
            1);
  EXPECT_THAT(registry_.Scrape(), Not(HasSubstr("seqpar_rank_info{")));
}

TEST_F(DeviceMetricsTest, SeriesGoWithTheirDevice) {
  SetDevices(1);
  EXPECT_THAT(registry_.Scrape(), Not(HasSubstr("device=\"1\"")));
  EXPECT_THAT(registry_.Scrape(), HasSubstr("device=\"0\""));
}

TEST_F(DeviceMetricsTest, ARankIsShownWhileItRuns) {
  const std::string info =
      R"(seqpar_rank_info{attempt="2",device="1",job_id="j-1",node="a",rank="1",strategy="ulysses"})";
  metrics_.RankStarted(key_, 1, Start());
  EXPECT_EQ(Value(info), 1);
  EXPECT_EQ(Of1("seqpar_device_busy"), 1);
  EXPECT_EQ(Of1("seqpar_device_memory_predicted_bytes"), 1001);
  EXPECT_EQ(Of1("seqpar_device_predicted_step_seconds"), 2.5);
  EXPECT_EQ(Of1("seqpar_device_executors_started_total"), 1);
  metrics_.RankProgressed(key_, Progress(10, 100));
  EXPECT_EQ(Of1("seqpar_rank_progress_ratio"), 0.5);
  EXPECT_EQ(Of1("seqpar_device_memory_used_bytes"), 600);
  metrics_.RankEnded(key_);
  EXPECT_EQ(Value(info), -1);
  EXPECT_EQ(Of1("seqpar_rank_progress_ratio"), -1);
  EXPECT_EQ(Of1("seqpar_device_busy"), 0);
  EXPECT_EQ(Of1("seqpar_device_memory_used_bytes"), 0);
  EXPECT_EQ(Of1("seqpar_device_memory_peak_bytes"), 700) << "of the rank that ran last";
}

TEST_F(DeviceMetricsTest, CountersGoOnWhereTheExecutorBeforeLeftThem) {
  const std::string ring =
      R"(seqpar_device_sent_bytes_total{device="1",link="network",node="a",operation="ring"})";
  metrics_.RankStarted(key_, 1, Start());
  metrics_.RankProgressed(key_, Progress(10, 100));
  metrics_.RankProgressed(key_, Progress(30, 150));
  EXPECT_EQ(Of1("seqpar_device_tokens_total"), 30);
  EXPECT_EQ(Value(ring), 150);
  // The last report of a rank may no longer have all of its sources.
  metrics_.RankProgressed(key_, v1::RankProgress());
  EXPECT_EQ(Of1("seqpar_device_tokens_total"), 30);
  metrics_.RankEnded(key_);
  EXPECT_EQ(Of1("seqpar_device_executor_restarts_total"), 1) << "it had not finished";

  const RankKey next{"j-1", 3, 0};
  metrics_.RankStarted(next, 1, Start());
  metrics_.RankProgressed(next, Progress(5, 20));
  EXPECT_EQ(Of1("seqpar_device_tokens_total"), 35);
  EXPECT_EQ(Of1("seqpar_device_compute_seconds_total", "kernel=\"attention\""), 3.5);
  EXPECT_DOUBLE_EQ(Of1("seqpar_device_communication_exposed_seconds_total"), 0.35);
  EXPECT_EQ(Value(ring), 170);
  EXPECT_EQ(
      Value(R"(seqpar_device_sent_messages_total{device="1",link="network",node="a",operation="ring"})"), 2);
}

TEST_F(DeviceMetricsTest, ABootstrapIsObservedOnceItIsOver) {
  metrics_.RankStarted(key_, 1, Start());
  v1::RankProgress progress;
  AddPhase("bootstrap", 0.2, &progress);
  metrics_.RankProgressed(key_, progress);
  EXPECT_EQ(Of1("seqpar_device_bootstrap_seconds_count"), 0);
  EXPECT_EQ(Of1("seqpar_device_phase_seconds_total", "node=\"a\",phase=\"bootstrap\""), -1);
  EXPECT_EQ(Value(R"(seqpar_device_phase_seconds_total{device="1",node="a",phase="bootstrap"})"), 0.2);
  progress.Clear();
  AddPhase("bootstrap", 0.3, &progress);
  AddPhase("shard", 0.1, &progress);
  metrics_.RankProgressed(key_, progress);
  metrics_.RankProgressed(key_, progress);
  EXPECT_EQ(Of1("seqpar_device_bootstrap_seconds_count"), 1);
  EXPECT_EQ(Of1("seqpar_device_bootstrap_seconds_sum"), 0.3);
}

TEST_F(DeviceMetricsTest, AFinishedRankLeavesItsVerificationAndNoRestart) {
  metrics_.RankStarted(key_, 1, Start());
  v1::RankEvent event;
  event.set_kind(v1::RankEvent::FINISHED);
  event.mutable_report()->set_peak_bytes(900);
  event.mutable_report()->set_verify_error(0.25);
  event.mutable_verification()->set_ran(true);
  metrics_.RankReported(key_, event);
  metrics_.RankEnded(key_);
  EXPECT_EQ(Of1("seqpar_device_executor_restarts_total"), 0);
  EXPECT_EQ(Of1("seqpar_device_memory_peak_bytes"), 900);
  EXPECT_EQ(Of1("seqpar_device_verification_error"), 0.25);
  EXPECT_EQ(Of1("seqpar_device_verification_error_bound"), 0.5);
}

TEST_F(DeviceMetricsTest, ADeviceThatIsSetAsideIsShown) {
  EXPECT_EQ(Of1("seqpar_device_set_aside"), 0);
  metrics_.DeviceSetAside(1, true);
  EXPECT_EQ(Of1("seqpar_device_set_aside"), 1);
  metrics_.DeviceSetAside(1, false);
  EXPECT_EQ(Of1("seqpar_device_set_aside"), 0);
}

TEST_F(DeviceMetricsTest, TheStreamToTheCoordinatorIsShown) {
  EXPECT_FALSE(metrics_.attached());
  metrics_.Attached(false);
  EXPECT_EQ(Value("seqpar_worker_attached{node=\"a\"}"), 0);
  metrics_.Attached(true);
  metrics_.LeaseExtended(clock_.BootMicros() + 4'000'000);
  metrics_.HeartbeatAnswered(20'000);
  clock_.AdvanceMicros(1'000'000);
  EXPECT_TRUE(metrics_.attached());
  EXPECT_EQ(Value("seqpar_worker_attaches_total{node=\"a\"}"), 1);
  EXPECT_EQ(Value("seqpar_worker_lease_left_seconds{node=\"a\"}"), 3);
  EXPECT_EQ(Value("seqpar_worker_heartbeat_seconds_sum{node=\"a\"}"), 0.02);
  clock_.AdvanceMicros(9'000'000);
  EXPECT_EQ(Value("seqpar_worker_lease_left_seconds{node=\"a\"}"), 0);
}

}  // namespace
}  // namespace seqpar
