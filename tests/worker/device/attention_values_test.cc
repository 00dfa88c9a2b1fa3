// What comes out of an attention kernel, whatever its shape: large and growing scores, equal rows, NaN; the
// same bits on any number of threads, and of each head by itself.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "tests/worker/device/attention_fixture.h"
#include "worker/device/cpu/cpu_device.h"

namespace seqpar {
namespace {

using AttentionValuesTest = AttentionTest;

TEST_P(AttentionValuesTest, ScoresOfSeveralHundred) {
  AttentionCase c;
  c.head_dim = 64;
  c.magnitude = 20;  // scores up to 800
  c.queries = c.keys = 200;
  SetCausal(&c);
  Check(c, {}, 1e-3);
  Check(c, {70, 150}, 1e-3);
}

// Slowly, so that a maximum of before still serves, by more than it can bear, and by more than a float can;
// upwards and downwards.
TEST_P(AttentionValuesTest, ScoresThatGrowAlongTheKeys) {
  for (double slope : {0.02, 0.2, 2.0, -0.02, -0.2, -2.0}) {
    AttentionCase c;
    c.queries = c.keys = 700;
    SetCausal(&c);
    const AttentionInputs in(c);
    for (int64_t i = 0; i < c.keys; ++i) {
      *reinterpret_cast<float*>(in.q.matrix().At(i, 0)) = 4;
      *reinterpret_cast<float*>(in.k.matrix().At(i, 0)) = static_cast<float>(slope * static_cast<double>(i));
    }
    const AttentionResult oracle = Oracle(c, in);
    const AttentionResult plain = RunOn(*plain_, c, in, oracle);
    SCOPED_TRACE(slope);
    ExpectClose(RunOn(*device_, c, in, oracle), plain, oracle);
  }
}

TEST_P(AttentionValuesTest, PiecesMergeToTheWhole) {
  AttentionCase c;
  c.queries = c.keys = 230;
  SetCausal(&c);
  Check(c, {1, 100, 101, 229});
  Check(c, {96, 192});
  SetWindow(&c, 30, 30);
  Check(c, {115});
}

TEST_P(AttentionValuesTest, IdenticalRowsAverage) {
  AttentionCase c;
  c.magnitude = 0;  // all scores are equal
  c.queries = c.keys = 300;
  SetCausal(&c);
  const AttentionInputs in(c);
  const AttentionResult oracle = Oracle(c, in);
  const AttentionResult result = RunOn(*device_, c, in, oracle);
  EXPECT_LE(ErrorOf(result.out, oracle.out).norm, 1e-6);
  EXPECT_LE(ErrorOf(result.dv, oracle.dv).norm, 1e-5);
  // q and k are zero, and so are dq and dk; dv is the scale.
  for (double dq : result.dq) EXPECT_EQ(dq, 0);
  for (double dk : result.dk) EXPECT_EQ(dk, 0);
}

TEST_P(AttentionValuesTest, SameBitsForAnyNumberOfThreads) {
  AttentionCase c;
  c.head_dim = 24;
  c.queries = c.keys = 600;
  c.batch = 2;
  c.group = 3;
  c.heads = MakeHeadRange(1, 5, 3);
  SetCausal(&c);
  const AttentionInputs in(c);
  const AttentionResult oracle = Oracle(c, in);
  const AttentionResult one = RunOn(*device_, c, in, oracle);
  ExpectSameBits(one, RunOn(*device_, c, in, oracle));
  for (int threads : {2, 3, 8}) {
    SCOPED_TRACE(threads);
    const auto device = MakeDevice(GetParam(), threads);
    for (int repeat = 0; repeat < 3; ++repeat) ExpectSameBits(one, RunOn(*device, c, in, oracle));
  }
}

// The columns [begin, end) of heads of `head_dim` in a result of `heads` heads.
std::vector<double> HeadColumns(const std::vector<double>& values, int heads, int dim, int begin, int end) {
  std::vector<double> columns;
  for (size_t row = 0; row < values.size() / (heads * dim); ++row) {
    const double* at = values.data() + row * heads * dim;
    columns.insert(columns.end(), at + begin * dim, at + end * dim);
  }
  return columns;
}

TEST_P(AttentionValuesTest, AHeadDoesNotDependOnItsNeighbours) {
  AttentionCase c;
  c.queries = c.keys = 250;
  c.heads = {0, 4, 0, 4};
  SetCausal(&c);
  const AttentionInputs in(c);
  const AttentionResult oracle = Oracle(c, in);
  const AttentionResult all = RunOn(*device_, c, in, oracle);
  // Heads 1 and 2 alone, in the same memory: strided rows.
  const auto stream = device_->CreateStream("some");
  AttentionTile tile;
  tile.heads = {1, 3, 1, 3};
  tile.head_dim = c.head_dim;
  tile.scale = 0.25f;
  tile.queries = tile.keys = c.queries;
  auto ranges = std::make_shared<KeyRanges>();
  ranges->lo = c.lo;
  ranges->hi = c.hi;
  tile.ranges = ranges;
  const int64_t begin = c.head_dim, end = 3 * c.head_dim;
  tile.q = in.q.matrix().Cols(begin, end);
  tile.k = in.k.matrix().Cols(begin, end);
  tile.v = in.v.matrix().Cols(begin, end);
  const GuardedMatrix out(DType::kF32, c.queries, end - begin, 0, Guard::kAfter,
                          [](int64_t, int64_t) { return 7; });
  const GuardedMatrix lse(DType::kF32, c.queries, 2, 0, Guard::kAfter, [](int64_t, int64_t) { return 7; });
  device_->AttentionForward(*stream, tile, out, lse, true);
  ASSERT_TRUE(stream->Synchronize().ok());
  EXPECT_EQ(out.Values(), HeadColumns(all.out, 4, c.head_dim, 1, 3));
  EXPECT_EQ(lse.Values(), HeadColumns(all.lse, 4, 1, 1, 3));
}

TEST_P(AttentionValuesTest, NaNIsNotSwallowed) {
  AttentionCase c;
  c.queries = c.keys = 20;
  SetFull(&c);
  const AttentionInputs in(c);
  *reinterpret_cast<float*>(in.q.matrix().At(3, 0)) = std::numeric_limits<float>::quiet_NaN();
  const AttentionResult oracle = Oracle(c, in);
  const AttentionResult result = RunOn(*device_, c, in, oracle);
  EXPECT_TRUE(std::isnan(result.out[3 * c.head_dim]));
  EXPECT_FALSE(std::isnan(result.out[2 * c.head_dim]));
}

// Whether rows `row` of what two runs made are finite and the same but for rounding: what one query sees may
// change when the sums of its neighbours are rescaled.
bool SameRow(const std::vector<double>& a, const std::vector<double>& b, int64_t row, int64_t cols) {
  return std::equal(a.begin() + row * cols, a.begin() + (row + 1) * cols, b.begin() + row * cols,
                    [](double x, double y) { return std::abs(x - y) <= 1e-5 * (1 + std::abs(y)); });
}

// A token that is not a number spoils those that attend it and nobody else: no other document, nothing before
// it under a causal mask, wherever the kernel cuts its tiles.
TEST_P(AttentionValuesTest, WhatIsNotFiniteReachesNobodyWhoDoesNotSeeIt) {
  if (IsGpuKernel(GetParam())) GTEST_SKIP() << "on tensor cores it reaches the rest of a tile";
  AttentionCase c;
  c.queries = c.keys = 250;
  c.heads = {0, 4, 0, 2};
  c.group = 2;
  const int64_t q_cols = 4 * c.head_dim, kv_cols = 2 * c.head_dim;
  const auto spoil = [](const GuardedMatrix& m, int64_t row, float value) {
    for (int64_t col = 0; col < m.matrix().cols; ++col) {
      *reinterpret_cast<float*>(m.matrix().At(row, col)) = value;
    }
  };
  for (const auto& set :
       std::vector<void (*)(AttentionCase*)>{SetCausal, [](AttentionCase* to) { SetWindow(to, 9, 4); },
                                             [](AttentionCase* to) {
                                               SetDocuments(to, {100, 40, 110});
                                             }}) {
    set(&c);
    const AttentionResult oracle = Oracle(c, AttentionInputs(c));
    const AttentionResult clean = RunOn(*device_, c, AttentionInputs(c), oracle);
    for (const float value :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      for (const int64_t at : {0, 63, 120, 249}) {
        const auto sees = [&](int64_t query, int64_t key) { return c.lo[query] <= key && key < c.hi[query]; };
        const AttentionInputs keys(c), queries(c);
        spoil(keys.k, at, value);
        spoil(keys.v, at, value);
        spoil(queries.q, at, value);
        spoil(queries.dout, at, value);
        const AttentionResult bad_key = RunOn(*device_, c, keys, oracle);
        const AttentionResult bad_query = RunOn(*device_, c, queries, oracle);
        for (int64_t row = 0; row < c.queries; ++row) {
          SCOPED_TRACE(testing::Message() << "row " << row << ", spoiled " << at);
          EXPECT_EQ(SameRow(bad_key.out, clean.out, row, q_cols), !sees(row, at));
          EXPECT_EQ(SameRow(bad_key.dq, clean.dq, row, q_cols), !sees(row, at));
          EXPECT_EQ(SameRow(bad_query.out, clean.out, row, q_cols), row != at);
          EXPECT_EQ(SameRow(bad_query.dq, clean.dq, row, q_cols), row != at);
          EXPECT_EQ(SameRow(bad_key.dv, clean.dv, row, kv_cols), row != at);
          EXPECT_EQ(SameRow(bad_key.dk, clean.dk, row, kv_cols), row != at);
          EXPECT_EQ(SameRow(bad_query.dv, clean.dv, row, kv_cols), !sees(at, row));
          EXPECT_EQ(SameRow(bad_query.dk, clean.dk, row, kv_cols), !sees(at, row));
          if (testing::Test::HasFailure()) return;
        }
      }
    }
  }
}

TEST_P(AttentionValuesTest, ScratchPastTheLimitFailsTheStream) {
  if (IsGpuKernel(GetParam())) GTEST_SKIP() << "a GPU's scratch is not counted";
  auto device = MakeCpuDevice({1, 1024, GetParam()});
  ASSERT_TRUE(device.ok());
  AttentionCase c;
  c.queries = c.keys = 2000;
  SetFull(&c);
  const AttentionInputs in(c);
  const GuardedMatrix out(DType::kF32, 2000, 16, 0, Guard::kAfter, [](int64_t, int64_t) { return 7; });
  const GuardedMatrix lse(DType::kF32, 2000, 1, 0, Guard::kAfter, [](int64_t, int64_t) { return 7; });
  AttentionTile tile;
  tile.heads = c.heads;
  tile.head_dim = 16;
  tile.queries = tile.keys = 2000;
  auto ranges = std::make_shared<KeyRanges>();
  ranges->lo = c.lo;
  ranges->hi = c.hi;
  tile.ranges = ranges;
  tile.q = in.q;
  tile.k = in.k;
  tile.v = in.v;
  const auto stream = (*device)->CreateStream("limit");
  (*device)->AttentionForward(*stream, tile, out, lse, true);
  EXPECT_EQ(stream->Synchronize().code(), absl::StatusCode::kResourceExhausted);
}

SEQPAR_INSTANTIATE_ATTENTION_TESTS(AttentionValuesTest);

}  // namespace
}  // namespace seqpar
