#include "coordinator/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

int Parse(std::vector<std::string> flags, CoordinatorConfig* config, std::string* errors = nullptr) {
  std::vector<char*> argv = {const_cast<char*>("seqpar-coordinator")};
  for (std::string& flag : flags) argv.push_back(flag.data());
  ::testing::internal::CaptureStderr();
  ::testing::internal::CaptureStdout();
  const int code = ParseCoordinatorFlags(static_cast<int>(argv.size()), argv.data(), config);
  ::testing::internal::GetCapturedStdout();
  const std::string printed = ::testing::internal::GetCapturedStderr();
  if (errors != nullptr) *errors = printed;
  return code;
}

TEST(CoordinatorConfig, Defaults) {
  CoordinatorConfig config;
  ASSERT_EQ(Parse({}, &config), -1);
  EXPECT_EQ(config.listen, "127.0.0.1:7700");
  EXPECT_EQ(config.engine.heartbeat_us, 1'000'000);
  EXPECT_EQ(config.engine.lease_us, 6'000'000);
  EXPECT_EQ(config.engine.forget_us, 3'600'000'000);
  EXPECT_EQ(config.engine.machine.bootstrap_timeout_us, 30'000'000);
  EXPECT_EQ(config.engine.machine.no_progress_timeout_us, 60'000'000);
  EXPECT_EQ(config.engine.machine.max_attempts, 3);
  EXPECT_TRUE(config.test_holds.empty());
  EXPECT_EQ(config.test_failpoints, "");
  EXPECT_EQ(config.metrics_listen, "127.0.0.1:7701");
  EXPECT_FALSE(config.metrics_required) << "nobody asked for it: another process may have the port";
}

TEST(CoordinatorConfig, MetricsAreRequiredWhereTheyWereAskedFor) {
  CoordinatorConfig by_flag, by_environment;
  ASSERT_EQ(Parse({"--metrics-listen", "off", "--metrics-port-file", "/tmp/port"}, &by_flag), -1);
  EXPECT_EQ(by_flag.metrics_listen, kMetricsOff);
  EXPECT_EQ(by_flag.metrics_port_file, "/tmp/port");
  setenv("SEQPAR_COORDINATOR_METRICS_LISTEN", "127.0.0.1:0", 1);
  const int code = Parse({}, &by_environment);
  unsetenv("SEQPAR_COORDINATOR_METRICS_LISTEN");
  ASSERT_EQ(code, -1);
  EXPECT_EQ(by_environment.metrics_listen, "127.0.0.1:0");
  EXPECT_TRUE(by_environment.metrics_required);
}

TEST(CoordinatorConfig, FlagsAndEnvironment) {
  CoordinatorConfig config;
  setenv("SEQPAR_COORDINATOR_LISTEN", "127.0.0.1:0", 1);
  const int code = Parse({"--data-root", "data=/srv", "--data-root=out=/out", "--lease", "2s",
                          "--max-attempts", "5", "--replace-slow-ranks", "2.5", "--measure-links", "2m",
                          "--test-hold", "place:/tmp/hold", "--test-failpoints", "/tmp/f"},
                         &config);
  unsetenv("SEQPAR_COORDINATOR_LISTEN");
  ASSERT_EQ(code, -1);
  EXPECT_EQ(config.listen, "127.0.0.1:0");
  ASSERT_EQ(config.data_roots.size(), 2u);
  EXPECT_EQ(config.data_roots[1].first, "out");
  EXPECT_EQ(config.engine.machine.max_attempts, 5);
  EXPECT_EQ(config.engine.machine.slow_ranks.factor, 2.5);
  EXPECT_TRUE(config.engine.links.on);
  EXPECT_EQ(config.engine.links.idle_us, 120'000'000);
  // A worker's lease ends after half of a short one: time for several heartbeats.
  EXPECT_EQ(config.engine.heartbeat_us, 2'000'000 / 6);
  EXPECT_EQ(config.test_holds.at(JobPhase::kPlace), "/tmp/hold");
  EXPECT_EQ(config.test_failpoints, "/tmp/f");
}

TEST(CoordinatorConfig, LinksAreMeasuredUnlessItIsOff) {
  CoordinatorConfig usual, off;
  EXPECT_EQ(Parse({}, &usual), -1);
  EXPECT_TRUE(usual.engine.links.on);
  EXPECT_EQ(Parse({"--measure-links", "off"}, &off), -1);
  EXPECT_FALSE(off.engine.links.on);
}

TEST(CoordinatorConfig, LostNodesAreForgottenUnlessItIsNever) {
  CoordinatorConfig late, never;
  EXPECT_EQ(Parse({"--forget-nodes", "2m"}, &late), -1);
  EXPECT_EQ(late.engine.forget_us, 120'000'000);
  EXPECT_EQ(Parse({"--forget-nodes", "0"}, &never), -1);
  EXPECT_EQ(never.engine.forget_us, 0);
}

TEST(CoordinatorConfig, OtherAddressesThanLoopbackAreAskedFor) {
  for (const char* address : {"0.0.0.0:7700", "[::]:7700", "head:7700"}) {
    CoordinatorConfig config;
    std::string printed;
    EXPECT_EQ(Parse({"--listen", address}, &config, &printed), 2) << address;
    EXPECT_THAT(printed, HasSubstr("--listen"));
    EXPECT_THAT(printed, HasSubstr("127.0.0.1:7700"));
    EXPECT_THAT(printed, HasSubstr("--allow-insecure"));
    CoordinatorConfig allowed;
    EXPECT_EQ(Parse({"--listen", address, "--allow-insecure"}, &allowed), -1) << address;
    EXPECT_EQ(allowed.listen, address);
  }
  CoordinatorConfig config;
  setenv("SEQPAR_COORDINATOR_ALLOW_INSECURE", "true", 1);
  EXPECT_EQ(Parse({"--listen", "0.0.0.0:7700"}, &config), -1);
  unsetenv("SEQPAR_COORDINATOR_ALLOW_INSECURE");
}

TEST(CoordinatorConfig, RefusalsNameTheNearest) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> refused = {
      {{"--listen", "127.0.0.1:99999"},
       "--listen: is '127.0.0.1:99999'; the port must be 0 to 65535; nearest: 127.0.0.1:7700"},
      {{"--metrics-listen", "127.0.0.1"}, "must be HOST:PORT; nearest: 127.0.0.1:7701"},
      {{"--max-attempts", "0"}, "--max-attempts: is '0'; must be 1 to 1000; nearest: 1"},
      {{"--max-jobs", "99999999"}, "--max-jobs: is '99999999'; must be 1 to 10000000; nearest: 10000000"},
      {{"--log-level", "warn"}, "must be one of debug, info, warning, error; nearest: warning"},
      {{"--measure-links", "never"},
       "--measure-links: 'never' is not a duration such as 500ms or 6s, or off"},
      {{"--forget-nodes", "never"},
       "--forget-nodes: 'never' is not a duration such as 500ms or 6s, or 0 for never"},
      {{"--leese", "6s"}, "no flag is called '--leese'; nearest: --lease"},
  };
  for (const auto& [flags, said] : refused) {
    CoordinatorConfig config;
    std::string printed;
    EXPECT_EQ(Parse(flags, &config, &printed), 2) << flags[0];
    EXPECT_THAT(printed, HasSubstr(said));
  }
}

