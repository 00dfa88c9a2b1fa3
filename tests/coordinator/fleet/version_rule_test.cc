#include "coordinator/fleet/version_rule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/status.h"

namespace seqpar {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Case {
  const char* own;
  const char* oldest;
  const char* worker;
  const char* refusal;  // a part of it; null: served
};

TEST(VersionRule, ServesItsOwnReleaseAndTheOneBefore) {
  const Case cases[] = {
      {"0.1.0", "0.1.0", "0.1.0", nullptr},
      {"0.1.0", "0.1.0", "0.1.7", nullptr},  // a patch, of either side
      {"0.1.7", "0.1.0", "0.1.0", nullptr},
      {"0.2.0", "0.1.3", "0.1.0", nullptr},  // patches of the oldest release do not matter either
      {"0.2.0-rc1", "0.1.0", "0.2.0+local.4", nullptr},
      {"1.0.0", "0.9.0", "0.9.2", nullptr},
      {"0.10.0", "0.9.0", "0.9.0", nullptr},  // by number, not by letter
      {"0.1.0", "0.1.0", "0.0.9", "serves (0.1): upgrade the worker to 0.1.0"},
      {"0.3.0", "0.2.0", "0.1.9", "is 0.1.9, older than this coordinator, 0.3.0, serves (0.2 to 0.3)"},
      {"1.0.0", "0.9.0", "0.8.9", "upgrade the worker to 1.0.0"},
      {"0.10.0", "0.9.0", "0.1.0", "upgrade the worker to 0.10.0"},
      {"0.1.9", "0.1.0", "0.2.0",
       "is 0.2.0, newer than this coordinator, 0.1.9: upgrade the coordinator first"},
      {"0.9.0", "0.8.0", "1.0.0-rc1", "newer than this coordinator"},
      {"0.1.0", "0.1.0", "", "no version that can be read (\"\")"},
      {"0.1.0", "0.1.0", "0.1", "no version that can be read"},
      {"0.1.0", "0.1.0", "0.1.0.0", "no version that can be read"},
      {"0.1.0", "0.1.0", "0.+1.0", "no version that can be read"},
      {"0.1.0", "0.1.0", "0.1.x", "no version that can be read"},
      {"0.1.0", "0.1.0", "-0.1.0", "no version that can be read"},
      {"0.1.0", "0.1.0", "0.1.99999999999", "no version that can be read"},
      {"0.1.0", "0.1.0", "0.1.0\n\x01", "no version that can be read (\"0.1.0\\n\\x01\")"},
  };
  for (const Case& c : cases) {
    const absl::Status served = ServesWorker({c.own, c.oldest}, "node-a", c.worker);
    SCOPED_TRACE(std::string(c.own) + " asked by " + c.worker);
    if (c.refusal == nullptr) {
      EXPECT_TRUE(served.ok()) << served;
      continue;
    }
    EXPECT_EQ(served.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(ReasonOf(served), reason::kVersionSkew);
    EXPECT_THAT(std::string(served.message()), AllOf(HasSubstr("node-a"), HasSubstr(c.refusal)));
  }
}

TEST(VersionRule, DoesNotRepeatALongVersion) {
  const absl::Status served = ServesWorker({}, "a", std::string(1 << 20, 'x'));
  EXPECT_LT(served.message().size(), 300u);
}

TEST(VersionRule, ServesItself) { EXPECT_TRUE(ServesWorker({}, "a", kVersion).ok()); }

}  // namespace
}  // namespace seqpar
