#include "coordinator/admission/tenant_ledger.h"

#include <gtest/gtest.h>

namespace seqpar {
namespace {

TEST(TenantLedger, CountsEachJobOnceAndGivesBackAll) {
  TenantLedger ledger;
  ledger.Add("j-1", "search", 100);
  ledger.Add("j-2", "search", 10);
  ledger.Add("j-3", "", 1);
  EXPECT_EQ(ledger.Of("search"), (TenantUse{2, 0, 0, 110}));
  EXPECT_EQ(ledger.Of(""), (TenantUse{1, 0, 0, 1}));
  ledger.Hold("j-1", 4);
  ledger.Hold("j-1", 4);
  EXPECT_EQ(ledger.Of("search"), (TenantUse{1, 1, 4, 110}));
  ledger.Hold("j-1", 0);  // between two attempts
  EXPECT_EQ(ledger.Of("search"), (TenantUse{2, 0, 0, 110}));
  ledger.Hold("j-1", 2);
  ledger.Add("j-1", "search", 100);  // it is there
  EXPECT_EQ(ledger.Of("search"), (TenantUse{1, 1, 2, 110}));
  ledger.Remove("j-1");
  ledger.Remove("j-1");
  ledger.Hold("j-1", 8);
  EXPECT_EQ(ledger.Of("search"), (TenantUse{1, 0, 0, 10}));
  ledger.Remove("j-2");
  EXPECT_EQ(ledger.Of("search"), TenantUse());
  EXPECT_EQ(ledger.Of(""), (TenantUse{1, 0, 0, 1}));
}

}  // namespace
}  // namespace seqpar
