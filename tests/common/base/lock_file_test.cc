#include "common/base/lock_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

using ::testing::StartsWith;

TEST(LockFile, IsOneProcesssAndSaysWhose) {
  const TempFolder folder;
  const std::string path = folder / "lock";
  std::string holder;
  absl::StatusOr<UniqueFd> mine = TakeLockFile(path, &holder);
  ASSERT_TRUE(mine.ok()) << mine.status();
  EXPECT_TRUE(mine->valid());
  EXPECT_EQ(holder, "");
  const pid_t child = fork();
  if (child == 0) {
    mine->Reset();  // what fork copied: the lock stays the parent's
    const absl::StatusOr<UniqueFd> its = TakeLockFile(path, &holder);
    const bool refused =
        its.ok() && !its->valid() && holder.rfind(absl::StrCat("pid ", getppid(), " on "), 0) == 0;
    _exit(refused ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  mine->Reset();
  EXPECT_TRUE(TakeLockFile(path, &holder)->valid()) << "given up, it is free";
}

TEST(LockFile, EndsWithItsProcess) {
  const TempFolder folder;
  std::string holder;
  const pid_t child = fork();
  if (child == 0) {
    absl::StatusOr<UniqueFd> its = TakeLockFile(folder / "lock", &holder);
    const int fd = its.ok() ? its->Release() : -1;  // nothing closes it
    _exit(fd >= 0 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(TakeLockFile(folder / "lock", &holder)->valid());
}

TEST(LockFile, WhatCannotBeOpenedIsNamed) {
  const TempFolder folder;
  std::string holder;
  const absl::Status failed = TakeLockFile(folder / "none/lock", &holder).status();
  EXPECT_THAT(std::string(failed.message()), StartsWith(absl::StrCat("cannot open ", folder / "none/lock")));
}

}  // namespace
}  // namespace seqpar
