// Every verb moves and sums exactly what its contract says, whatever the counts.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "common/tensor/dtype.h"
#include "tests/conformance/communicator_world.h"

namespace seqpar {
namespace {

constexpr TrafficKey kKey{Operation::kRing, Pass::kForward};

SEQPAR_INSTANTIATE_CONFORMANCE(1, 8);

// Uneven, with zeros: rank i of g has this many elements of something.
int64_t Uneven(int i) { return i % 3 == 1 ? 0 : 5 * i + 3; }

TEST_P(CommunicatorConformance, SendRecvKeepsOrderAndIgnoresHowSpansAreCut) {
  RunRanks(world_, [](RankWorld& r) {
    const int next = (r.rank() + 1) % r.size(), previous = (r.rank() + r.size() - 1) % r.size();
    if (next == r.rank()) return;
    const OnDevice<int32_t> out(r, Count(1000 * r.rank(), 60));
    const OnDevice<int32_t> in(r, 60);
    // Sent: 10 in two pieces that are apart, nothing, 30. Received: 10 in one piece, nothing, 30 in three.
    const std::vector<Transfer> sends = {
        {next, {out.span(40, 44), out.span(0, 6)}}, {next, {}}, {next, {out.span(10, 40)}}};
    const std::vector<Transfer> recvs = {{previous, {in.span(0, 10)}},
                                         {previous, {}},
                                         {previous, {in.span(20, 45), in.span(15, 17), in.span(50, 53)}}};
    r.comm->SendRecv(*r.stream, kKey, sends, recvs);
    const std::vector<int32_t> got = in.Read();
    std::vector<int32_t> want(60, 0);
    const auto sent = [&](int i) { return 1000 * previous + i; };
    for (int i = 0; i < 10; ++i) want[i] = sent(i < 4 ? 40 + i : i - 4);
    for (int i = 0; i < 30; ++i) want[i < 25 ? 20 + i : i < 27 ? i - 10 : 23 + i] = sent(10 + i);
    EXPECT_EQ(got, want);
  });
}

TEST_P(CommunicatorConformance, AllGatherOfUnevenBlocks) {
  RunRanks(world_, [](RankWorld& r) {
    std::vector<int64_t> bytes;
    std::vector<int32_t> want;
    int64_t own_begin = 0;
    for (int i = 0; i < r.size(); ++i) {
      if (i == r.rank()) own_begin = static_cast<int64_t>(want.size());
      bytes.push_back(4 * Uneven(i));
      for (const int32_t v : Count(1000 * i, Uneven(i))) want.push_back(v);
    }
    const std::vector<int32_t> block = Count(1000 * r.rank(), Uneven(r.rank()));
    const OnDevice<int32_t> own(r, block);
    const OnDevice<int32_t> apart(r, static_cast<int64_t>(want.size()));
    r.comm->AllGather(*r.stream, kKey, own.data(), bytes, apart.data());
    EXPECT_EQ(apart.Read(), want);

    std::vector<int32_t> placed(want.size(), -1);
    std::copy(block.begin(), block.end(), placed.begin() + own_begin);
    const OnDevice<int32_t> in_place(r, placed);
    r.comm->AllGather(*r.stream, kKey, in_place.data() + own_begin, bytes, in_place.data());
    EXPECT_EQ(in_place.Read(), want);
  });
}

// What rank `from` has for rank `to`: sizes differ for every pair, some are zero.
std::vector<int32_t> Piece(int from, int to) {
  return Count(10000 * from + 100 * to, (3 * from + 5 * to) % 7);
}

TEST_P(CommunicatorConformance, AllToAllOfUnevenPieces) {
  RunRanks(world_, [](RankWorld& r) {
    std::vector<int32_t> sent, want;
    for (int i = 0; i < r.size(); ++i) {
      for (const int32_t v : Piece(r.rank(), i)) sent.push_back(v);
      for (const int32_t v : Piece(i, r.rank())) want.push_back(v);
    }
    const OnDevice<int32_t> out(r, sent);
    const OnDevice<int32_t> in(r, static_cast<int64_t>(want.size()));
    std::vector<std::vector<Span>> sends, recvs;
    for (int64_t i = 0, from = 0, to = 0; i < r.size(); ++i) {
      const auto s = static_cast<int64_t>(Piece(r.rank(), static_cast<int>(i)).size());
      const auto n = static_cast<int64_t>(Piece(static_cast<int>(i), r.rank()).size());
      sends.push_back({out.span(from, from + s / 2), out.span(from + s / 2, from + s)});
      recvs.push_back({in.span(to, to + n)});
      from += s;
      to += n;
    }
    r.comm->AllToAll(*r.stream, kKey, sends, recvs);
    EXPECT_EQ(in.Read(), want);
  });
}

// The begin of piece `i` of n things cut into `pieces`, the first of which are one longer.
int64_t CutBegin(int64_t n, int pieces, int i) { return n / pieces * i + std::min<int64_t>(n % pieces, i); }

// Tokens for heads and back, as Ulysses trades them: 3, 4, 7 and 8 heads (docs/formulas.md, "Public cases"),
// so that some ranks have more heads than others, and some none.
TEST_P(CommunicatorConformance, AllToAllTradesTokensForAnyNumberOfHeads) {
  constexpr int64_t kTokens = 13, kDim = 2;
  for (const int64_t heads : {3, 4, 7, 8}) {
    RunRanks(world_, [heads](RankWorld& r) {
      const auto token = [&](int i) { return CutBegin(kTokens, r.size(), i); };
      const auto head = [&](int i) { return CutBegin(heads, r.size(), i); };
      const auto value = [](int64_t t, int64_t h, int64_t d) {
        return static_cast<int32_t>(1000 * t + 10 * h + d);
      };
      const int me = r.rank();
      const int64_t own_tokens = token(me + 1) - token(me), own_heads = head(me + 1) - head(me);
      std::vector<int32_t> by_token, by_head;  // own tokens of all heads; own heads of all tokens
      for (int64_t t = token(me); t < token(me + 1); ++t) {
        for (int64_t h = 0; h < heads; ++h) {
          for (int64_t d = 0; d < kDim; ++d) by_token.push_back(value(t, h, d));
        }
      }
      for (int64_t t = 0; t < kTokens; ++t) {
        for (int64_t h = head(me); h < head(me + 1); ++h) {
          for (int64_t d = 0; d < kDim; ++d) by_head.push_back(value(t, h, d));
        }
      }
      const OnDevice<int32_t> out(r, by_token), in(r, static_cast<int64_t>(by_head.size())),
          back(r, static_cast<int64_t>(by_token.size()));
      std::vector<std::vector<Span>> mine, theirs, returned;  // by peer
      for (int i = 0; i < r.size(); ++i) {
        std::vector<Span> of_out, of_back;
        for (int64_t t = 0; t < own_tokens; ++t) {
          const int64_t begin = (t * heads + head(i)) * kDim, end = (t * heads + head(i + 1)) * kDim;
          of_out.push_back(out.span(begin, end));
          of_back.push_back(back.span(begin, end));
        }
        mine.push_back(of_out);
        returned.push_back(of_back);
        theirs.push_back({in.span(token(i) * own_heads * kDim, token(i + 1) * own_heads * kDim)});
      }
      r.comm->AllToAll(*r.stream, kKey, mine, theirs);
      EXPECT_EQ(in.Read(), by_head);
      r.comm->AllToAll(*r.stream, kKey, theirs, returned);
      EXPECT_EQ(back.Read(), by_token);
    });
  }
}

template <typename T>
T Store(float value);
template <>
float Store(float value) {
  return value;
}
template <>
BF16 Store(float value) {
  return ToBF16(value);
}
float Load(float value) { return value; }
float Load(BF16 value) { return ToFloat(value); }

// Rows of three columns, Uneven(i) of them for rank i; small integers, so that every sum is exact in both
// types.
template <typename T>
void CheckReduceScatter(RankWorld& r, DType dtype, bool in_place) {
  std::vector<int64_t> rows;
  int64_t total = 0, own_begin = 0;
  for (int i = 0; i < r.size(); ++i) {
    if (i == r.rank()) own_begin = total;
    rows.push_back(Uneven(i));
    total += Uneven(i);
  }
  const auto value = [](int rank, int64_t index) { return static_cast<float>((index * (rank + 1)) % 13); };
  std::vector<T> mine;
  for (int64_t i = 0; i < 3 * total; ++i) mine.push_back(Store<T>(value(r.rank(), i)));
  const OnDevice<T> in(r, mine);
  const OnDevice<T> apart(r, 3 * rows[r.rank()]);
  const Matrix from(in.data(), dtype, total, 3);
  const Matrix to(in_place ? in.data() + 3 * own_begin : apart.data(), dtype, rows[r.rank()], 3);
  r.comm->ReduceScatter(*r.stream, kKey, from, rows, to);
  const std::vector<T> got = in_place ? in.Read() : apart.Read();
  for (int64_t i = 0; i < 3 * rows[r.rank()]; ++i) {
    float want = 0;
    for (int rank = 0; rank < r.size(); ++rank) want += value(rank, 3 * own_begin + i);
    ASSERT_EQ(Load(got[in_place ? 3 * own_begin + i : i]), want) << "element " << i;
  }
}

TEST_P(CommunicatorConformance, ReduceScatterIsExact) {
  RunRanks(world_, [](RankWorld& r) {
    for (const bool in_place : {false, true}) {
      CheckReduceScatter<float>(r, DType::kF32, in_place);
      CheckReduceScatter<BF16>(r, DType::kBF16, in_place);
    }
  });
}

TEST_P(CommunicatorConformance, ReduceScatterRoundsOnceAndSumsInRankOrder) {
  RunRanks(world_, [](RankWorld& r) {
    const std::vector<int64_t> rows(r.size(), 1);
    const auto in_rank_order = [&](const float(&terms)[3]) {
      float sum = 0;
      for (int rank = 0; rank < std::min(r.size(), 3); ++rank) sum += terms[rank];
      return sum;
    };
    // bfloat16 has no 257: rounding after each term would lose both ones.
    const float narrow_terms[3] = {256, 1, 1};
    const OnDevice<BF16> narrow(
        r, std::vector<BF16>(r.size(), ToBF16(r.rank() < 3 ? narrow_terms[r.rank()] : 0)));
    const OnDevice<BF16> narrow_sum(r, 1);
    r.comm->ReduceScatter(*r.stream, kKey, Matrix(narrow.data(), DType::kBF16, r.size(), 1), rows,
                          Matrix(narrow_sum.data(), DType::kBF16, 1, 1));
    EXPECT_EQ(ToFloat(narrow_sum.Read()[0]), ToFloat(ToBF16(in_rank_order(narrow_terms))));
    // In rank order the one is absorbed by 2^24; in any order that takes the 2^24 away first it would stay.
    const float big = std::ldexp(1.f, 24);
    const float terms[3] = {big, 1.f, -big};
    const OnDevice<float> wide(r, std::vector<float>(r.size(), r.rank() < 3 ? terms[r.rank()] : 0.f));
    const OnDevice<float> wide_sum(r, 1);
    r.comm->ReduceScatter(*r.stream, kKey, Matrix(wide.data(), DType::kF32, r.size(), 1), rows,
                          Matrix(wide_sum.data(), DType::kF32, 1, 1));
    EXPECT_EQ(wide_sum.Read()[0], in_rank_order(terms));
  });
}

TEST_P(CommunicatorConformance, AllReduceGivesTheSumInRankOrderToEveryRank) {
  RunRanks(world_, [](RankWorld& r) {
    const auto value = [](int rank, int64_t i) { return 1.f / static_cast<float>(3 + rank * 7 + i); };
    for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{r.size() - 1}, int64_t{1001}}) {
      std::vector<float> mine, want;
      for (int64_t i = 0; i < count; ++i) {
        mine.push_back(value(r.rank(), i));
        float sum = 0;
        for (int rank = 0; rank < r.size(); ++rank) sum += value(rank, i);
        want.push_back(sum);
      }
      const OnDevice<float> data(r, mine);
      r.comm->AllReduce(*r.stream, kKey, data.data(), count);
      EXPECT_EQ(data.Read(), want) << count << " elements";
    }
  });
}

