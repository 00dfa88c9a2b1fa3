#include "common/comm/collective_layout.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <set>
#include <vector>

namespace seqpar {
namespace {

// Carries every message of an exchange from its sender to its receiver; what has no counterpart is an error.
void Carry(const std::vector<Messages>& by_rank) {
  int sent = 0, received = 0;
  for (int to = 0; to < static_cast<int>(by_rank.size()); ++to) {
    for (const Transfer& recv : by_rank[to].recvs) {
      ASSERT_NE(recv.peer, to);
      int matches = 0;
      for (const Transfer& send : by_rank[recv.peer].sends) {
        if (send.peer != to) continue;
        ++matches;
        ASSERT_EQ(send.bytes(), recv.bytes());
        if (send.bytes() > 0) std::memcpy(recv.spans[0].data, send.spans[0].data, send.bytes());
      }
      ASSERT_EQ(matches, 1) << recv.peer << " to " << to;
      ++received;
    }
    sent += static_cast<int>(by_rank[to].sends.size());
  }
  ASSERT_EQ(sent, received);
}

TEST(CollectiveLayout, GatherBringsEveryBlockToItsPlace) {
  for (int size = 1; size <= 6; ++size) {
    std::vector<int64_t> bytes;
    for (int i = 0; i < size; ++i) bytes.push_back((i * 5 + 3) % 4);  // some are empty
    const int64_t total = std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
    std::vector<std::vector<char>> memory(size, std::vector<char>(total + 1, '.'));
    std::vector<Messages> messages;
    std::vector<char> whole;
    for (int rank = 0; rank < size; ++rank) {
      for (int64_t i = 0; i < bytes[rank]; ++i) {
        memory[rank][whole.size()] = static_cast<char>('a' + rank);
        whole.push_back(static_cast<char>('a' + rank));
      }
      messages.push_back(GatherMessages(rank, bytes, memory[rank].data()));
    }
    ASSERT_NO_FATAL_FAILURE(Carry(messages));
    whole.push_back('.');
    for (const std::vector<char>& each : memory) EXPECT_EQ(each, whole) << size;
  }
}

TEST(CollectiveLayout, BroadcastComesFromTheRootOnly) {
  for (int root = 0; root < 3; ++root) {
    std::vector<char> memory = {'x', 'x', 'x'};
    memory[root] = 'r';
    std::vector<Messages> messages;
    for (int rank = 0; rank < 3; ++rank)
      messages.push_back(BroadcastMessages(rank, 3, root, &memory[rank], 1));
    ASSERT_NO_FATAL_FAILURE(Carry(messages));
    EXPECT_EQ(memory, std::vector<char>(3, 'r'));
  }
}

TEST(CollectiveLayout, AfterABarrierEveryRankKnowsOfAll) {
  for (int size = 1; size <= 9; ++size) {
    std::vector<std::set<int>> knows(size);
    for (int rank = 0; rank < size; ++rank) knows[rank] = {rank};
    char sent = 0, received = 0;
    const size_t rounds = BarrierRounds(0, size, &sent, &received).size();
    for (size_t round = 0; round < rounds; ++round) {
      const std::vector<std::set<int>> before = knows;
      for (int rank = 0; rank < size; ++rank) {
        const std::vector<Messages> all = BarrierRounds(rank, size, &sent, &received);
        for (const Transfer& recv : all[round].recvs) {
          knows[rank].insert(before[recv.peer].begin(), before[recv.peer].end());
        }
      }
    }
    for (const std::set<int>& each : knows) EXPECT_EQ(static_cast<int>(each.size()), size);
    EXPECT_GE(rounds, 1u) << "also a group of one hears of an abort";
    EXPECT_EQ(static_cast<int>(rounds), size <= 2 ? 1 : size <= 4 ? 2 : size <= 8 ? 3 : 4);
  }
}

TEST(CollectiveLayout, EvenBlocksDifferByOneAtMost) {
  EXPECT_EQ(EvenBlocks(7, 3), (std::vector<int64_t>{3, 2, 2}));
  EXPECT_EQ(EvenBlocks(2, 4), (std::vector<int64_t>{1, 1, 0, 0}));
  EXPECT_EQ(EvenBlocks(0, 2), (std::vector<int64_t>{0, 0}));
}

TEST(CollectiveLayout, TermsOfASumAreByRankAndWithinTheScratch) {
  constexpr int kSize = 4;
  constexpr int64_t kCols = 3, kAlignment = 64;
  const std::vector<int64_t> rows = {2, 0, 3, 1};
  std::vector<std::vector<float>> in(kSize, std::vector<float>(6 * kCols));
  for (int rank = 0; rank < kSize; ++rank) {
    for (size_t i = 0; i < in[rank].size(); ++i) in[rank][i] = static_cast<float>(100 * rank + i);
  }
  std::vector<std::vector<char>> scratch(kSize);
  std::vector<Messages> messages;
  std::vector<std::vector<Matrix>> terms;
  for (int rank = 0; rank < kSize; ++rank) {
    const Matrix all(in[rank].data(), DType::kF32, 6, kCols);
    scratch[rank].resize(SumScratchBytes(rank, all, rows, kAlignment) + 1, '#');
    OwnBlockSum sum = LayOutSum(rank, all, rows, scratch[rank].data(), kAlignment);
    messages.push_back(std::move(sum.messages));
    terms.push_back(std::move(sum.terms));
  }
  ASSERT_NO_FATAL_FAILURE(Carry(messages));
  int64_t begin = 0;
  for (int rank = 0; rank < kSize; ++rank) {
    EXPECT_EQ(scratch[rank].back(), '#') << "written beyond its end";
    ASSERT_EQ(terms[rank].size(), static_cast<size_t>(kSize));
    for (int from = 0; from < kSize; ++from) {
      const Matrix& term = terms[rank][from];
      ASSERT_EQ(term.rows, rows[rank]);
      for (int64_t i = 0; i < term.rows * kCols; ++i) {
        EXPECT_EQ(static_cast<const float*>(term.data)[i],
                  static_cast<float>(100 * from + begin * kCols + i));
      }
    }
    begin += rows[rank];
  }
}

}  // namespace
}  // namespace seqpar