TEST(CoordinatorConfig, TlsAndTokensComeTogether) {
  const std::vector<std::string> tls = {"--tls-cert", "c", "--tls-key", "k"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), tls.begin(), tls.end());
    return more;
  };
  CoordinatorConfig config;
  std::string printed;
  ASSERT_EQ(Parse(with({"--tokens", "t", "--tls-client-ca", "a", "--tls-require-client-cert", "--listen",
                        "0.0.0.0:1", "--data-root", "search/data=/srv"}),
                  &config, &printed),
            -1)
      << printed;
  EXPECT_EQ(config.tls.cert_file, "c");
  EXPECT_EQ(config.tls.key_file, "k");
  EXPECT_EQ(config.tls.client_ca_file, "a");
  EXPECT_TRUE(config.tls.require_client_cert);
  EXPECT_EQ(config.tokens_file, "t");
  const std::vector<std::pair<std::vector<std::string>, std::string>> refused = {
      {tls, "needs --tokens"},
      {{"--tokens", "t"}, "never travels without TLS"},
      {{"--data-root", "search/data=/srv"}, "one tenant's alone"},
      {with({"--tokens", "t", "--test-hold", "plan:/x"}), "not with TLS"},
      {with({"--tokens", "t", "--test-failpoints", "/x"}), "--test-failpoints: is for tests: not with TLS"},
  };
  for (const auto& [flags, why] : refused) {
    CoordinatorConfig other;
    EXPECT_EQ(Parse(flags, &other, &printed), 2) << why;
    EXPECT_THAT(printed, HasSubstr(why));
  }
}

TEST(CoordinatorConfig, TenantsAreReadFromTheirFile) {
  const TempFolder folder;
  const std::string path = folder / "tenants";
  std::ofstream(path) << "tenant=search devices=8\n";
  CoordinatorConfig config;
  ASSERT_EQ(Parse({"--tenants", path}, &config), -1);
  EXPECT_EQ(config.engine.tenants.Of("search").devices, 8);
  EXPECT_EQ(config.engine.tenants.Of("vision").devices, TenantLimits::kNone);
  std::ofstream(path) << "tenant=search gpus=8\n";
  std::string errors;
  EXPECT_EQ(Parse({"--tenants", path}, &config, &errors), 2);
  EXPECT_THAT(errors, HasSubstr("line 1: has a field gpus"));
  EXPECT_THAT(errors, HasSubstr(path));
}

TEST(CoordinatorConfig, Refusals) {
  const std::vector<std::vector<std::string>> refused = {
      {"--lease", "6"},
      {"--lease", "-1s"},
      {"--lease", "2s", "--heartbeat", "1s"},
      {"--data-root", "no path"},
      {"--max-attempts", "0"},
      {"--replace-slow-ranks", "1.1"},
      {"--replace-slow-ranks", "-2"},
      {"--replace-slow-ranks", "nan"},
      {"--replace-slow-ranks", "inf"},
      {"--log-level", "loud"},
      {"--log-format", "xml"},
      {"--test-hold", "lunch:/tmp/hold"},
      {"--no-such-flag"},
      {"--listen", "0.0.0.0:7700"},
      {"--listen", ":7700"},
  };
  for (const std::vector<std::string>& flags : refused) {
    CoordinatorConfig config;
    EXPECT_EQ(Parse(flags, &config), 2) << flags.front() << " " << flags.back();
  }
  CoordinatorConfig config;
  EXPECT_EQ(Parse({"--help"}, &config), 0);
  EXPECT_EQ(Parse({"--list-failpoints", "-o", "json"}, &config), 0);
  EXPECT_EQ(Parse({"--list-failpoints", "-o", "xml"}, &config), 2);
  EXPECT_EQ(Parse({"--version"}, &config), 0);
}

}  // namespace
}  // namespace seqpar
