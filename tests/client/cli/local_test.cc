#include "client/cli/local.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "common/base/status.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

// Shell scripts stand in for the two binaries: what they were called with is in their logs.
constexpr char kCoordinator[] = R"(#!/bin/sh
echo "coordinator $*"
while [ $# -gt 0 ]; do
  if [ "$1" = --metrics-port-file ]; then echo 127.0.0.1:4712 > "$2"; fi
  if [ "$1" = --port-file ]; then echo 127.0.0.1:4711 > "$2"; fi
  shift
done
exec sleep 600
)";
constexpr char kWorker[] = "#!/bin/sh\necho \"worker $*\"\nexec sleep 600\n";

class LocalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_before_ = getenv("PATH");
    std::filesystem::create_directory(folder_ / "bin");
    setenv("PATH", ((folder_ / "bin") + ":" + path_before_).c_str(), 1);
    config_.data_dir = folder_.path();
    config_.port = 0;
    auto cluster = LocalCluster::Open(folder_ / "state");
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_.emplace(*std::move(cluster));
  }
  void TearDown() override {
    EXPECT_TRUE(cluster_->Stop().ok());
    setenv("PATH", path_before_.c_str(), 1);
  }
  void Install(const std::string& name, const std::string& script) {
    const std::string path = folder_ / ("bin/" + name);
    std::ofstream(path) << script;
    chmod(path.c_str(), 0755);
  }
  bool AnythingRuns() {
    return cluster_->coordinator().process.has_value() || cluster_->worker().process.has_value();
  }
  // A script has written its line when the log has it: its process runs before that.
  std::string LogOf(const LocalCluster::Member& member) {
    std::string text;
    while (text.find('\n') == std::string::npos) {
      std::ifstream file(member.log);
      std::ostringstream all;
      all << file.rdbuf();
      text = all.str();
    }
    return text;
  }

  TempFolder folder_;
  std::string path_before_;
  CliConfig config_;
  std::optional<LocalCluster> cluster_;
};

TEST_F(LocalTest, StartsBothAndStopsBoth) {
  Install("seqpar-coordinator", kCoordinator);
  Install("seqpar-worker", kWorker);
  config_.slots = 3;
  config_.memory_per_slot = "1GiB";
  const absl::Status started = cluster_->Start(config_);
  ASSERT_TRUE(started.ok()) << started;
  EXPECT_EQ(cluster_->address(), "127.0.0.1:4711");
  EXPECT_TRUE(cluster_->coordinator().process.has_value());
  EXPECT_TRUE(cluster_->worker().process.has_value());
  EXPECT_THAT(LogOf(cluster_->coordinator()), HasSubstr("--listen 127.0.0.1:0 "));
  EXPECT_THAT(LogOf(cluster_->worker()), HasSubstr("--coordinator 127.0.0.1:4711 "));
  EXPECT_THAT(LogOf(cluster_->worker()), HasSubstr("--cpu-slots 3 "));
  // Two clusters on a machine do not fight for the metrics' ports.
  EXPECT_THAT(LogOf(cluster_->worker()), HasSubstr("--metrics-listen 127.0.0.1:0 "));
  EXPECT_EQ(cluster_->coordinator().metrics, "127.0.0.1:4712");
  EXPECT_EQ(cluster_->worker().metrics, "") << "it has written none yet";
  EXPECT_THAT(LogOf(cluster_->worker()), HasSubstr("--memory-per-slot 1GiB"));
  EXPECT_THAT(LogOf(cluster_->worker()), HasSubstr("--data-root data=" + folder_.path()));

  const ProcessId first = *cluster_->coordinator().process;
  ASSERT_TRUE(cluster_->Start(config_).ok());
  EXPECT_FALSE(IsRunning(first));
  EXPECT_TRUE(cluster_->Stop().ok());
  EXPECT_FALSE(AnythingRuns());
  EXPECT_EQ(cluster_->address(), "");
  EXPECT_EQ(cluster_->coordinator().metrics, "");
  EXPECT_TRUE(cluster_->Stop().ok());
}

TEST_F(LocalTest, ACoordinatorThatEndsIsToldWithItsLog) {
  Install("seqpar-coordinator", "#!/bin/sh\necho the disk is full\nexit 1\n");
  Install("seqpar-worker", kWorker);
  const absl::Status status = cluster_->Start(config_);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(AnythingRuns());
}

TEST_F(LocalTest, AWorkerThatCannotStartLeavesNothingRunning) {
  Install("seqpar-coordinator", kCoordinator);
  const std::string bare_path = (folder_ / "bin") + ":/usr/bin:/bin";
  setenv("PATH", bare_path.c_str(), 1);
  const absl::Status status = cluster_->Start(config_);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("seqpar-worker"));
  EXPECT_FALSE(AnythingRuns());
}

TEST_F(LocalTest, StalePidsAreForgottenAndTheirProcessesLeftAlone) {
  const auto stranger = SpawnDaemon({"/bin/sleep", "600"}, folder_ / "log");
  ASSERT_TRUE(stranger.ok());
  // The pid of another boot.
  ASSERT_TRUE(WritePidFile(folder_ / "state/worker.pid", {stranger->pid, "5@earlier"}).ok());
  EXPECT_FALSE(AnythingRuns());
  EXPECT_TRUE(cluster_->Stop().ok());
  EXPECT_TRUE(IsRunning(*stranger));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "state/worker.pid"));
  EXPECT_TRUE(StopProcess(*stranger, 30).ok());
}

TEST_F(LocalTest, ATakenPortIsRefused) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(fd, reinterpret_cast<struct sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<struct sockaddr*>(&address), &size), 0);
  Install("seqpar-coordinator", kCoordinator);
  Install("seqpar-worker", kWorker);
  config_.port = ntohs(address.sin_port);
  EXPECT_THAT(std::string(cluster_->Start(config_).message()), HasSubstr("is taken"));
  EXPECT_FALSE(AnythingRuns());
  close(fd);
}

TEST_F(LocalTest, ADataFolderThatIsNotThereIsRefused) {
  config_.data_dir = folder_ / "none";
  EXPECT_EQ(cluster_->Start(config_).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace seqpar
