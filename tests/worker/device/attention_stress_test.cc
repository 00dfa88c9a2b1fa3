// Inputs that attention kernels are known to break on, each forward, backward and in pieces that merge.
#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "tests/worker/device/attention_fixture.h"

namespace seqpar {
namespace {

using AttentionStressTest = AttentionTest;

// Panels are 12, 24 or 48 queries, granules 12 keys, tiles 96 queries, chunks 96, 128, 132 or 192 keys.
const std::vector<int64_t> kEdges = {4, 6, 12, 24, 48, 96, 128, 132, 144, 192, 256, 264, 288};

TEST_P(AttentionStressTest, BothStorageTypesAroundEveryBlockEdge) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t edge : kEdges) {
      for (const int64_t n : {edge - 1, edge, edge + 1}) {
        AttentionCase c;
        c.dtype = dtype;
        c.queries = c.keys = n;
        c.guard = n % 2 == 0 ? Guard::kBefore : Guard::kAfter;
        SetCausal(&c);
        Check(c);
        Check(c, {n / 2});
        c.queries = 13;  // as a late shard of a ring has them
        SetCausal(&c);
        Check(c);
      }
    }
  }
}

TEST_P(AttentionStressTest, DocumentsThatStartAroundEveryBlockEdge) {
  for (const int64_t edge : kEdges) {
    for (const int64_t first : {edge - 1, edge, edge + 1}) {
      AttentionCase c;
      c.queries = c.keys = first + 29;
      SetDocuments(&c, {first, 29});
      Check(c);
    }
  }
}

TEST_P(AttentionStressTest, WindowsAsWideAsEveryBlock) {
  for (const int64_t edge : kEdges) {
    for (const int64_t left : {edge - 1, edge}) {
      AttentionCase c;
      c.head_dim = 8;
      c.queries = c.keys = 301;
      SetWindow(&c, left, 0);
      Check(c);
      SetWindow(&c, left, left);
      Check(c, {150});
    }
  }
}

TEST_P(AttentionStressTest, OneKey) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t queries : {1, 2, 11, 12, 13, 47, 48, 49, 97, 200}) {
      AttentionCase c;
      c.dtype = dtype;
      c.magnitude = 20;
      c.queries = queries;
      c.keys = 1;
      SetFull(&c);
      Check(c, {}, 1e-3);
    }
  }
}

TEST_P(AttentionStressTest, APieceOfOneKeyBesideALongOne) {
  AttentionCase c;
  c.queries = 60;
  c.keys = 250;
  SetFull(&c);
  Check(c, {1});
  Check(c, {249});
  Check(c, {1, 2, 3, 248, 249});
}

// Scores up to some 800: no exponential of a score, of a log-sum-exp or of a positive difference survives.
TEST_P(AttentionStressTest, ScoresOfSeveralHundred) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    AttentionCase c;
    c.dtype = dtype;
    c.head_dim = 64;
    c.magnitude = 20;
    c.queries = c.keys = 150;
    c.batch = 2;
    c.group = 2;
    c.heads = MakeHeadRange(0, 4, 2);
    for (const int64_t left : {-1, 0, 40}) {
      SetWindow(&c, left, 0);
      Check(c, {}, 1e-3);
      Check(c, {1, 75, 149}, 1e-3);
    }
    SetFull(&c);
    Check(c, {75}, 1e-3);
  }
}