TEST_P(CommunicatorConformance, BroadcastFromEveryRoot) {
  RunRanks(world_, [](RankWorld& r) {
    for (int root = 0; root < r.size(); ++root) {
      for (const int64_t n : {0, 1, 30000}) {
        const std::vector<int32_t> want = Count(root, n);
        const OnDevice<int32_t> data(r, r.rank() == root ? want : std::vector<int32_t>(n, -1));
        r.comm->Broadcast(*r.stream, kKey, root, data.data(), 4 * n);
        EXPECT_EQ(data.Read(), want);
      }
    }
  });
}

TEST_P(CommunicatorConformance, NobodyPassesABarrierBeforeAllHaveEntered) {
  std::atomic<int> entered{0};
  RunRanks(world_, [&](RankWorld& r) {
    for (int round = 1; round <= 3; ++round) {
      ++entered;
      r.comm->Barrier(*r.stream);
      ASSERT_TRUE(r.stream->Synchronize().ok());
      EXPECT_GE(entered.load(), round * r.size());
    }
  });
}

TEST_P(CommunicatorConformance, LargeMessagesBothWaysAtOnce) {
  const int64_t elements = (size() <= 3 ? 8 << 20 : 2 << 20) / 4;
  RunRanks(world_, [&](RankWorld& r) {
    const int next = (r.rank() + 1) % r.size(), previous = (r.rank() + r.size() - 1) % r.size();
    if (next == r.rank()) return;
    const OnDevice<int32_t> out(r, Count(r.rank(), elements));
    const OnDevice<int32_t> from_previous(r, elements), from_next(r, elements);
    const int64_t cut = elements / 3;
    // To the next in one piece; to the previous its halves exchanged, received in one piece.
    r.comm->SendRecv(*r.stream, kKey,
                     {{next, {out.all()}}, {previous, {out.span(cut, elements), out.span(0, cut)}}},
                     {{previous, {from_previous.all()}}, {next, {from_next.all()}}});
    EXPECT_EQ(from_previous.Read(), Count(previous, elements));
    const std::vector<int32_t> swapped = from_next.Read();
    EXPECT_EQ(swapped.front(), next + cut);
    EXPECT_EQ(swapped[elements - cut], next);
    EXPECT_EQ(swapped.back(), next + cut - 1);
  });
}

}  // namespace
}  // namespace seqpar
