#include "coordinator/commit/staging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/base/status.h"
#include "common/job/tensors.h"
#include "tests/coordinator/job_machine/samples.h"
#include "tests/support/armed_failpoints.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

std::string Read(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void Write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
int64_t Inode(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 ? static_cast<int64_t>(info.st_ino) : 0;
}
bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

class StagingTest : public ::testing::Test {
 protected:
  StagingTest() {
    spec_ = SampleSpec();
    spec_.output_file = folder_ / "out.safetensors";
  }
  std::string Staging(int attempt) const { return StagingPath(spec_.output_file, "j-1", attempt); }

  TempFolder folder_;
  const DataRoots roots_ = *DataRoots::Create({{"data", folder_.path()}});
  JobSpec spec_;
};

TEST_F(StagingTest, LiesBesideItsTargetHidden) {
  EXPECT_EQ(StagingPath("/data/a/out.safetensors", "j-1", 2),
            "/data/a/.out.safetensors.seqpar-j-1-2.partial");
}

TEST_F(StagingTest, IsAllocatedInFullWithItsHeader) {
  ASSERT_TRUE(PrepareStaging(roots_, spec_, "j-1", 1).ok());
  SafetensorsHeader layout;
  const std::string header = BuildOutputHeader(spec_, &layout);
  struct stat info;
  ASSERT_EQ(stat(Staging(1).c_str(), &info), 0);
  EXPECT_EQ(info.st_size, layout.file_bytes);
  EXPECT_GE(info.st_blocks * 512, layout.file_bytes);  // no holes
  EXPECT_EQ(Read(Staging(1)).substr(0, header.size()), header);
  EXPECT_FALSE(Exists(spec_.output_file));
}

TEST_F(StagingTest, OfEarlierAttemptsIsUnlinked) {
  ASSERT_TRUE(PrepareStaging(roots_, spec_, "j-1", 1).ok());
  ASSERT_TRUE(PrepareStaging(roots_, spec_, "j-1", 2).ok());
  EXPECT_FALSE(Exists(Staging(1)));
  EXPECT_TRUE(Exists(Staging(2)));
  // That of the same attempt too, left by a process that died before it began.
  EXPECT_TRUE(PrepareStaging(roots_, spec_, "j-1", 2).ok());
  UnlinkStaging(roots_, spec_, "j-1", 2);
  EXPECT_FALSE(Exists(Staging(2)));
}

TEST_F(StagingTest, CommitGivesItTheNameAndMayBeRepeated) {
  ASSERT_TRUE(PrepareStaging(roots_, spec_, "j-1", 1).ok());
  const std::string bytes = Read(Staging(1));
  const absl::StatusOr<int64_t> inode = SyncStaging(roots_, spec_, "j-1", 1);
  ASSERT_TRUE(inode.ok()) << inode.status();
  EXPECT_EQ(*inode, Inode(Staging(1)));
  for (const char* time : {"the first", "after a crash"}) {
    ASSERT_TRUE(CommitStaging(roots_, spec_, "j-1", 1, *inode).ok()) << time;
    EXPECT_FALSE(Exists(Staging(1)));
    EXPECT_EQ(Read(spec_.output_file), bytes);
  }
  // Recorded before inodes were.
  EXPECT_TRUE(CommitStaging(roots_, spec_, "j-1", 1, 0).ok());
}

TEST_F(StagingTest, AnOldTargetIsNotTakenForAResultThatIsGone) {
  spec_.overwrite = true;
  Write(spec_.output_file, "of last week");
  ASSERT_TRUE(PrepareStaging(roots_, spec_, "j-1", 1).ok());
  const absl::StatusOr<int64_t> inode = SyncStaging(roots_, spec_, "j-1", 1);
  ASSERT_TRUE(inode.ok()) << inode.status();
  unlink(Staging(1).c_str());
  const absl::Status gone = CommitStaging(roots_, spec_, "j-1", 1, *inode);
  EXPECT_EQ(gone.code(), absl::StatusCode::kNotFound) << gone;
  EXPECT_EQ(ReasonOf(gone), reason::kStorage);
  EXPECT_THAT(std::string(gone.message()), HasSubstr("is another"));
  EXPECT_EQ(Read(spec_.output_file), "of last week");
}

TEST_F(StagingTest, CommitGoesOnBetweenLinkAndUnlink) {
  ASSERT_TRUE(PrepareStaging(roots_, spec_, "j-1", 1).ok());
  ASSERT_EQ(link(Staging(1).c_str(), spec_.output_file.c_str()), 0);
  EXPECT_TRUE(CommitStaging(roots_, spec_, "j-1", 1, Inode(Staging(1))).ok());
  EXPECT_FALSE(Exists(Staging(1)));
  EXPECT_TRUE(Exists(spec_.output_file));
}

TEST_F(StagingTest, CommitRefusesAnothersFileUnlessToldTo) {
  ASSERT_TRUE(PrepareStaging(roots_, spec_, "j-1", 1).ok());
  Write(spec_.output_file, "somebody else's");
  const absl::Status refused = CommitStaging(roots_, spec_, "j-1", 1, Inode(Staging(1)));
  EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReasonOf(refused), reason::kStorage);
  EXPECT_EQ(Read(spec_.output_file), "somebody else's");
  spec_.overwrite = true;
  EXPECT_TRUE(CommitStaging(roots_, spec_, "j-1", 1, Inode(Staging(1))).ok());
  EXPECT_NE(Read(spec_.output_file), "somebody else's");
}

