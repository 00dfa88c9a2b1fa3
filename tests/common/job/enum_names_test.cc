#include "common/job/enum_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "seqpar/v1/fleet.pb.h"
#include "seqpar/v1/job.pb.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;

TEST(EnumNames, AreWhatStandsInAJobFile) {
  EXPECT_EQ(ShortName(v1::MASK_KIND_WINDOW), "window");
  EXPECT_EQ(ShortName(v1::MASK_KIND_UNSPECIFIED), "unspecified");
  EXPECT_EQ(ShortName(static_cast<v1::MaskKind>(77)), "?");
  EXPECT_THAT(ShortEnumNames(*v1::MaskKind_descriptor()), ElementsAre("full", "causal", "window"));
}

TEST(EnumNames, OfAnEnumWithoutAPrefixAreItsOwn) {
  EXPECT_EQ(ShortName(v1::RankEvent::FINISHED), "finished");
}

}  // namespace
}  // namespace seqpar
