#include "common/base/fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <type_traits>

namespace seqpar {
namespace {

static_assert(!std::is_copy_constructible_v<UniqueFd>);

int Open() { return open("/dev/null", O_RDONLY); }
bool IsOpen(int fd) { return fcntl(fd, F_GETFD) != -1; }

TEST(UniqueFd, ClosesAtItsEnd) {
  int raw;
  {
    const UniqueFd fd(Open());
    raw = fd.get();
    ASSERT_TRUE(fd.valid());
    EXPECT_TRUE(IsOpen(raw));
  }
  EXPECT_FALSE(IsOpen(raw));
}

TEST(UniqueFd, MovesLeaveNothingBehind) {
  UniqueFd a(Open());
  const int raw_a = a.get();
  UniqueFd b(std::move(a));
  EXPECT_FALSE(a.valid());
  EXPECT_EQ(b.get(), raw_a);
  UniqueFd c(Open());
  const int raw_c = c.get();
  c = std::move(b);
  EXPECT_FALSE(IsOpen(raw_c));
  EXPECT_TRUE(IsOpen(raw_a));
  EXPECT_EQ(c.get(), raw_a);
}

TEST(UniqueFd, ReleaseGivesItUp) {
  UniqueFd fd(Open());
  const int raw = fd.Release();
  EXPECT_FALSE(fd.valid());
  EXPECT_TRUE(IsOpen(raw));
  close(raw);
}

}  // namespace
}  // namespace seqpar