TEST_F(StagingTest, AnOutputThatIsNotKnownToBeOnDiskDoesNotKeepItsName) {
  const ArmedFailpoints failpoints;
  ASSERT_TRUE(PrepareStaging(roots_, spec_, "j-1", 1).ok());
  for (const char* point : {"coordinator.commit.rename", "coordinator.commit.fsync"}) {
    failpoints.Arm(point, "error");
    const absl::Status failed = CommitStaging(roots_, spec_, "j-1", 1, Inode(Staging(1)));
    EXPECT_EQ(failed.code(), absl::StatusCode::kInternal) << "one that may pass";
    EXPECT_EQ(ReasonOf(failed), reason::kStorage);
    EXPECT_FALSE(Exists(spec_.output_file)) << point;
    EXPECT_TRUE(Exists(Staging(1))) << point;
  }
  // The next attempt, with the same rule, finds the name free.
  ASSERT_TRUE(PrepareStaging(roots_, spec_, "j-1", 2).ok());
  EXPECT_TRUE(CommitStaging(roots_, spec_, "j-1", 2, Inode(Staging(2))).ok());
  EXPECT_TRUE(Exists(spec_.output_file));
}

TEST_F(StagingTest, CommitWithoutAnyFileIsAnError) {
  EXPECT_EQ(CommitStaging(roots_, spec_, "j-1", 1, Inode(Staging(1))).code(), absl::StatusCode::kNotFound);
}

TEST_F(StagingTest, FollowsNoLinkInItsPlace) {
  Write(folder_ / "precious", "precious");
  ASSERT_EQ(symlink((folder_ / "precious").c_str(), Staging(1).c_str()), 0);
  ASSERT_TRUE(PrepareStaging(roots_, spec_, "j-1", 1).ok());
  EXPECT_EQ(Read(folder_ / "precious"), "precious");
}

TEST_F(StagingTest, AFolderThatIsGoneIsNamed) {
  spec_.output_file = folder_ / "gone/out.safetensors";
  const absl::Status status = PrepareStaging(roots_, spec_, "j-1", 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(status), reason::kStorage);
  EXPECT_THAT(std::string(status.message()), HasSubstr("gone"));
}

