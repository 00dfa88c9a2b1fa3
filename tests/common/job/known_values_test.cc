#include "common/job/known_values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/base/status.h"
#include "seqpar/v1/fleet.pb.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

constexpr int kUnknown = 99;

TEST(KnownValues, EveryValueThatHasANameIsKnown) {
  v1::Job job;
  EXPECT_TRUE(CheckKnownValues("job", job).ok()) << "nothing is said";
  (*job.mutable_labels())["a"] = "b";
  job.mutable_mask()->add_documents(7);
  for (int i = 0; i < v1::Mlp_descriptor()->value_count(); ++i) {
    job.mutable_config()->set_mlp(static_cast<v1::Mlp>(v1::Mlp_descriptor()->value(i)->number()));
    EXPECT_TRUE(CheckKnownValues("job", job).ok()) << v1::Mlp_descriptor()->value(i)->name();
  }
}

TEST(KnownValues, AnotherNumberIsRefusedByThePathOfItsField) {
  v1::StartRanks start;
  start.mutable_job()->set_dtype(static_cast<v1::DataType>(kUnknown));
  const absl::Status status = CheckKnownValues("start", start);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), reason::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("start.job.dtype is 99, which version"));
  start.mutable_job()->set_dtype(v1::DATA_TYPE_FLOAT32);
  EXPECT_TRUE(CheckKnownValues("start", start).ok());
  start.mutable_job()->mutable_mask()->set_kind(static_cast<v1::MaskKind>(-1));
  EXPECT_THAT(std::string(CheckKnownValues("start", start).message()),
              HasSubstr("start.job.mask.kind is -1"));
}

TEST(KnownValues, ElementsOfRepeatedFieldsAreLookedAt) {
  v1::Explanation explanation;
  explanation.add_best()->set_core(v1::CORE_RING);
  explanation.add_best()->set_core(static_cast<v1::Core>(kUnknown));
  EXPECT_THAT(std::string(CheckKnownValues("explanation", explanation).message()),
              HasSubstr("explanation.best[1].core is 99"));
}

}  // namespace
}  // namespace seqpar
