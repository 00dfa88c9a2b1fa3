#include "common/base/line_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

std::string Contents(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(LineFile, TakesThePlaceOfWhatWasThereAndLeavesNothingBeside) {
  const TempFolder folder;
  ASSERT_TRUE(WriteLine(folder / "port", "a longer line than the next").ok());
  ASSERT_TRUE(WriteLine(folder / "port", "127.0.0.1:1").ok());
  EXPECT_EQ(Contents(folder / "port"), "127.0.0.1:1\n");
  const std::filesystem::directory_iterator files(folder.path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST(LineFile, WhatCannotBeWrittenSaysWhy) {
  const TempFolder folder;
  const absl::Status failed = WriteLine(folder / "none/port", "x");
  EXPECT_EQ(ReasonOf(failed), reason::kStorage);
  EXPECT_THAT(std::string(failed.message()),
              HasSubstr(absl::StrCat("cannot write ", folder / "none/port", ": No such file")));
}

TEST(LineFile, GoesWithWhoWroteItAndWithNobodyElse) {
  const TempFolder folder;
  {
    LineFile mine(folder / "pid");
    ASSERT_TRUE(mine.Write("1").ok());
    { const LineFile others(folder / "pid"); }  // which never came to write it
    EXPECT_EQ(Contents(folder / "pid"), "1\n");
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "pid"));
  EXPECT_TRUE(LineFile("").Write("1").ok()) << "asked for none";
}

}  // namespace
}  // namespace seqpar
