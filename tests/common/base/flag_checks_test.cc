#include "common/base/flag_checks.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace seqpar {
namespace {

// What the parser says of `--flag TEXT` under this check; "" where it is taken.
std::string Said(const CLI::Validator& check, const std::string& text) {
  CLI::App app;
  std::string value;
  app.add_option("--flag", value)->check(check);
  try {
    app.parse(std::vector<std::string>{"--flag=" + text});
  } catch (const CLI::ParseError& error) {
    return error.what();
  }
  return "";
}

TEST(Between, TakesBothEndsAndNamesTheNearerOne) {
  for (const char* text : {"1", "7", "10"}) EXPECT_EQ(Said(Between(1, 10), text), "") << text;
  EXPECT_EQ(Said(Between(1, 10), "0"), "--flag: is '0'; must be 1 to 10; nearest: 1");
  EXPECT_EQ(Said(Between(1, 10), "11"), "--flag: is '11'; must be 1 to 10; nearest: 10");
  for (const char* text : {"x", "2.5", "1e3", "99999999999999999999", "0x"}) {
    EXPECT_EQ(Said(Between(1, 10), text), std::string("--flag: is '") + text + "'; must be a number, 1 to 10")
        << text;
  }
}

TEST(Between, OfNumbersThatAreNone) {
  EXPECT_EQ(Said(Between(0.0, 1e9), "0.5"), "");
  EXPECT_EQ(Said(Between(0.0, 1e9), "nan"), "--flag: is 'nan'; must be a number, 0 to 1e+09");
  EXPECT_EQ(Said(Between(0.0, 1e9), "inf"), "--flag: is 'inf'; must be 0 to 1e+09; nearest: 1e+09");
}

TEST(AtLeast, HasNoEnd) {
  EXPECT_EQ(Said(AtLeast(1), "2000000000"), "");
  EXPECT_EQ(Said(AtLeast(1), "0"), "--flag: is '0'; must be at least 1; nearest: 1");
  EXPECT_EQ(Said(AtLeast(1), "one"), "--flag: is 'one'; must be a number, at least 1");
}

TEST(OneOf, NamesTheNearestWord) {
  EXPECT_EQ(Said(OneOf({"cpu", "cuda", "auto"}), "cuda"), "");
  EXPECT_EQ(Said(OneOf({"cpu", "cuda", "auto"}), "cudda"),
            "--flag: is 'cudda'; must be one of cpu, cuda, auto; nearest: cuda");
}

std::string Unknown(std::vector<std::string> words) {
  CLI::App app;
  int slots = 0;
  app.add_option("--cpu-slots", slots)->check(Between(1, 4));
  app.add_flag("--shared");
  try {
    app.parse(std::move(words));
  } catch (const CLI::ParseError& error) {
    return ExplainUnknownFlags(app, error);
  }
  return "parsed";
}

TEST(ExplainUnknownFlags, NamesTheFlagAndItsNearest) {
  EXPECT_EQ(Unknown({"--cpu-slot=3"}), "no flag is called '--cpu-slot'; nearest: --cpu-slots (--help)\n");
  EXPECT_EQ(Unknown({"--share"}), "no flag is called '--share'; nearest: --shared (--help)\n");
  EXPECT_EQ(Unknown({"--cpu-slots=9"}), "");  // the parser says what is wrong with it
  EXPECT_EQ(Unknown({"--help"}), "");
  EXPECT_EQ(Unknown({"--shared"}), "parsed");
}

}  // namespace
}  // namespace seqpar
