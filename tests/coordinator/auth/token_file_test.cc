#include "coordinator/auth/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/tls.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

constexpr char kSecret[] = "0123456789abcdef0123456789abcdef";
constexpr int64_t kDayUs = int64_t{24} * 3600 * 1'000'000;

std::string Line(const std::string& fields, const std::string& secret = kSecret) {
  return absl::StrCat(fields, " sha256=", Sha256Hex(secret), "\n");
}

TEST(Tokens, SayWhoHoldsThem) {
  const auto tokens =
      ParseTokens("# comment\n\n" + Line("name=ann role=submitter tenant=search expires=1970-01-02") +
                  Line("role=worker expires=1970-01-01T12:00:00Z node=* name=rack", "another"));
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  const Token& ann = tokens->at(Sha256Hex(kSecret));
  EXPECT_EQ(ann.caller.name, "ann");
  EXPECT_EQ(ann.caller.role, Role::kSubmitter);
  EXPECT_EQ(ann.caller.tenant, "search");
  EXPECT_FALSE(ann.caller.MayAttachAs("a"));
  EXPECT_EQ(ann.end_us, 2 * kDayUs) << "the day is in";
  const Token& rack = tokens->at(Sha256Hex("another"));
  EXPECT_EQ(rack.end_us, kDayUs / 2);
  EXPECT_TRUE(rack.caller.MayAttachAs("any"));
}

TEST(Tokens, EveryWrongLineIsNamed) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {Line("role=viewer tenant=t expires=2030-01-01"), "needs name="},
      {Line("name=a role=veiwer tenant=t expires=2030-01-01"), "no role veiwer"},
      {Line("name=a role=viewer expires=2030-01-01"), "needs tenant="},
      {Line("name=a role=worker expires=2030-01-01"), "needs node="},
      {Line("name=a role=worker node=n tenant=t expires=2030-01-01"), "gives a worker a tenant"},
      {Line("name=a role=viewer tenant=t node=n expires=2030-01-01"), "gives a user a node"},
      {Line("name=a role=viewer tenant=t"), "needs expires="},
      {Line("name=a role=viewer tenant=t expires=never"), "needs expires="},
      {Line("name=a role=viewer tenant=t/u expires=2030-01-01"), "tenant has other characters"},
      {Line("name=a name=b role=viewer tenant=t expires=2030-01-01"), "has name twice"},
      {Line("name=a rol=viewer tenant=t expires=2030-01-01"), "has a field rol"},
      {"name=a role=viewer tenant=t expires=2030-01-01\n", "needs sha256="},
      {"name=a role=viewer tenant=t expires=2030-01-01 sha256=abc\n", "needs sha256="},
      {Line("name=a role=viewer tenant=t expires=2030-01-01") +
           Line("name=b role=viewer tenant=t expires=2030-01-01"),
       "has the hash of a line before it"},
  };
  std::string all;
  for (const auto& [text, why] : wrong) {
    const absl::Status status = ParseTokens(text).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr(why)) << text;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(ViolationsOf(ParseTokens(wrong[1].first + "# x\n" + wrong[8].first).status()).back().field,
            "line 3");
  EXPECT_EQ(ViolationsOf(ParseTokens(wrong[1].first).status())[0].nearest, "viewer");
}

class TokenFileTest : public ::testing::Test {
 protected:
  void Write(const std::string& text) { std::ofstream(path_) << text; }
  std::string NameOf(const std::string& token) {
    const absl::StatusOr<Caller> caller = file_->Find(token);
    return caller.ok() ? caller->name : std::string(caller.status().message());
  }
  void Open() {
    auto file = TokenFile::Open(path_, &clock_);
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
  }

  TempFolder folder_;
  const std::string path_ = folder_ / "tokens";
  FakeClock clock_;
  std::unique_ptr<TokenFile> file_;
};

TEST_F(TokenFileTest, ATokenEnds) {
  Write(Line("name=ann role=viewer tenant=t expires=1970-01-01"));
  Open();
  EXPECT_EQ(NameOf(kSecret), "ann");
  EXPECT_EQ(NameOf("another"), "this token is not known here");
  EXPECT_EQ(NameOf(Sha256Hex(kSecret)), "this token is not known here") << "the hash is no token";
  clock_.AdvanceMicros(kDayUs);
  EXPECT_EQ(NameOf(kSecret), "this token of ann has expired");
  EXPECT_EQ(file_->Find(kSecret).status().code(), absl::StatusCode::kUnauthenticated);
}

TEST_F(TokenFileTest, AChangedFileCountsAndABrokenOneDoesNot) {
  Write(Line("name=ann role=viewer tenant=t expires=2030-01-01"));
  Open();
  Write(Line("name=bert role=viewer tenant=t expires=2030-01-01"));
  EXPECT_EQ(NameOf(kSecret), "ann") << "not looked at again at each call";
  clock_.AdvanceMicros(1'000'000);
  EXPECT_EQ(NameOf(kSecret), "bert");
  Write("nonsense\n");
  clock_.AdvanceMicros(1'000'000);
  EXPECT_EQ(NameOf(kSecret), "bert");
  unlink(path_.c_str());
  clock_.AdvanceMicros(1'000'000);
  EXPECT_EQ(NameOf(kSecret), "bert");
  Write("# nobody any more\n");
  clock_.AdvanceMicros(1'000'000);
  EXPECT_EQ(NameOf(kSecret), "this token is not known here");
}

TEST_F(TokenFileTest, WhatCannotBeTrustedIsNotRead) {
  EXPECT_THAT(std::string(TokenFile::Open(path_, &clock_).status().message()), HasSubstr("No such file"));
  Write(Line("name=ann role=viewer tenant=t expires=2030-01-01"));
  chmod(path_.c_str(), 0666);
  EXPECT_THAT(std::string(TokenFile::Open(path_, &clock_).status().message()),
              HasSubstr("written by everybody"));
}

}  // namespace
}  // namespace seqpar
