#include "worker/daemon/log_store.h"

#include <gtest/gtest.h>

namespace seqpar {
namespace {

void Print(LogStore* store, const RankKey& key, const std::string& text) {
  store->Append(key, text.data(), text.size());
}

TEST(LogStoreTest, FindsByAttemptAndRank) {
  LogStore store(8);
  for (const RankKey& key :
       {RankKey{"j", 2, 0}, RankKey{"j", 1, 1}, RankKey{"j", 1, 0}, RankKey{"k", 1, 0}}) {
    store.Begin(key, "node/" + std::to_string(key.rank));
    Print(&store, key, key.job + std::to_string(key.attempt) + std::to_string(key.rank));
  }
  const auto all = store.Find("j", std::nullopt, std::nullopt);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].text, "j10");
  EXPECT_EQ(all[1].text, "j11");
  EXPECT_EQ(all[1].device, "node/1");
  EXPECT_EQ(all[2].text, "j20");
  EXPECT_EQ(store.Find("j", 1, std::nullopt).size(), 2u);
  EXPECT_EQ(store.Find("j", std::nullopt, 0).size(), 2u);
  EXPECT_TRUE(store.Find("x", std::nullopt, std::nullopt).empty());
}

TEST(LogStoreTest, KeepsTheTailOnly) {
  LogStore store(1);
  const RankKey key{"j", 1, 0};
  store.Begin(key, "node/0");
  std::string all;
  for (int i = 0; i < 40'000; ++i) {
    const std::string line = std::to_string(i) + "\n";
    all += line;
    Print(&store, key, line);
  }
  EXPECT_EQ(store.Find("j", 1, 0)[0].text, all.substr(all.size() - LogStore::kTailBytes));
}

TEST(LogStoreTest, ForgetsTheOldestAttempt) {
  LogStore store(2);
  for (int attempt = 1; attempt <= 3; ++attempt) {
    for (int rank = 0; rank < 2; ++rank) {
      store.Begin({"j", attempt, rank}, "node/0");
      store.End({"j", attempt, rank});
    }
  }
  Print(&store, {"j", 1, 0}, "too late");
  const auto left = store.Find("j", std::nullopt, std::nullopt);
  ASSERT_EQ(left.size(), 4u);
  EXPECT_EQ(left[0].key.attempt, 2);
}

TEST(LogStoreTest, WhatRunsIsNotForgotten) {
  LogStore store(2);
  const RankKey runs{"long", 1, 0};
  store.Begin(runs, "node/0");
  for (int attempt = 1; attempt <= 100; ++attempt) {
    store.Begin({"j", attempt, 0}, "node/1");
    store.End({"j", attempt, 0});
  }
  Print(&store, runs, "still here");
  ASSERT_EQ(store.Find("long", 1, 0).size(), 1u);
  EXPECT_EQ(store.Find("long", 1, 0)[0].text, "still here");
  EXPECT_EQ(store.Find("j", std::nullopt, std::nullopt).size(), 1u) << "beside it";
  store.End(runs);
  store.Begin({"j", 101, 0}, "node/1");
  EXPECT_TRUE(store.Find("long", std::nullopt, std::nullopt).empty());
}

TEST(LogStoreTest, WhatIsNotUtf8BecomesAQuestionMark) {
  LogStore store(1);
  const RankKey key{"j", 1, 0};
  store.Begin(key, "node/0");
  Print(&store, key, "a\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xff \xc0\x80 \xed\xa0\x80 \xe2\x82");
  EXPECT_EQ(store.Find("j", 1, 0)[0].text, "a\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 ? ?? ??? ??");
}

}  // namespace
}  // namespace seqpar
