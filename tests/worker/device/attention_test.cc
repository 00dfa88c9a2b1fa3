#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <tuple>
#include <vector>

#include "tests/worker/device/attention_fixture.h"

namespace seqpar {
namespace {

TEST_P(AttentionTest, TheDeviceNamesItsKernel) { EXPECT_EQ(device_->info().kernel, GetParam()); }

TEST_P(AttentionTest, AnyHeadDim) {
  for (int head_dim : {1, 5, 16, 40, 64, 80, 96, 128}) {
    AttentionCase c;
    c.head_dim = head_dim;
    c.queries = c.keys = 131;
    SetFull(&c);
    Check(c);
    c.gap = 3;
    SetCausal(&c);
    Check(c);
  }
}

TEST_P(AttentionTest, LengthsAroundEveryBlockEdge) {
  for (int64_t n : {1,  3,  4,   5,   11,  12,  13,  23,  24,  25,  47,  48,  49,  95,
                    96, 97, 127, 128, 129, 131, 132, 133, 192, 193, 255, 256, 257, 265}) {
    AttentionCase c;
    c.queries = c.keys = n;
    for (Guard guard : {Guard::kBefore, Guard::kAfter}) {
      c.guard = guard;
      SetCausal(&c);
      Check(c);
    }
    SetFull(&c);
    Check(c);
    c.keys = n + 7;
    SetCausal(&c);
    Check(c);
    c.keys = 17;
    SetFull(&c);
    Check(c);
  }
}

TEST_P(AttentionTest, WindowsAndDocuments) {
  AttentionCase c;
  c.head_dim = 8;
  c.queries = c.keys = 310;
  for (const auto& [left, right] :
       std::vector<std::pair<int, int>>{{0, 0}, {1, 0}, {5, 5}, {100, 0}, {130, 40}}) {
    SetWindow(&c, left, right);
    Check(c);
  }
  SetDocuments(&c, {1, 2, 97, 13, 150, 47});
  Check(c);
}

TEST_P(AttentionTest, QueriesThatSeeNoKey) {
  AttentionCase c;
  c.queries = 120;
  c.keys = 60;
  c.lo.assign(120, 0);
  c.hi.assign(120, 0);
  Check(c);  // none sees any
  for (int i = 0; i < 120; ++i) {
    // Nothing, one key, a growing range, nothing again at the end.
    c.lo[i] = i < 30 ? 0 : i < 100 ? (i - 30) / 2 : 60;
    c.hi[i] = i < 20 ? 0 : i < 30 ? 1 : i < 100 ? std::min(60, i - 20) : 60;
  }
  Check(c);
}

// There the output is the key's value, and the weight is 1 whatever q and k are.
TEST_P(AttentionTest, AQueryThatSeesOneKeyMovesNeitherQNorK) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (int head_dim : {1, 8, 67, 128}) {
      AttentionCase c;
      c.head_dim = head_dim;
      c.dtype = dtype;
      c.queries = c.keys = 150;
      c.heads = MakeHeadRange(0, 3, 1);
      SetWindow(&c, 0, 0);
      const AttentionInputs in(c);
      const AttentionResult result = RunThrough(*device_, c, in);
      // Tensor cores add up dout . v in an order of their own, delta in another: what is left of the two is
      // rounding.
      const double left = RoundingOf(*device_, c) > 0 ? 1e-4 : 0;
      for (double dq : result.dq) EXPECT_LE(std::abs(dq), left);
      for (double dk : result.dk) EXPECT_LE(std::abs(dk), left);
    }
  }
}

TEST_P(AttentionTest, GroupedQueryHeads) {
  for (int group : {1, 2, 4}) {
    AttentionCase c;
    c.queries = c.keys = 101;
    c.batch = 2;
    c.group = group;
    c.heads = MakeHeadRange(0, 4, group);
    SetCausal(&c);
    Check(c);
  }
  // Ranges that straddle groups: heads 2 to 6 of groups of three use KV heads 0, 1 and 2.
  AttentionCase c;
  c.queries = c.keys = 50;
  c.group = 3;
  c.heads = MakeHeadRange(2, 7, 3);
  c.gap = 5;
  SetCausal(&c);
  Check(c);
}