TEST_F(StagingTest, AFileTooLargeForItsDiskIsRefusedBeforeAnyRankStarts) {
  spec_.tokens = int64_t{1} << 50;
  const absl::Status status = PrepareStaging(roots_, spec_, "j-1", 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_FALSE(Exists(Staging(1)));
}

TEST_F(StagingTest, InputsThatChangedAreNamed) {
  const std::string path = folder_ / "in.safetensors";
  Write(path, "one");
  const std::map<std::string, FileFingerprint> inputs = {{path, *FingerprintFile(roots_, path)}};
  EXPECT_TRUE(CheckInputs(roots_, inputs).ok());
  Write(path, "another");
  const absl::Status changed = CheckInputs(roots_, inputs);
  EXPECT_EQ(ReasonOf(changed), reason::kInputChanged);
  EXPECT_THAT(std::string(changed.message()), HasSubstr(path));
  unlink(path.c_str());
  EXPECT_EQ(ReasonOf(CheckInputs(roots_, inputs)), reason::kInputChanged);
}

// Not even looked at, though it is the same file by another name.
TEST_F(StagingTest, AnInputOutsideTheRootIsNoneOfTheJobs) {
  TempFolder outside;
  std::filesystem::create_directory(folder_ / "sub");
  const std::string path = folder_ / "sub/in.safetensors";
  Write(path, "one");
  const std::map<std::string, FileFingerprint> inputs = {{path, *FingerprintFile(roots_, path)}};
  std::filesystem::create_hard_link(path, outside / "in.safetensors");
  std::filesystem::rename(folder_ / "sub", folder_ / "moved");
  std::filesystem::create_symlink(outside.path(), folder_ / "sub");
  const absl::Status changed = CheckInputs(roots_, inputs);
  EXPECT_EQ(ReasonOf(changed), reason::kInputChanged);
  EXPECT_THAT(std::string(changed.message()), HasSubstr("leaves data root"));
}

// Somebody who shares the data root swaps the folder of a running job's output for a link to the outside.
TEST_F(StagingTest, NothingHappensOutsideTheRoot) {
  TempFolder outside;
  std::filesystem::create_directory(folder_ / "sub");
  spec_.output_file = folder_ / "sub/out.safetensors";
  ASSERT_TRUE(PrepareStaging(roots_, spec_, "j-1", 1).ok());
  std::filesystem::rename(folder_ / "sub", folder_ / "moved");
  std::filesystem::create_symlink(outside.path(), folder_ / "sub");
  const std::string name = ".out.safetensors.seqpar-j-1-1.partial";
  Write(outside / name, "not ours");
  Write(outside / ".out.safetensors.seqpar-j-1-1.checkpoint-3", "nor this");
  EXPECT_EQ(CommitStaging(roots_, spec_, "j-1", 1, Inode(Staging(1))).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(SyncStaging(roots_, spec_, "j-1", 1).ok());
  EXPECT_FALSE(PrepareStaging(roots_, spec_, "j-1", 2).ok());
  EXPECT_FALSE(KeepCheckpoint(roots_, spec_, "j-1", {1, 3}).ok());
  EXPECT_FALSE(HasCheckpoint(roots_, spec_, "j-1", {1, 3}));
  UnlinkStaging(roots_, spec_, "j-1", 2);
  UnlinkCheckpoints(roots_, spec_, "j-1", 2, {});
  EXPECT_EQ(Read(outside / name), "not ours");
  EXPECT_EQ(Read(outside / ".out.safetensors.seqpar-j-1-1.checkpoint-3"), "nor this");
  EXPECT_FALSE(Exists(outside / "out.safetensors"));
}

TEST_F(StagingTest, CheckpointsGetTheirNameAndEarlierOnesGo) {
  const auto path = [&](int attempt, int layers) {
    return CheckpointPath(spec_.output_file, "j-1", {attempt, layers});
  };
  EXPECT_EQ(CheckpointPath("/data/a/out", "j-1", {2, 30}), "/data/a/.out.seqpar-j-1-2.checkpoint-30");
  EXPECT_EQ(KeepCheckpoint(roots_, spec_, "j-1", {1, 10}).code(), absl::StatusCode::kNotFound);
  Write(path(1, 10) + ".partial", "ten");
  ASSERT_TRUE(KeepCheckpoint(roots_, spec_, "j-1", {1, 10}).ok());
  ASSERT_TRUE(KeepCheckpoint(roots_, spec_, "j-1", {1, 10}).ok()) << "again, after a crash";
  EXPECT_EQ(Read(path(1, 10)), "ten");
  EXPECT_FALSE(HasCheckpoint(roots_, spec_, "j-1", {1, 10})) << "not of the size that it must have";
  SafetensorsHeader layout;
  BuildCheckpointHeader(spec_, &layout);
  Write(path(2, 20), std::string(static_cast<size_t>(layout.file_bytes), 'x'));
  EXPECT_TRUE(HasCheckpoint(roots_, spec_, "j-1", {2, 20}));
  Write(path(2, 15), "");
  Write(path(2, 25) + ".partial", "");  // being written
  Write(folder_ / ".out.safetensors.seqpar-j-11-1.checkpoint-1", "another job's");
  DropEarlierCheckpoints(roots_, spec_, "j-1", {2, 20});
  EXPECT_FALSE(Exists(path(1, 10)));
  EXPECT_FALSE(Exists(path(2, 15)));
  EXPECT_TRUE(Exists(path(2, 20)));
  EXPECT_TRUE(Exists(path(2, 25) + ".partial"));
  UnlinkCheckpoints(roots_, spec_, "j-1", 3, {2, 20});
  EXPECT_FALSE(Exists(path(2, 25) + ".partial"));
  EXPECT_TRUE(Exists(path(2, 20)));
  UnlinkCheckpoints(roots_, spec_, "j-1", 3, {});
  EXPECT_FALSE(Exists(path(2, 20)));
  EXPECT_TRUE(Exists(folder_ / ".out.safetensors.seqpar-j-11-1.checkpoint-1"));
}

}  // namespace
}  // namespace seqpar
