#include "common/metrics/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/metrics/certificate_metrics.h"
#include "common/metrics/process_metrics.h"
#include "tests/support/scrape.h"
#include "tests/support/test_certificates.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(MetricRegistryTest, WhatIsKnownStartsAtZero) {
  MetricRegistry registry(MetricProcess::kCoordinator);
  registry.StartAtZero(Metric::kJobs);
  registry.StartAtZero(Metric::kJobPhaseSeconds);
  const auto series = SeriesOf(registry.Scrape());
  EXPECT_EQ(series.at("seqpar_jobs{phase=\"plan\",state=\"PENDING\"}"), 0);
  EXPECT_EQ(series.at("seqpar_jobs{phase=\"execute\",state=\"RUNNING\"}"), 0);
  EXPECT_EQ(series.at("seqpar_job_phase_seconds_count{phase=\"submit\"}"), 0);
  EXPECT_EQ(series.at("seqpar_job_phase_seconds_bucket{phase=\"submit\",le=\"+Inf\"}"), 0);
}

TEST(MetricRegistryTest, FirstLabelsCanBeGiven) {
  MetricRegistry registry(MetricProcess::kWorker);
  registry.StartAtZero(Metric::kDeviceSentBytes, {"a", "0"});
  registry.Counter(Metric::kDeviceSentBytes, {"a", "0", "ring", "network"}).Increment(7);
  const auto series = SeriesOf(registry.Scrape());
  EXPECT_EQ(
      series.at(R"(seqpar_device_sent_bytes_total{device="0",link="network",node="a",operation="ring"})"), 7);
  EXPECT_EQ(
      series.at(R"(seqpar_device_sent_bytes_total{device="0",link="local",node="a",operation="ulysses"})"),
      0);
}

TEST(MetricRegistryTest, ASeriesIsTheSameEachTimeAndGoesWhenRemoved) {
  MetricRegistry registry(MetricProcess::kWorker);
  registry.Counter(Metric::kDeviceTokens, {"a", "0"}).Increment(1);
  registry.Counter(Metric::kDeviceTokens, {"a", "0"}).Increment(2);
  registry.Counter(Metric::kDeviceTokens, {"a", "1"}).Increment(4);
  registry.StartAtZero(Metric::kDevicePhaseSeconds, {"a", "0"});
  registry.StartAtZero(Metric::kDevicePhaseSeconds, {"a", "1"});
  EXPECT_EQ(SeriesOf(registry.Scrape()).at(R"(seqpar_device_tokens_total{device="0",node="a"})"), 3);
  registry.Remove(Metric::kDeviceTokens, {"a", "0"});
  registry.Remove(Metric::kDevicePhaseSeconds, {"a", "0"});
  EXPECT_THAT(registry.Scrape(), Not(HasSubstr("device=\"0\"")));
  EXPECT_THAT(registry.Scrape(), HasSubstr("device=\"1\""));
  EXPECT_EQ(registry.Counter(Metric::kDeviceTokens, {"a", "0"}).Value(), 0);
}

TEST(MetricRegistryTest, ReplaceKeepsWhatIsGivenAndNothingElse) {
  MetricRegistry registry(MetricProcess::kCoordinator);
  registry.Replace(Metric::kNodeLeaseLeft, {{{"a"}, 1}, {{"b"}, 2}});
  registry.Replace(Metric::kNodeLeaseLeft, {{{"b"}, 3}, {{"c"}, 4}});
  const auto series = SeriesOf(registry.Scrape());
  EXPECT_EQ(series.count("seqpar_node_lease_left_seconds{node=\"a\"}"), 0u);
  EXPECT_EQ(series.at("seqpar_node_lease_left_seconds{node=\"b\"}"), 3);
  EXPECT_EQ(series.at("seqpar_node_lease_left_seconds{node=\"c\"}"), 4);
}