TEST_P(AttentionTest, BFloat16) {
  for (int head_dim : {5, 64}) {
    AttentionCase c;
    c.head_dim = head_dim;
    c.dtype = DType::kBF16;
    c.batch = 2;
    c.group = 2;
    c.heads = MakeHeadRange(0, 2, 2);
    c.queries = c.keys = 140;
    c.gap = 1;
    SetCausal(&c);
    Check(c);
  }
}

// Each has kernels of its own on tensor cores; elsewhere one stands for them.
std::vector<int> WideHeadDims(const std::string& kernel) {
  return IsGpuKernel(kernel) ? std::vector<int>{64, 96, 128} : std::vector<int>{96};
}

// What kernels for tensor cores serve, and lengths that no tile of theirs divides.
AttentionCase WideHeads(int head_dim, int64_t queries, int64_t keys) {
  AttentionCase c;
  c.dtype = DType::kBF16;
  c.head_dim = head_dim;
  c.queries = queries;
  c.keys = keys;
  c.heads = MakeHeadRange(0, 2, 1);
  return c;
}

TEST_P(AttentionTest, BFloat16OfWideHeads) {
  for (const int head_dim : WideHeadDims(GetParam())) {
    for (const auto& [queries, keys] :
         std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {64, 128}, {200, 333}, {419, 419}, {130, 600}}) {
      AttentionCase c = WideHeads(head_dim, queries, keys);
      SetFull(&c);
      Check(c);
      SetCausal(&c);
      Check(c);
      Check(c, {keys / 3, keys / 2});
    }
  }
}

TEST_P(AttentionTest, BFloat16OfWideHeadsByWindowAndDocument) {
  for (const int head_dim : WideHeadDims(GetParam())) {
    AttentionCase c = WideHeads(head_dim, 500, 500);
    for (const auto& [left, right] :
         std::vector<std::pair<int, int>>{{100, 0}, {150, 60}, {3, 3}, {-1, 200}}) {
      SetWindow(&c, left, right);
      Check(c);
      Check(c, {130, 400});
    }
    SetDocuments(&c, {140, 1, 259, 100});
    Check(c);
    Check(c, {300});
    SetDocuments(&c, std::vector<int64_t>(100, 5));  // more runs than are worth a launch each
    Check(c);
  }
}

// As a ring's queries before, among and behind those that see the keys.
TEST_P(AttentionTest, BFloat16OfWideHeadsAmongQueriesThatSeeNoKey) {
  for (const int head_dim : WideHeadDims(GetParam())) {
    AttentionCase c = WideHeads(head_dim, 500, 500);
    for (int i = 0; i < 500; ++i) {
      c.lo.push_back(i < 130 ? 0 : i < 300 ? 20 : 299);
      c.hi.push_back(i < 130 ? 0 : i < 300 ? i : 299);
    }
    Check(c);
    Check(c, {200});
  }
}

TEST_P(AttentionTest, BFloat16OfWideHeadsGrouped) {
  for (const int head_dim : WideHeadDims(GetParam())) {
    for (const auto& [begin, end, group] :
         std::vector<std::tuple<int, int, int>>{{0, 8, 4}, {2, 7, 3}, {0, 2, 2}, {4, 6, 4}}) {
      AttentionCase c = WideHeads(head_dim, 150, 290);
      c.batch = 2;
      c.group = group;
      c.heads = MakeHeadRange(begin, end, group);
      SetCausal(&c);
      Check(c);
      Check(c, {200});
    }
  }
}

TEST_P(AttentionTest, BFloat16OfWideHeadsHasTheSameBitsAgain) {
  if (GetParam() == "cuda") GTEST_SKIP() << "is not asked to";
  for (const int head_dim : WideHeadDims(GetParam())) {
    AttentionCase c = WideHeads(head_dim, 700, 700);
    c.group = 2;
    c.heads = MakeHeadRange(0, 4, 2);
    for (const int64_t left : {-1, 300}) {
      SetWindow(&c, left, 0);
      const AttentionInputs in(c);
      const AttentionResult once = RunThrough(*device_, c, in);
      for (int repeat = 0; repeat < 3; ++repeat) ExpectSameBits(once, RunThrough(*device_, c, in));
    }
  }
}

TEST_P(AttentionTest, BFloat16OfEveryWidth) {
  const std::vector<int> wide = {8, 16, 24, 40, 80, 112, 136, 192, 256};
  for (const int head_dim : IsGpuKernel(GetParam()) ? wide : std::vector<int>{40}) {
    AttentionCase c = WideHeads(head_dim, 190, 300);
    SetCausal(&c);
    Check(c);
    Check(c, {150});
    SetWindow(&c, 60, 30);
    Check(c);
  }
}

