#include "worker/config.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "common/base/cgroup.h"

namespace seqpar {
namespace {

ParsedWorkerConfig Parse(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "seqpar-worker");
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  return ParseWorkerConfig(static_cast<int>(pointers.size()), pointers.data());
}

TEST(WorkerConfigTest, HasDefaultsThatFitTheMachine) {
  const ParsedWorkerConfig parsed = Parse({});
  ASSERT_TRUE(parsed.run);
  const WorkerConfig& config = parsed.config;
  EXPECT_EQ(config.coordinator, "127.0.0.1:7700");
  EXPECT_FALSE(config.node_name.empty());
  EXPECT_EQ(config.cpu_slots, 1);
  EXPECT_EQ(config.threads_per_slot, UsableCores());
  EXPECT_GT(config.memory_per_slot, 0);
  EXPECT_EQ(config.memory_per_slot, static_cast<int64_t>(0.8 * static_cast<double>(UsableMemoryBytes())));
  EXPECT_EQ(config.data_interface, "lo") << "the coordinator is on this machine";
}

TEST(WorkerConfigTest, MetricsAreRequiredWhereTheyWereAskedFor) {
  const WorkerConfig standard = Parse({}).config;
  EXPECT_EQ(standard.metrics_listen, "127.0.0.1:7702");
  EXPECT_FALSE(standard.metrics_required) << "nobody asked for it: another process may have the port";
  const WorkerConfig by_flag = Parse({"--metrics-listen", "off", "--metrics-port-file", "/tmp/port"}).config;
  EXPECT_EQ(by_flag.metrics_listen, kMetricsOff);
  EXPECT_EQ(by_flag.metrics_port_file, "/tmp/port");
  setenv("SEQPAR_WORKER_METRICS_LISTEN", "127.0.0.1:0", 1);
  const WorkerConfig by_environment = Parse({}).config;
  unsetenv("SEQPAR_WORKER_METRICS_LISTEN");
  EXPECT_EQ(by_environment.metrics_listen, "127.0.0.1:0");
  EXPECT_TRUE(by_environment.metrics_required);
}

TEST(WorkerConfigTest, SlotsShareMemoryAndCores) {
  const int64_t one = Parse({}).config.memory_per_slot;
  const WorkerConfig many = Parse({"--cpu-slots", "1000"}).config;
  EXPECT_EQ(many.threads_per_slot, 1);
  EXPECT_EQ(many.memory_per_slot, one / 1000);
}

TEST(WorkerConfigTest, TakesRepeatedFlags) {
  const WorkerConfig config =
      Parse({"--data-root", "a=/x", "--data-root", "b=/y", "--labels", "zone=1", "--labels", "rack=r=2",
             "--memory-per-slot", "1.5GiB", "--coordinator", "head:7700", "--test-hold", "merge:/tmp/h",
             "--test-failpoints", "/tmp/f"})
          .config;
  ASSERT_EQ(config.data_roots.size(), 2u);
  EXPECT_EQ(config.data_roots[1].first, "b");
  EXPECT_EQ(config.labels.at("rack"), "r=2");
  EXPECT_EQ(config.memory_per_slot, 3ll << 29);
  EXPECT_EQ(config.data_interface, "") << "UCX chooses where the coordinator is elsewhere";
  EXPECT_EQ(config.holds.at(0).phase, "merge");
  EXPECT_EQ(config.test_failpoints, "/tmp/f");
}

TEST(WorkerConfigTest, TheEnvironmentIsBelowFlags) {
  setenv("SEQPAR_SERVER", "server:1", 1);
  EXPECT_EQ(Parse({}).config.coordinator, "server:1");
  setenv("SEQPAR_WORKER_COORDINATOR", "environment:2", 1);
  setenv("SEQPAR_WORKER_CPU_SLOTS", "3", 1);
  EXPECT_EQ(Parse({}).config.coordinator, "environment:2");
  EXPECT_EQ(Parse({}).config.cpu_slots, 3);
  EXPECT_EQ(Parse({"--coordinator", "flag:3"}).config.coordinator, "flag:3");
  for (const char* name : {"SEQPAR_SERVER", "SEQPAR_WORKER_COORDINATOR", "SEQPAR_WORKER_CPU_SLOTS"})
    unsetenv(name);
}

TEST(WorkerConfigTest, WhatIsWrongIsAUsageError) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"--cpu-slots", "0"},
                                             {"--no-such-flag"},
                                             {"--memory-per-slot", "much"},
                                             {"--memory-per-slot", "0"},
                                             {"--data-root", "no-path"},
                                             {"--labels", "=x"},
                                             {"--labels", "k=" + std::string(64, 'v')},
                                             {"--test-hold", "submit:/tmp/h"},
                                             {"--test-hold", "merge:"},
                                             {"--test-hold", "merge:/tmp/h", "--tls"},
                                             {"--test-failpoints", "/tmp/f", "--tls"},
                                             {"--test-failpoints", "/tmp/f", "--tls-ca", "ca.crt"},
                                             {"--log-level", "loud"},
                                             {"--coordinator", "head:99999"},
                                             {"--metrics-listen", "0.0.0.0"}}) {
    const ParsedWorkerConfig parsed = Parse(arguments);
    EXPECT_FALSE(parsed.run) << arguments[0];
    EXPECT_EQ(parsed.exit_code, 2) << arguments[0];
  }
  setenv("SEQPAR_SERVER", "head:http", 1);
  EXPECT_EQ(Parse({}).exit_code, 2);
  unsetenv("SEQPAR_SERVER");
  EXPECT_EQ(Parse({"--help"}).exit_code, 0);
  EXPECT_EQ(Parse({"--list-failpoints"}).exit_code, 0);
  EXPECT_FALSE(Parse({"--list-failpoints"}).run);
  EXPECT_FALSE(Parse({"--version"}).run);
}

}  // namespace
}  // namespace seqpar