TEST(MetricRegistryTest, HooksRunBeforeTheSeriesAreRead) {
  MetricRegistry registry(MetricProcess::kCoordinator);
  int scrapes = 0;
  registry.OnScrape([&] { registry.Gauge(Metric::kTerm).Set(++scrapes); });
  registry.Scrape();
  EXPECT_EQ(SeriesOf(registry.Scrape()).at("seqpar_term"), 2);
}

TEST(MetricRegistryTest, EveryFamilyHasItsHelpAndType) {
  MetricRegistry registry(MetricProcess::kWorker);
  registry.StartAtZero(Metric::kDeviceBootstrapSeconds, {"a", "0"});
  const std::string text = registry.Scrape();
  EXPECT_THAT(text, HasSubstr(std::string("# HELP seqpar_device_bootstrap_seconds ") +
                              InfoOf(Metric::kDeviceBootstrapSeconds).help));
  EXPECT_THAT(text, HasSubstr("# TYPE seqpar_device_bootstrap_seconds histogram"));
}

TEST(MetricRegistryDeathTest, WhatIsNotInTheTableCannotBeHad) {
  MetricRegistry registry(MetricProcess::kCoordinator);
  EXPECT_DEATH(registry.Counter(Metric::kDeviceTokens, {"a", "0"}), "check failed");  // the worker's
  EXPECT_DEATH(registry.Counter(Metric::kJobsEnded, {}), "check failed");             // a label is missing
}

TEST(ProcessMetricsTest, AreReadAtEachScrape) {
  MetricRegistry registry(MetricProcess::kWorker);
  AddProcessMetrics("worker", &registry);
  auto series = SeriesOf(registry.Scrape());
  EXPECT_GT(series.at("seqpar_start_time_seconds"), 1.6e9);
  EXPECT_GT(series.at("seqpar_process_resident_memory_bytes"), 1e5);
  EXPECT_GE(series.at("seqpar_process_open_fds"), 3);
  const double before = series.at("seqpar_process_cpu_seconds_total");
  EXPECT_GT(before, 0);
  volatile double sum = 0;
  do {
    for (int i = 0; i < 1000000; ++i) sum = sum + i;
    series = SeriesOf(registry.Scrape());
  } while (series.at("seqpar_process_cpu_seconds_total") == before);
  EXPECT_GT(series.at("seqpar_process_cpu_seconds_total"), before);
}

TEST(CertificateMetricsTest, FollowTheFilesAndKeepWhatWasReadLast) {
  TestCertificates certificates;
  certificates.Issue("a", "DNS:a", "2027", "2028");
  MetricRegistry registry(MetricProcess::kCoordinator);
  AddCertificateMetrics(certificates.Cert("a"), certificates.Ca(), &registry);
  const std::string expiry = "seqpar_tls_certificate_expiry_timestamp_seconds{certificate=\"own\"}";
  auto series = SeriesOf(registry.Scrape());
  EXPECT_EQ(series.at(expiry), 1'830'297'600);
  EXPECT_EQ(series.at("seqpar_tls_certificate_lifetime_seconds{certificate=\"own\"}"), 365 * 24 * 3600);
  EXPECT_EQ(series.at("seqpar_tls_certificate_lifetime_seconds{certificate=\"authority\"}"), 2 * 24 * 3600);
  certificates.Issue("a", "DNS:a", "2027", "2029");
  EXPECT_EQ(SeriesOf(registry.Scrape()).at(expiry), 1'861'920'000);
  certificates.Run("x509 -in a.crt -outform DER -out a.crt");  // no PEM
  EXPECT_EQ(SeriesOf(registry.Scrape()).at(expiry), 1'861'920'000);
}

TEST(CertificateMetricsTest, ThereAreNoneWithoutTls) {
  MetricRegistry registry(MetricProcess::kWorker);
  AddCertificateMetrics("", "", &registry);
  EXPECT_THAT(registry.Scrape(), Not(HasSubstr("seqpar_tls_certificate_expiry_timestamp_seconds{")));
}

}  // namespace
}  // namespace seqpar
