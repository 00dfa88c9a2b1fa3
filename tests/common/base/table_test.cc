#include "common/base/table.h"

#include <gtest/gtest.h>

namespace seqpar {
namespace {

TEST(TextTable, AlignsColumnsWithoutTrailingSpaces) {
  TextTable table({{"mesh"}, {"step", TextTable::Align::kRight}, {"note"}});
  EXPECT_TRUE(table.empty());
  table.AddRow({"R4", "1.50 s", "chosen"});
  table.AddRow({"U2 x R2", "900 ms"});
  EXPECT_FALSE(table.empty());
  EXPECT_EQ(table.ToString(),
            "mesh       step  note\n"
            "R4       1.50 s  chosen\n"
            "U2 x R2  900 ms\n");
}

TEST(TextTable, CountsColumnsOfTheTerminalAndNotBytes) {
  TextTable table({{"name"}, {"state"}});
  table.AddRow({"\xe9\x95\xb7\xe6\x96\x87", "RUNNING"});
  table.AddRow({"caf\xc3\xa9", "FAILED"});
  table.AddRow({"plain", "PENDING"});
  EXPECT_EQ(table.ToString(),
            "name   state\n"
            "\xe9\x95\xb7\xe6\x96\x87   RUNNING\n"
            "caf\xc3\xa9   FAILED\n"
            "plain  PENDING\n");
}

TEST(TextTable, IndentsEveryLine) {
  TextTable table({{"n", TextTable::Align::kRight}});
  table.AddRow({"10"});
  EXPECT_EQ(table.ToString(2), "   n\n  10\n");
}

TEST(TextTableDeathTest, RefusesTooManyCells) {
  TextTable table({{"a"}});
  EXPECT_DEATH(table.AddRow({"1", "2"}), "check failed");
}

}  // namespace
}  // namespace seqpar
