#include "coordinator/fleet/hello.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <vector>

#include "common/base/status.h"

namespace seqpar {
namespace {

v1::Hello Good() {
  v1::Hello hello;
  hello.set_node("node-a.rack_1");
  for (int i = 0; i < 2; ++i) {
    v1::DeviceSpec* device = hello.add_devices();
    device->set_kind("cpu");
    device->set_memory_bytes(int64_t{1} << 30);
    v1::DeviceRates* rates = device->mutable_rates();
    rates->set_gemm_flops(1e10);
    rates->set_attention_forward_flops(1e10);
    rates->set_attention_backward_flops(1e10);
    rates->set_copy_bytes(1e10);
    rates->set_peak_flops(1e10);
  }
  hello.mutable_local()->set_bandwidth(1e10);
  hello.set_highest_term(7);
  (*hello.mutable_highest_attempts())["j-1"] = 3;
  return hello;
}

std::vector<std::string> WrongFields(const std::function<void(v1::Hello*)>& change) {
  v1::Hello hello = Good();
  change(&hello);
  const absl::Status checked = CheckHello(hello);
  if (!checked.ok()) {
    EXPECT_EQ(checked.code(), absl::StatusCode::kInvalidArgument);
  }
  std::vector<std::string> fields;
  for (const Violation& violation : ViolationsOf(checked)) fields.push_back(violation.field);
  return fields;
}

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Hello, OfAWorkerThatIsWell) {
  EXPECT_THAT(WrongFields([](v1::Hello*) {}), IsEmpty());
  EXPECT_THAT(WrongFields([](v1::Hello* h) {
                h->mutable_devices()->RemoveLast();
                h->clear_local();  // nobody measures it where there is one device
              }),
              IsEmpty());
}

TEST(Hello, NamesWhatNobodyCanPlanWith) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(WrongFields([](v1::Hello* h) { h->mutable_devices(1)->mutable_rates()->set_gemm_flops(kNan); }),
              ElementsAre("hello.devices[1].rates.gemm_flops"));
  EXPECT_THAT(WrongFields([](v1::Hello* h) {
                h->mutable_devices(0)->set_memory_bytes(-1);
                h->mutable_local()->set_bandwidth(0);
                h->set_start_seconds(kNan);
              }),
              ElementsAre("hello.devices[0].memory_bytes", "hello.start_seconds", "hello.local.bandwidth"));
  EXPECT_THAT(WrongFields([](v1::Hello* h) { h->set_node("a/b"); }), ElementsAre("hello.node"));
  EXPECT_THAT(WrongFields([](v1::Hello* h) { h->set_node(std::string(254, 'a')); }),
              ElementsAre("hello.node"));
}

TEST(Hello, NamesNumbersThatNobodyCountsUpTo) {
  EXPECT_THAT(WrongFields([](v1::Hello* h) { h->set_highest_term(std::numeric_limits<int64_t>::max()); }),
              ElementsAre("hello.highest_term"));
  EXPECT_THAT(WrongFields([](v1::Hello* h) {
                (*h->mutable_highest_attempts())["j-2"] = std::numeric_limits<int32_t>::max();
                (*h->mutable_highest_attempts())["j-1"] = -1;
              }),
              ElementsAre("hello.highest_attempts.j-1", "hello.highest_attempts.j-2"));
}

TEST(Hello, NodeNames) {
  EXPECT_TRUE(IsNodeName("a-1_b.C"));
  for (const char* bad : {"", "a/b", "a b", "\xc3\xa4", "a\n"}) EXPECT_FALSE(IsNodeName(bad)) << bad;
}

}  // namespace
}  // namespace seqpar
