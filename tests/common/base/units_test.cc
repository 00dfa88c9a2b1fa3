#include "common/base/units.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace seqpar {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

TEST(FormatBytes, IsIecWithThreeDigits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.00 KiB");
  EXPECT_EQ(FormatBytes(1536), "1.50 KiB");
  EXPECT_EQ(FormatBytes(12.34 * 1048576), "12.3 MiB");
  EXPECT_EQ(FormatBytes(4294967296.0), "4.00 GiB");
  EXPECT_EQ(FormatBytes(1048575), "1.00 MiB");  // not 1024 KiB
  EXPECT_EQ(FormatBytes(-2048), "-2.00 KiB");
  EXPECT_EQ(FormatBytes(0.5), "0.50 B");
  EXPECT_EQ(FormatBytes(kInf), "-");
}

TEST(FormatSeconds, ChoosesTheUnit) {
  EXPECT_EQ(FormatSeconds(0), "0 s");
  EXPECT_EQ(FormatSeconds(1.5e-9), "1.50 ns");
  EXPECT_EQ(FormatSeconds(12.3e-6), "12.3 us");
  EXPECT_EQ(FormatSeconds(0.25), "250 ms");
  EXPECT_EQ(FormatSeconds(0.9996), "1.00 s");
  EXPECT_EQ(FormatSeconds(9.996), "10.0 s");
  EXPECT_EQ(FormatSeconds(59.9), "59.9 s");
  EXPECT_EQ(FormatSeconds(59.96), "1 min 00 s");
  EXPECT_EQ(FormatSeconds(125), "2 min 05 s");
  EXPECT_EQ(FormatSeconds(3599.7), "1 h 00 min");
  EXPECT_EQ(FormatSeconds(3720), "1 h 02 min");
  EXPECT_EQ(FormatSeconds(-0.25), "-250 ms");
  EXPECT_EQ(FormatSeconds(std::nan("")), "-");
}

TEST(FormatCount, UsesSiPrefixes) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1500), "1.50 k");
  EXPECT_EQ(FormatCount(999.6e3), "1.00 M");
  EXPECT_EQ(FormatCount(0.5), "0.500");
  EXPECT_EQ(FormatCount(35149, "tokens"), "35.1 ktokens");
  EXPECT_EQ(FormatRate(1.23e9, "FLOP"), "1.23 GFLOP/s");
  EXPECT_EQ(FormatRate(12, "B"), "12 B/s");
  EXPECT_EQ(FormatRate(kInf, "B"), "-");
}

TEST(FormatPercent, HasThreeDigits) {
  EXPECT_EQ(FormatPercent(0.5), "50.0%");
  EXPECT_EQ(FormatPercent(1), "100%");
  EXPECT_EQ(FormatPercent(0.01234), "1.23%");
  EXPECT_EQ(FormatPercent(-kInf), "-");
}

TEST(ParseBytes, TakesWhatPeopleWrite) {
  const struct {
    const char* text;
    int64_t bytes;
  } cases[] = {{"0", 0},
               {"1000000", 1'000'000},
               {"512M", 512'000'000},
               {"512MB", 512'000'000},
               {"512 MB", 512'000'000},
               {"4GiB", int64_t{4} << 30},
               {"4Gi", int64_t{4} << 30},
               {"1.5KiB", 1536},
               {"1.5k", 1500},
               {"2K", 2000},
               {"1Ti", int64_t{1} << 40},
               {"1P", 1'000'000'000'000'000},
               {"7B", 7},
               {"9223372036854775807", INT64_MAX}};
  for (const auto& c : cases) {
    const absl::StatusOr<int64_t> bytes = ParseBytes(c.text);
    ASSERT_TRUE(bytes.ok()) << c.text << ": " << bytes.status();
    EXPECT_EQ(*bytes, c.bytes) << c.text;
  }
}

TEST(ParseBytes, RefusesTheRest) {
  for (const char* text : {"", " ", "B", "GiB", "-1", "+1", "1e9", "4 Gi B", "4X", "4GG", "4Gib", "1.2.3",
                           ".", "0x10", "9223372036854775808", "9000000Ti", "9999999.5Pi", "1 ki x", "4i"}) {
    EXPECT_FALSE(ParseBytes(text).ok()) << text << " gave " << ParseBytes(text).value();
  }
}

}  // namespace
}  // namespace seqpar
