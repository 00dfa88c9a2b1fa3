#include "client/cli/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

class ProcessTest : public ::testing::Test {
 protected:
  absl::StatusOr<ProcessId> Shell(const std::string& script) {
    return SpawnDaemon({"/bin/sh", "-c", script}, folder_ / "log");
  }
  std::string Log() {
    std::ifstream file(folder_ / "log");
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }

  TempFolder folder_;
};

TEST_F(ProcessTest, RunsInASessionOfItsOwnAndStopsOnSigterm) {
  const auto process = Shell("echo hello; exec sleep 600");
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_TRUE(IsRunning(*process));
  EXPECT_EQ(getsid(process->pid), process->pid);
  EXPECT_TRUE(StopProcess(*process, 30).ok());
  EXPECT_FALSE(IsRunning(*process));
  EXPECT_TRUE(StopProcess(*process, 30).ok());
}

TEST_F(ProcessTest, KillsWhatIgnoresSigterm) {
  // The shell says so when it ignores the signal; without that the signal could come first.
  const auto process =
      Shell("trap '' TERM; echo deaf > " + (folder_ / "deaf") + "; while :; do sleep 600; done");
  ASSERT_TRUE(process.ok()) << process.status();
  while (!std::filesystem::exists(folder_ / "deaf")) usleep(1000);
  EXPECT_TRUE(StopProcess(*process, 0.1).ok());
  EXPECT_FALSE(IsRunning(*process));
}

TEST_F(ProcessTest, StopsAStoppedProcess) {
  const auto process = Shell("exec sleep 600");
  ASSERT_TRUE(process.ok()) << process.status();
  kill(process->pid, SIGSTOP);
  EXPECT_TRUE(StopProcess(*process, 30).ok());
  EXPECT_FALSE(IsRunning(*process));
}

TEST_F(ProcessTest, NeverTouchesAProcessThatOnlyHasThePid) {
  const auto process = Shell("exec sleep 600");
  ASSERT_TRUE(process.ok()) << process.status();
  ProcessId other = *process;
  other.start = "1@another-boot";
  EXPECT_FALSE(IsRunning(other));
  EXPECT_TRUE(StopProcess(other, 1).ok());
  EXPECT_TRUE(IsRunning(*process));
  EXPECT_TRUE(StopProcess(*process, 30).ok());
}

TEST_F(ProcessTest, OneOfTheParentEndsWithIt) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    const auto process =
        SpawnDaemon({"/bin/sh", "-c", "exec sleep 600"}, folder_ / "log", Lifetime::kOfParent);
    const pid_t pid = process.ok() ? process->pid : 0;
    const ssize_t written = write(ends[1], &pid, sizeof(pid));
    static_cast<void>(written);
    pause();
    _exit(0);
  }
  pid_t pid = 0;
  ASSERT_EQ(read(ends[0], &pid, sizeof(pid)), static_cast<ssize_t>(sizeof(pid)));
  const std::optional<ProcessId> child = FindProcess(pid);
  EXPECT_TRUE(child.has_value());
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  for (int i = 0; i < 30000 && IsRunning(child.value_or(ProcessId())); ++i) usleep(1000);
  EXPECT_FALSE(IsRunning(child.value_or(ProcessId())));
  close(ends[0]);
  close(ends[1]);
}

TEST_F(ProcessTest, AZombieIsGone) {
  const pid_t pid = fork();
  if (pid == 0) _exit(0);
  siginfo_t info;
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
  EXPECT_FALSE(FindProcess(pid).has_value());
  waitpid(pid, nullptr, 0);
}

TEST_F(ProcessTest, SaysWhyABinaryDoesNotStart) {
  const auto process = SpawnDaemon({"/no/such/binary"}, folder_ / "log");
  EXPECT_EQ(process.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(std::string(process.status().message()).find("/no/such/binary"), std::string::npos);
  EXPECT_FALSE(FindBinary("no-such-binary-of-seqpar").ok());
  EXPECT_TRUE(FindBinary("sh").ok());
}

TEST_F(ProcessTest, PidFilesRoundTripAndRefuseGarbage) {
  const ProcessId process{42, "123@boot"};
  const std::string path = folder_ / "pid";
  EXPECT_FALSE(ReadPidFile(path).has_value());
  ASSERT_TRUE(WritePidFile(path, process).ok());
  EXPECT_EQ(ReadPidFile(path), process);
  std::ofstream(path) << "not a pid\n";
  EXPECT_FALSE(ReadPidFile(path).has_value());
}

}  // namespace
}  // namespace seqpar
