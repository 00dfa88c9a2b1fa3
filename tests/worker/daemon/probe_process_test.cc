#include "worker/daemon/probe_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "worker/daemon/executor_processes.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

// A probe is this program again, told to run one of these.
TEST(ProbeProcessChild, DISABLED_Hangs) {
  while (true) pause();
}
TEST(ProbeProcessChild, DISABLED_Answers) {
  std::printf("the answer\n");
  std::fflush(stdout);
  _exit(0);
}
TEST(ProbeProcessChild, DISABLED_Fails) {
  std::fprintf(stderr, "first line\nwhat is missing\n");
  _exit(1);
}
TEST(ProbeProcessChild, DISABLED_FailsWithoutAWord) { _exit(3); }
// Its outputs end long before it does.
TEST(ProbeProcessChild, DISABLED_ClosesAndHangs) {
  close(STDOUT_FILENO);
  close(STDERR_FILENO);
  while (true) pause();
}

std::unique_ptr<ProbeProcess> Start(const std::string& child, int64_t timeout_us) {
  auto probe = ProbeProcess::Start("the look",
                                   {"probe", "--gtest_filter=ProbeProcessChild.DISABLED_" + child,
                                    "--gtest_also_run_disabled_tests", "--gtest_print_time=0"},
                                   EnvironmentWith({}), timeout_us);
  EXPECT_TRUE(probe.ok()) << probe.status();
  return std::move(probe).value();
}

class ProbeProcessTest : public ::testing::Test {
 protected:
  const UniqueFd never_{eventfd(0, EFD_CLOEXEC)};
};

constexpr int64_t kLong = 60'000'000, kShort = 100'000;

TEST_F(ProbeProcessTest, TellsWhatItsProcessPrinted) {
  const auto answer = Start("Answers", kLong)->Wait(never_.get());
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(*answer, HasSubstr("the answer"));
}

TEST_F(ProbeProcessTest, AFailureIsItsLastLine) {
  EXPECT_EQ(Start("Fails", kLong)->Wait(never_.get()).status(), absl::UnavailableError("what is missing"));
  EXPECT_THAT(std::string(Start("FailsWithoutAWord", kLong)->Wait(never_.get()).status().message()),
              HasSubstr("the look: the process exited with code 3"));
}

TEST_F(ProbeProcessTest, ItsDeadlineIsKept) {
  for (const char* child : {"Hangs", "ClosesAndHangs"}) {
    const absl::Status status = Start(child, kShort)->Wait(never_.get()).status();
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << child << status;
  }
  EXPECT_EQ(ProbeProcess::Undead(), 0) << "they were killed, and are not waited for";
}

TEST_F(ProbeProcessTest, StopsWaitingWhenTold) {
  const UniqueFd stop(eventfd(1, EFD_CLOEXEC));
  EXPECT_TRUE(absl::IsCancelled(Start("Hangs", kLong)->Wait(stop.get()).status()));
}

TEST_F(ProbeProcessTest, WhoReapsOrphansLeavesItsProcessAlone) {
  const auto probe = Start("Fails", kLong);
  const ExecutorProcesses processes({}, [](const RankKey&) { return std::vector<std::string>(); });
  pollfd gone = {-1, POLLIN, 0};
  std::vector<pollfd> fds;
  probe->AddPolls(&fds);
  gone.fd = fds[0].fd;  // readable once it is a zombie
  ASSERT_EQ(poll(&gone, 1, 60'000), 1);
  processes.ReapOrphans();
  EXPECT_EQ(probe->Wait(never_.get()).status(), absl::UnavailableError("what is missing"));
}

TEST_F(ProbeProcessTest, PollsWithoutWaiting) {
  const auto probe = Start("Hangs", kLong);
  EXPECT_FALSE(probe->Poll().has_value());
  std::vector<pollfd> fds;
  probe->AddPolls(&fds);
  EXPECT_FALSE(fds.empty());
}

}  // namespace
}  // namespace seqpar
