#include "client/cli/coordinator_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>

namespace seqpar {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

// A shell script stands in for the binary; its pid is in the file "pid" beside it.
class PrivateCoordinatorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "seqpar-private-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    fs::create_directory(folder_ + "/bin");
    fs::create_directory(folder_ + "/tmp");
    path_before_ = getenv("PATH");
    const char* tmp = getenv("TMPDIR");
    if (tmp != nullptr) tmp_before_ = tmp;
    setenv("PATH", (folder_ + "/bin:" + path_before_).c_str(), 1);
    setenv("TMPDIR", (folder_ + "/tmp").c_str(), 1);
  }
  void TearDown() override {
    EXPECT_TRUE(fs::is_empty(folder_ + "/tmp")) << "a folder is left";
    setenv("PATH", path_before_.c_str(), 1);
    tmp_before_.has_value() ? setenv("TMPDIR", tmp_before_->c_str(), 1) : unsetenv("TMPDIR");
    fs::remove_all(folder_);
  }
  void Install(const std::string& body) {
    const std::string path = folder_ + "/bin/seqpar-coordinator";
    std::ofstream(path) << "#!/bin/sh\necho $$ > " << folder_ << "/pid\necho \"args $*\"\n" << body;
    chmod(path.c_str(), 0755);
  }
  pid_t Pid() {
    std::ifstream file(folder_ + "/pid");
    pid_t pid = 0;
    file >> pid;
    return pid;
  }

  std::string folder_, path_before_;
  std::optional<std::string> tmp_before_;
};

constexpr char kListens[] = R"(while [ $# -gt 0 ]; do
  if [ "$1" = --port-file ]; then echo 127.0.0.1:4711 > "$2"; fi
  shift
done
exec sleep 600
)";

TEST_F(PrivateCoordinatorTest, EndsWithTheObject) {
  Install(kListens);
  auto coordinator = PrivateCoordinator::Start(nullptr);
  ASSERT_TRUE(coordinator.ok()) << coordinator.status();
  EXPECT_EQ((*coordinator)->address(), "127.0.0.1:4711");
  EXPECT_TRUE(FindProcess(Pid()).has_value());
  const fs::path state = fs::directory_iterator(folder_ + "/tmp")->path();
  std::ifstream log(state / "log");
  const std::string text{std::istreambuf_iterator<char>(log), std::istreambuf_iterator<char>()};
  EXPECT_THAT(text, HasSubstr("--listen 127.0.0.1:0"));
  EXPECT_THAT(text, HasSubstr("--state-dir " + state.string()));
  EXPECT_THAT(text, HasSubstr("--data-root here=" + fs::current_path().string()));
  coordinator->reset();
  EXPECT_FALSE(FindProcess(Pid()).has_value());
}

TEST_F(PrivateCoordinatorTest, SaysWhatTheProcessSaidLast) {
  Install("echo 'disk is full' >&2; exit 1\n");
  const absl::Status status = PrivateCoordinator::Start(nullptr).status();
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("disk is full"));
}

TEST_F(PrivateCoordinatorTest, StopsWhereItIsInterrupted) {
  Install("exec sleep 600\n");
  const absl::Status status =
      PrivateCoordinator::Start([this] { return fs::exists(folder_ + "/pid") && Pid() > 0; }).status();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_FALSE(FindProcess(Pid()).has_value());
}

TEST_F(PrivateCoordinatorTest, WithoutTheBinaryItIsNotFound) {
  setenv("PATH", (folder_ + "/bin").c_str(), 1);
  EXPECT_TRUE(absl::IsNotFound(PrivateCoordinator::Start(nullptr).status()));
}

}  // namespace
}  // namespace seqpar
