#include "coordinator/api/page_token.h"

#include <gtest/gtest.h>

#include "common/base/status.h"

namespace seqpar {
namespace {

TEST(PageToken, GivesItsPositionToItsOwnQueryOnly) {
  for (const std::string& position : {std::string("17"), std::string("node-a"), std::string()}) {
    const std::string token = MakePageToken(position, "query");
    EXPECT_EQ(*ReadPageToken(token, "query"), position);
    for (const char* other : {"", "query2", "quer"}) {
      const absl::Status status = ReadPageToken(token, other).status();
      ASSERT_EQ(ViolationsOf(status).size(), 1u) << other;
      EXPECT_EQ(ViolationsOf(status)[0].field, "page_token");
    }
  }
  // What moves from one to the other changes the sum.
  EXPECT_NE(MakePageToken("1", "2"), MakePageToken("", "12"));
}

TEST(PageToken, RefusesWhatItDidNotMake) {
  std::string token = MakePageToken("17", "query");
  EXPECT_FALSE(ReadPageToken(token.substr(0, 8), "query").ok());
  token[token.size() - 2] = token[token.size() - 2] == 'A' ? 'B' : 'A';
  EXPECT_FALSE(ReadPageToken(token, "query").ok());
  for (const char* bad : {"ffff", "?", "not a token", "node-a"})
    EXPECT_FALSE(ReadPageToken(bad, "query").ok()) << bad;
}

TEST(PageSize, HasADefaultAndAMost) {
  EXPECT_EQ(*PageSizeOf(0), 50);
  EXPECT_EQ(*PageSizeOf(1), 1);
  EXPECT_EQ(*PageSizeOf(500), 500);
  EXPECT_EQ(*PageSizeOf(501), 500);
  EXPECT_EQ(ViolationsOf(PageSizeOf(-1).status()).at(0).field, "page_size");
}

}  // namespace
}  // namespace seqpar
