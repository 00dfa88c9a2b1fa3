#include "common/attention/scheduled_attention.h"

#include "gtest/gtest.h"
#include "tests/common/attention/attention_case.h"

namespace seqpar {
namespace {

AttentionCase RingCase(int ring, MaskSpec mask) {
  AttentionCase c;
  c.mesh.ring = ring;
  c.problem = {1, 67, 4, 2, 16, std::move(mask)};
  return c;
}

TEST(ScheduledAttentionTest, OneRank) { ExpectRight(RingCase(1, {MaskKind::kCausal})); }

TEST(ScheduledAttentionTest, RingFullMask) { ExpectRight(RingCase(4, {MaskKind::kFull})); }

TEST(ScheduledAttentionTest, RingCausal) { ExpectRight(RingCase(3, {MaskKind::kCausal})); }

}  // namespace
}  // namespace seqpar
