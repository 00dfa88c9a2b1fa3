#include "common/base/random_id.h"

#include <gtest/gtest.h>

#include <set>

namespace seqpar {
namespace {

TEST(RandomHex, HasTheDigitsAskedFor) {
  for (int digits : {0, 1, 2, 15, 16, 300}) {
    const std::string id = RandomHex(digits);
    EXPECT_EQ(id.size(), static_cast<size_t>(digits));
    EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), std::string::npos) << id;
  }
}

TEST(RandomHex, UsesEveryDigitAndDoesNotRepeat) {
  const std::string many = RandomHex(4001);
  EXPECT_EQ(std::set<char>(many.begin(), many.end()).size(), 16u);
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(RandomHex(16));
  EXPECT_EQ(ids.size(), 1000u);
}

}  // namespace
}  // namespace seqpar