// tests/gpu/run.sh says which kernel the build has for them. The GPU is shared by the tests of a process:
// only where this one runs alone must nothing else have run.
TEST_P(AttentionTest, BFloat16OfWideHeadsRunsOnTheKernelThatTheBuildHas) {
  const char* expected = std::getenv("SEQPAR_TEST_ATTENTION");
  if (!IsGpuKernel(GetParam()) || expected == nullptr) GTEST_SKIP() << "nobody says which";
  const bool alone = testing::UnitTest::GetInstance()->test_to_run_count() == 1;
  const bool fixed_order = GetParam() != "cuda", own = expected == std::string("tiled_float32");
  const std::string kernel = std::string(expected) + (fixed_order && !own ? "_fixed_order" : "");
  const auto check = [&](const char* what, const AttentionCase& c, const std::vector<int64_t>& cuts = {}) {
    SCOPED_TRACE(what);
    Check(c, cuts);
    const std::string used = device_->attention_use().kernel;
    EXPECT_EQ(alone ? used : kernel, kernel);
    EXPECT_NE(used.find(kernel), std::string::npos) << used;
  };
  for (const int head_dim : WideHeadDims(GetParam())) {
    AttentionCase c = WideHeads(head_dim, 200, 200);
    SetFull(&c);
    check("full", c);
    SetCausal(&c);
    check("causal", c, {90});
    SetDocuments(&c, {70, 130});
    check("documents", c);
    c.batch = 2;
    c.group = 4;
    c.heads = MakeHeadRange(0, 8, 4);
    check("groups", c);
    SetWindow(&c, 65, 66);
    check("window", c);
  }
  EXPECT_EQ(device_->attention_use().deterministic, fixed_order || own);
}

// Documents of too few tokens to be worth a graph, between and beside longer ones: each by its own kernel.
TEST_P(AttentionTest, BFloat16OfLongAndShortDocuments) {
  const auto documents = [](AttentionCase c, const std::vector<int64_t>& lengths) {
    SetDocuments(&c, lengths);
    return c;
  };
  for (const int head_dim : WideHeadDims(GetParam())) {
    AttentionCase c = WideHeads(head_dim, 400, 400);
    Check(documents(c, {40, 200, 1, 30, 129}));
    Check(documents(c, {40, 200, 1, 30, 129}), {130, 300});
    Check(documents(c, {300, 100 - 3, 1, 1, 1}));
    c.batch = 2;
    c.group = 4;
    c.heads = MakeHeadRange(0, 8, 4);
    Check(documents(c, {1, 1, 1, 197, 40, 160}), {90});
  }
}

// One query against several keys, by itself and at the edges of others' masks.
TEST_P(AttentionTest, BFloat16OfWideHeadsOfOneQuery) {
  for (const int head_dim : WideHeadDims(GetParam())) {
    AttentionCase c = WideHeads(head_dim, 1, 33);
    c.group = 4;
    c.heads = MakeHeadRange(0, 8, 4);
    SetFull(&c);
    Check(c);
    c.queries = 30;
    c.keys = 90;
    c.lo.clear(), c.hi.clear();
    for (int i = 0; i < 30; ++i) {
      c.lo.push_back(i < 14 ? 0 : i == 14 ? 5 : i);
      c.hi.push_back(i < 14 ? 20 + i : i == 14 ? 40 : 60);
    }
    Check(c);
  }
}

// More queries than a CPU's backward pass takes through the keys together; also by several threads.
TEST_P(AttentionTest, QueriesOfSeveralBlocks) {
  AttentionCase c;
  c.head_dim = 128;
  c.queries = c.keys = 1600;
  SetCausal(&c);
  Check(c);
  SetWindow(&c, 90, 20);
  Check(c);
  if (IsGpuKernel(GetParam())) return;
  const AttentionInputs in(c);
  const auto threads = MakeDevice(GetParam(), 3);
  ExpectSameBits(RunThrough(*device_, c, in), RunThrough(*threads, c, in));
}

SEQPAR_INSTANTIATE_ATTENTION_TESTS(AttentionTest);

}  // namespace
}  // namespace seqpar
