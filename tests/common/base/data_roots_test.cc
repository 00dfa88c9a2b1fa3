#include "common/base/data_roots.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/base/status.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// base/{data,out,elsewhere}, with data/sub/file and elsewhere/secret.
class DataRootsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(base_ / "data/sub");
    fs::create_directories(base_ / "out");
    fs::create_directories(base_ / "elsewhere");
    std::ofstream(base_ / "data/sub/file") << "x";
    std::ofstream(base_ / "elsewhere/secret") << "x";
    auto roots = DataRoots::Create({{"data", Path("data")}, {"out", Path("out")}});
    ASSERT_TRUE(roots.ok()) << roots.status();
    roots_ = *roots;
  }

  std::string Path(const std::string& relative) const { return (base_ / relative).string(); }
  std::string Resolved(const std::string& path) const {
    const absl::StatusOr<std::string> resolved = roots_.Resolve(path);
    return resolved.ok() ? *resolved : "refused: " + std::string(resolved.status().message());
  }

  TempFolder folder_;
  const fs::path base_ = folder_.path();
  DataRoots roots_;
};

TEST_F(DataRootsTest, ResolvesWhatIsInside) {
  EXPECT_EQ(Resolved("sub/file"), Path("data/sub/file"));
  EXPECT_EQ(Resolved("./sub//./file"), Path("data/sub/file"));
  EXPECT_EQ(Resolved("sub/"), Path("data/sub"));
  EXPECT_EQ(Resolved("."), Path("data"));
  EXPECT_EQ(Resolved(Path("data/sub/file")), Path("data/sub/file"));
  EXPECT_EQ(Resolved(Path("out")), Path("out"));
  EXPECT_EQ(Resolved("..hidden"), Path("data/..hidden"));  // a name, not a way up
}

TEST_F(DataRootsTest, ResolvesWhatDoesNotExistYet) {
  EXPECT_EQ(Resolved("new.safetensors"), Path("data/new.safetensors"));
  EXPECT_EQ(Resolved("sub/a/b/c"), Path("data/sub/a/b/c"));
  EXPECT_EQ(Resolved(Path("out/new")), Path("out/new"));
}

TEST_F(DataRootsTest, RefusesPathsOutsideAndNamesTheRoots) {
  for (const std::string& path :
       {std::string("/etc/passwd"), Path("elsewhere/secret"), Path(""), Path("data2"), std::string("/")}) {
    const auto resolved = roots_.Resolve(path);
    ASSERT_EQ(resolved.status().code(), absl::StatusCode::kInvalidArgument) << path;
    EXPECT_EQ(ReasonOf(resolved.status()), reason::kInvalidArgument);
    EXPECT_THAT(std::string(resolved.status().message()),
                HasSubstr("data=" + Path("data") + ", out=" + Path("out")));
  }
}

TEST_F(DataRootsTest, RefusesDotDotEvenWhereItStaysInside) {
  for (const std::string& path :
       {std::string("../elsewhere/secret"), std::string("sub/../sub/file"), std::string(".."),
        Path("data/../elsewhere/secret"), std::string("new/..")}) {
    EXPECT_THAT(Resolved(path), HasSubstr("contains \"..\"")) << path;
  }
}

TEST_F(DataRootsTest, RefusesEmptyAndNul) {
  EXPECT_THAT(Resolved(""), HasSubstr("empty"));
  EXPECT_THAT(Resolved(std::string("sub/file\0/../../x", 17)), HasSubstr("NUL"));
}

TEST_F(DataRootsTest, RefusesLinksThatLeaveTheRoot) {
  fs::create_directory_symlink(base_ / "elsewhere", base_ / "data/away");
  fs::create_symlink("../../elsewhere/secret", base_ / "data/sub/leaf");
  fs::create_directory_symlink(base_ / "out", base_ / "data/to-out");
  for (const std::string& path :
       {std::string("away"), std::string("away/secret"), std::string("away/new/deep"),
        std::string("sub/leaf"), Path("data/away/secret"), std::string("to-out/x"), Path("data/to-out/x")}) {
    EXPECT_THAT(Resolved(path), HasSubstr("leaves data root data")) << path;
  }
}