// A score of one sign in one piece and of the other in the next: log-sum-exps some 600 apart, either way
// round.
TEST_P(AttentionStressTest, PiecesOfVeryDifferentWeight) {
  AttentionCase c;
  c.magnitude = 12;
  c.head_dim = 128;
  c.queries = 90;
  c.keys = 4;
  SetFull(&c);
  const AttentionInputs in(c);
  for (int64_t key = 0; key < 4; ++key) {
    for (int d = 0; d < c.head_dim; ++d) {
      *reinterpret_cast<float*>(in.k.matrix().At(key, d)) = key % 2 == 0 ? -7.0f : 7.0f;
    }
  }
  for (int64_t query = 0; query < c.queries; ++query) {
    for (int d = 0; d < c.head_dim; ++d) {
      float& value = *reinterpret_cast<float*>(in.q.matrix().At(query, d));
      value = query % 2 == 0 ? std::abs(value) : -std::abs(value);
    }
  }
  const AttentionResult oracle = Oracle(c, in);
  EXPECT_GT(*std::max_element(oracle.lse.begin(), oracle.lse.end()), 300);
  const std::vector<int64_t> cuts = {1, 2, 3};
  const AttentionResult plain = RunOn(*plain_, c, in, oracle, cuts);
  ExpectPlainIsRight(plain, oracle, 1e-4);
  ExpectClose(RunOn(*device_, c, in, oracle, cuts), plain, oracle);
}

// Every score is the same, and not zero; dq is exactly zero, which dv is the scale of.
TEST_P(AttentionStressTest, IdenticalRows) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    AttentionCase c;
    c.dtype = dtype;
    c.same_rows = true;
    c.head_dim = 24;
    c.magnitude = 3;
    c.queries = c.keys = 200;
    SetCausal(&c);
    Check(c);
    Check(c, {1, 96, 150});
    SetWindow(&c, 20, 5);
    Check(c, {100});
  }
}

TEST_P(AttentionStressTest, NothingToSeeInAnyPieceOrInSome) {
  AttentionCase c;
  c.queries = 130;
  c.keys = 90;
  c.lo.assign(130, 0);
  c.hi.assign(130, 0);
  Check(c, {1, 45, 89});  // empty merged into empty
  for (int i = 0; i < 130; ++i) {
    // The first third sees only the first piece, then only the last, the rest none.
    c.lo[i] = i < 50 ? 0 : i < 100 ? 60 : 90;
    c.hi[i] = i < 50 ? 1 + i / 2 : 90;
  }
  Check(c, {30, 60});
  c.magnitude = 20;
  Check(c, {30, 60}, 1e-3);
}

// Panels in the middle of a tile that see nothing, as where keys of a window come from several ranks: their
// neighbours' keys meet in one granule.
TEST_P(AttentionStressTest, NothingToSeeBetweenQueriesThatSeeSomething) {
  for (const int64_t key : {1, 5, 6, 20, 30, 95, 100}) {  // the first that the later queries see
    for (const int64_t empty : {1, 12, 24, 36, 50, 100}) {
      AttentionCase c;
      c.keys = key + 25;
      for (const auto& [queries, lo, hi] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
               {13, 0, key}, {empty, key, key}, {9, key, key + 25}}) {
        c.lo.insert(c.lo.end(), queries, static_cast<int32_t>(lo));
        c.hi.insert(c.hi.end(), queries, static_cast<int32_t>(hi));
      }
      c.queries = static_cast<int64_t>(c.lo.size());
      Check(c);
    }
  }
}

// Denormal scores are as good as zero, and what is averaged may be denormal itself.
TEST_P(AttentionStressTest, Denormals) {
  AttentionCase c;
  c.queries = c.keys = 150;
  SetCausal(&c);
  c.magnitude = 1e-39;
  Check(c);
  Check(c, {70});
  c.magnitude = 1e-20;  // products of q and k are
  Check(c, {70});
  c.magnitude = 1;
  c.value_magnitude = 1e-39;  // a few bits are left of each value
  c.gradients_from = 0;
  Check(c, {}, 1e-3);
  Check(c, {70}, 1e-3);
}

// Weights that underflow: what is far below the largest score counts for nothing, and is no NaN.
TEST_P(AttentionStressTest, WeightsFromOneToNothing) {
  AttentionCase c;
  c.head_dim = 4;
  c.magnitude = 60;  // scores from -7,200 to 7,200
  c.queries = c.keys = 170;
  SetFull(&c);
  Check(c, {}, 1e-2);
  Check(c, {60, 130}, 1e-2);
}

SEQPAR_INSTANTIATE_ATTENTION_TESTS(AttentionStressTest);

}  // namespace
}  // namespace seqpar
