#include "coordinator/auth/audit_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "common/base/status.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

std::vector<nlohmann::json> Records(const std::string& path) {
  std::vector<nlohmann::json> records;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) records.push_back(nlohmann::json::parse(line));
  return records;
}

TEST(AuditLog, SaysWhoChangedWhatWhenAndFromWhere) {
  TempFolder folder;
  FakeClock clock(0);
  const Caller caller{"ann", Role::kSubmitter, "search", "", "ipv4:10.0.0.7:5"};
  for (int i = 0; i < 2; ++i) {  // the second time it goes on
    auto audit = AuditLog::Open(folder / "audit", &clock);
    ASSERT_TRUE(audit.ok()) << audit.status();
    (*audit)->Changed(caller, "/s/CancelJob", "j-1", "id: \"j-1\"",
                      i == 0 ? absl::OkStatus() : absl::NotFoundError("no\nsuch job"));
  }
  const std::vector<nlohmann::json> records = Records(folder / "audit");
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0], nlohmann::json({{"time", "1970-01-01T00:00:00.000Z"},
                                        {"level", "info"},
                                        {"component", "audit"},
                                        {"message", "change"},
                                        {"who", "ann"},
                                        {"role", "submitter"},
                                        {"tenant", "search"},
                                        {"from", "ipv4:10.0.0.7:5"},
                                        {"method", "/s/CancelJob"},
                                        {"object", "j-1"},
                                        {"request", "id: \"j-1\""},
                                        {"outcome", "OK"},
                                        {"error", ""}}));
  EXPECT_EQ(records[1]["outcome"], "NOT_FOUND");
  EXPECT_EQ(records[1]["error"], "no\nsuch job");
}

TEST(AuditLog, AFloodOfRefusalsIsCounted) {
  TempFolder folder;
  FakeClock clock;
  auto audit = AuditLog::Open(folder / "audit", &clock);
  ASSERT_TRUE(audit.ok()) << audit.status();
  for (int i = 0; i < 25; ++i) (*audit)->Refused("/s/M", absl::UnauthenticatedError("who?"));
  EXPECT_EQ(Records(folder / "audit").size(), 10u);
  clock.AdvanceMicros(1'000'000);
  (*audit)->Refused("/s/M", absl::UnauthenticatedError("who?"));
  const std::vector<nlohmann::json> records = Records(folder / "audit");
  ASSERT_EQ(records.size(), 11u);
  EXPECT_EQ(records[9]["left_out_before"], "0");
  EXPECT_EQ(records[10]["left_out_before"], "15");
  EXPECT_EQ(records[10]["outcome"], "UNAUTHENTICATED");
}

TEST(AuditLog, AFileThatCannotBeWrittenIsRefused) {
  FakeClock clock;
  EXPECT_EQ(AuditLog::Open("/no/such/folder/audit", &clock).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace seqpar