TEST_F(DataRootsTest, RefusesDanglingAndCircularLinks) {
  fs::create_symlink(base_ / "elsewhere/not-yet", base_ / "data/dangling");
  fs::create_symlink("loop", base_ / "data/loop");
  EXPECT_THAT(Resolved("dangling"), HasSubstr("symbolic link to nowhere"));
  EXPECT_THAT(Resolved("dangling/x"), HasSubstr("symbolic link to nowhere"));
  EXPECT_THAT(Resolved("loop"), HasSubstr("refused"));
  EXPECT_THAT(Resolved("loop/x"), HasSubstr("refused"));
}

TEST_F(DataRootsTest, FollowsLinksThatStay) {
  fs::create_symlink("sub/file", base_ / "data/alias");
  fs::create_directory_symlink(base_ / "data/sub", base_ / "data/alias-dir");
  EXPECT_EQ(Resolved("alias"), Path("data/sub/file"));
  EXPECT_EQ(Resolved("alias-dir/new"), Path("data/sub/new"));
}

TEST_F(DataRootsTest, RefusesFilesUsedAsFolders) {
  EXPECT_THAT(Resolved("sub/file/x"), HasSubstr("is not a directory"));
}

TEST_F(DataRootsTest, RefusesNamesThatAreTooLong) {
  EXPECT_THAT(Resolved(std::string(5000, 'x')), HasSubstr("too long"));
}

TEST_F(DataRootsTest, ARootMayItselfBeALink) {
  fs::create_directory_symlink(base_ / "data", base_ / "link");
  auto roots = DataRoots::Create({{"l", Path("link") + "/"}});
  ASSERT_TRUE(roots.ok()) << roots.status();
  EXPECT_EQ(roots->roots()[0].path, Path("data"));
  EXPECT_EQ(*roots->Resolve("sub/file"), Path("data/sub/file"));
  EXPECT_EQ(*roots->Resolve(Path("link/sub/file")), Path("data/sub/file"));
  EXPECT_EQ(*roots->Resolve(Path("data/sub/file")), Path("data/sub/file"));
}

TEST_F(DataRootsTest, OfNestedRootsTheInnermostHolds) {
  auto roots = DataRoots::Create({{"outer", Path("data")}, {"inner", Path("data/sub")}});
  ASSERT_TRUE(roots.ok());
  fs::create_symlink("../top", base_ / "data/sub/up");
  std::ofstream(base_ / "data/top") << "x";
  EXPECT_FALSE(roots->Resolve(Path("data/sub/up")).ok());
  EXPECT_TRUE(roots->Resolve(Path("data/top")).ok());
}

TEST_F(DataRootsTest, CreateRefusesBadRoots) {
  const auto message = [](const std::vector<std::pair<std::string, std::string>>& named) {
    return std::string(DataRoots::Create(named).status().message());
  };
  EXPECT_THAT(message({{"a", Path("nowhere")}}), HasSubstr("No such file"));
  EXPECT_THAT(message({{"a", Path("data/sub/file")}}), HasSubstr("not a directory"));
  EXPECT_THAT(message({{"a", Path("data")}, {"a", Path("out")}}), HasSubstr("given twice"));
  EXPECT_THAT(message({{"a", ""}}), HasSubstr("No such file"));
}

TEST_F(DataRootsTest, ATenantHasItsOwnRootsAndEverybodys) {
  const auto roots = DataRoots::Create({{"search/data", Path("data")}, {"all", Path("out")}});
  ASSERT_TRUE(roots.ok()) << roots.status();
  const DataRoots search = roots->ForTenant("search"), vision = roots->ForTenant("vision");
  EXPECT_EQ(*search.Resolve("sub/file"), Path("data/sub/file"));
  EXPECT_EQ(*search.Resolve(Path("out/new")), Path("out/new"));
  EXPECT_EQ(*vision.Resolve("new"), Path("out/new")) << "the first that it may use";
  EXPECT_EQ(std::string(vision.Resolve(Path("data/sub/file")).status().message()),
            "path " + Path("data/sub/file") + " is under none of the data roots: all=" + Path("out"));
  EXPECT_EQ(roots->ForTenant("").roots().size(), 1u);
  EXPECT_EQ(roots->ForTenant("searc").roots().size(), 1u);
}

TEST_F(DataRootsTest, RootsOfTwoTenantsAreNotInsideOneAnother) {
  fs::create_directory_symlink(base_ / "data/sub", base_ / "link");
  for (const char* inner : {"data", "data/sub", "link"}) {
    for (const char* name : {"vision/data", "all"}) {
      EXPECT_FALSE(DataRoots::Create({{"search/data", Path("data")}, {name, Path(inner)}}).ok()) << inner;
      EXPECT_FALSE(DataRoots::Create({{name, Path(inner)}, {"search/data", Path("data")}}).ok()) << inner;
    }
    EXPECT_TRUE(DataRoots::Create({{"search/data", Path("data")}, {"search/more", Path(inner)}}).ok());
  }
}

