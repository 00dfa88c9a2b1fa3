#include "worker/daemon/executor_processes.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "common/base/log.h"
#include "tests/support/time.h"

namespace seqpar {
namespace {

// An executor is this program again, told to run one of these.
TEST(ExecutorProcessesChild, DISABLED_PrintsForEver) {
  std::string lines;
  while (lines.size() < 65536) lines += "a line that says nothing\n";
  while (write(STDOUT_FILENO, lines.data(), lines.size()) > 0) {
  }
}
TEST(ExecutorProcessesChild, DISABLED_PrintsAsMuchAsAPipeHolds) {
  const std::string text(60'000, 'x');
  const std::string line = text + "the end\n";
  _exit(write(STDOUT_FILENO, line.data(), line.size()) == static_cast<ssize_t>(line.size()) ? 0 : 1);
}

class ExecutorProcessesTest : public ::testing::Test {
 protected:
  ExecutorProcessesTest() { SetupLogging({.level = LogLevel::kError}); }  // what children print is logged
  ~ExecutorProcessesTest() override { SetupLogging({}); }

  void Start(const std::string& child) {
    processes_ = std::make_unique<ExecutorProcesses>(
        std::vector<std::string>{"executor", "--gtest_filter=ExecutorProcessesChild.DISABLED_" + child,
                                 "--gtest_also_run_disabled_tests"},
        [](const RankKey&) { return std::vector<std::string>(); });
    processes_->SetObserver({[](const RankKey&, const v1::FromExecutor&) {},
                             [this](const RankKey&, const char* data, size_t bytes) {
                               printed_.append(data, bytes);
                               if (printed_.size() > 2 * kKept) printed_.erase(0, printed_.size() - kKept);
                               printed_bytes_ += static_cast<int64_t>(bytes);
                             },
                             [this](const RankKey&, const ExecutorExit& exit) { how_it_ended_ = exit.how; }});
    const absl::Status started = processes_->Start(key_, v1::Run());
    ASSERT_TRUE(started.ok()) << started;
  }

  // One round of the daemon's loop; how much was read.
  int64_t Round() {
    const int64_t before = printed_bytes_;
    std::vector<pollfd> fds;
    processes_->AddPolls(&fds);
    if (poll(fds.data(), fds.size(), 1000) > 0) processes_->HandlePolls(fds, 0);
    return printed_bytes_ - before;
  }
  void RoundsUntilItEnds() {
    const auto end = std::chrono::steady_clock::now() + TestSeconds(30);
    while (how_it_ended_.empty() && std::chrono::steady_clock::now() < end) Round();
  }

  static constexpr size_t kKept = 100'000;
  const RankKey key_{"j-1", 1, 0};
  std::unique_ptr<ExecutorProcesses> processes_;
  std::string printed_;  // the last of it
  int64_t printed_bytes_ = 0;
  std::string how_it_ended_;
};

// It prints faster than anybody reads; heartbeats are sent between the rounds.
TEST_F(ExecutorProcessesTest, ARoundEndsThoughAnExecutorPrintsForEver) {
  Start("PrintsForEver");
  int64_t most = 0;
  for (int round = 0; round < 20; ++round) most = std::max(most, Round());
  EXPECT_GT(most, 0);
  EXPECT_LE(most, 1 << 20);
  processes_->Kill(key_);
  RoundsUntilItEnds();
  EXPECT_EQ(how_it_ended_, "was killed by signal 9 (Killed)");
}

TEST_F(ExecutorProcessesTest, AllThatAnExecutorHasPrintedIsReadBeforeItsEndIsTold) {
  Start("PrintsAsMuchAsAPipeHolds");
  RoundsUntilItEnds();
  EXPECT_EQ(how_it_ended_, "exited with code 0");
  EXPECT_GE(printed_bytes_, 60'000);
  EXPECT_NE(printed_.find("the end"), std::string::npos);
}

}  // namespace
}  // namespace seqpar