TEST(DataRoots, WithoutRootsNothingResolves) { EXPECT_FALSE(DataRoots().Resolve("x").ok()); }

TEST(ParseDataRoot, SplitsAtTheFirstEqualsSign) {
  const auto root = ParseDataRoot("data-1=/srv/a=b");
  ASSERT_TRUE(root.ok());
  EXPECT_EQ(root->first, "data-1");
  EXPECT_EQ(root->second, "/srv/a=b");
  EXPECT_EQ(ParseDataRoot("search/data=/srv")->first, "search/data");
  for (const char* bad : {"", "data", "=x", "data=", "da ta=/x", "a/b/c=/x", "/b=/x", "a/=/x"}) {
    EXPECT_FALSE(ParseDataRoot(bad).ok()) << bad;
  }
}

TEST(DataRootsOpen, OpensBeneathTheRootAlone) {
  TempFolder root, outside;
  std::ofstream(outside / "secret") << "secret";
  std::filesystem::create_directory(root / "sub");
  std::ofstream(root / "sub/file") << "x";
  std::filesystem::create_symlink("sub", root / "inside");
  const DataRoots roots = *DataRoots::Create({{"data", root.path()}});
  for (const char* path : {"sub/file", "inside/file"}) EXPECT_TRUE(roots.Open(path, O_RDONLY).ok()) << path;
  EXPECT_TRUE(roots.Open(root / "sub/file", O_RDONLY).ok());
  EXPECT_TRUE(roots.Open(root.path(), O_RDONLY | O_DIRECTORY).ok());
  EXPECT_EQ(roots.Open("sub/none", O_RDONLY).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(roots.Open("sub/file", O_WRONLY | O_CREAT | O_EXCL, 0600).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(roots.Open("sub/new", O_WRONLY | O_CREAT | O_EXCL, 0600).ok());
  std::filesystem::create_symlink(outside / "secret", root / "link");
  EXPECT_EQ(roots.Open("link", O_RDONLY).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(roots.Open("../x", O_RDONLY).status().code(), absl::StatusCode::kInvalidArgument);
}

// Whoever opens one to read waits for somebody who writes: in the coordinator that would be for ever.
TEST(DataRootsOpen, ANamedPipeKeepsNobodyWaiting) {
  TempFolder root;
  ASSERT_EQ(mkfifo((root / "pipe").c_str(), 0600), 0);
  const DataRoots roots = *DataRoots::Create({{"data", root.path()}});
  EXPECT_TRUE(roots.Open("pipe", O_RDONLY).ok());
  EXPECT_FALSE(roots.Open("pipe", O_WRONLY).ok());  // nobody reads
  EXPECT_TRUE(roots.Open("pipe", O_PATH).ok());
}

// Between the look at a path and its opening a folder is swapped for a link, again and again.
TEST(DataRootsOpen, ASwappedFolderNeverLeadsOutside) {
  TempFolder root, outside;
  std::filesystem::create_directory(root / "real");
  std::ofstream(root / "real/file") << "inside";
  std::ofstream(outside / "file") << "outside";
  std::filesystem::create_symlink(outside.path(), root / "link");
  std::filesystem::create_directory(root / "folder");
  std::filesystem::rename(root / "real", root / "folder");
  const DataRoots roots = *DataRoots::Create({{"data", root.path()}});
  std::atomic<bool> stop{false};
  std::thread swapper([&] {
    while (!stop) {
      renameat2(AT_FDCWD, (root / "folder").c_str(), AT_FDCWD, (root / "link").c_str(), RENAME_EXCHANGE);
    }
  });
  int opened = 0;
  for (int i = 0; i < 20'000; ++i) {
    const absl::StatusOr<UniqueFd> fd = roots.Open("folder/file", O_RDONLY);
    if (!fd.ok()) continue;
    char text[16] = {};
    ASSERT_GT(read(fd->get(), text, sizeof(text) - 1), 0);
    ASSERT_STREQ(text, "inside");
    ++opened;
  }
  stop = true;
  swapper.join();
  EXPECT_GT(opened, 0);
}

}  // namespace
}  // namespace seqpar
