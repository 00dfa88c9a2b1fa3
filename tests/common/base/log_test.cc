#include "common/base/log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_split.h"
#include "common/base/fd.h"

namespace seqpar {
namespace {

constexpr int64_t kTime = 1'795'530'600'123'456;  // 2026-11-24T14:30:00.123Z

std::string Format(LogFormat format, const std::string& message,
                   std::initializer_list<LogField> fields = {}) {
  LogConfig config;
  config.format = format;
  config.component = "worker";
  return FormatLogRecord(config, kTime, LogLevel::kInfo, message, fields);
}
std::string Text(const std::string& message, std::initializer_list<LogField> fields = {}) {
  return Format(LogFormat::kText, message, fields);
}
std::string Json(const std::string& message, std::initializer_list<LogField> fields = {}) {
  return Format(LogFormat::kJson, message, fields);
}

TEST(LogText, HasTimeLevelComponentMessageFields) {
  EXPECT_EQ(Text("rank started", {{"rank", 3}, {"share", 0.5}, {"node", "n-1"}}),
            "2026-11-24T14:30:00.123Z I worker rank started rank=3 share=0.5 node=n-1\n");
}

TEST(LogText, QuotesValuesThatNeedIt) {
  EXPECT_EQ(
      Text("m", {{"a", ""}, {"b", "two words"}, {"c", "say \"x\\y\""}, {"d", "k=v"}, {"e", "1\n2\t3\x01"}}),
      "2026-11-24T14:30:00.123Z I worker m a=\"\" b=\"two words\" c=\"say \\\"x\\\\y\\\"\" d=\"k=v\" "
      "e=\"1\\n2\\t3\\u0001\"\n");
}

TEST(LogText, IsOneLineWhateverTheMessageHolds) {
  EXPECT_EQ(Text("one\ntwo\rthree"), "2026-11-24T14:30:00.123Z I worker one\\ntwo\\u000dthree\n");
}

TEST(LogText, LevelsAreLetters) {
  LogConfig config;
  std::string letters;
  for (LogLevel level : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError}) {
    letters += FormatLogRecord(config, kTime, level, "m", {}).substr(25, 3);
  }
  EXPECT_EQ(letters, "D mI mW mE m");
}

TEST(LogJson, IsOneObjectALine) {
  EXPECT_EQ(Json("say \"hi\"\n", {{"rank", 3}, {"path", "a\\b"}}),
            "{\"time\":\"2026-11-24T14:30:00.123Z\",\"level\":\"info\",\"component\":\"worker\","
            "\"message\":\"say \\\"hi\\\"\\n\",\"rank\":\"3\",\"path\":\"a\\\\b\"}\n");
}

TEST(LogJson, FieldsNeverRepeatAReservedName) {
  EXPECT_EQ(Json("m", {{"level", 7}, {"message", "x"}}),
            "{\"time\":\"2026-11-24T14:30:00.123Z\",\"level\":\"info\",\"component\":\"worker\","
            "\"message\":\"m\",\"level_\":\"7\",\"message_\":\"x\"}\n");
}

TEST(LogJson, KeepsUtf8AndReplacesWhatIsNot) {
  const auto value = [](const std::string& bytes) {
    const std::string line = Json("m", {{"v", bytes}});
    const size_t at = line.find("\"v\":\"") + 5;
    return line.substr(at, line.size() - at - 3);
  };
  const std::string replacement = "\xef\xbf\xbd";
  for (const char* good : {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_EQ(value(good), good);
  }
  EXPECT_EQ(value("a\xff"
                  "b"),
            "a" + replacement + "b");
  EXPECT_EQ(value("\xc3"), replacement);                                      // cut off
  EXPECT_EQ(value("\xc0\xaf"), replacement + replacement);                    // overlong
  EXPECT_EQ(value("\xed\xa0\x80"), replacement + replacement + replacement);  // surrogate
  EXPECT_EQ(value("\xf4\x90\x80\x80").size(), 4 * replacement.size());        // past U+10FFFF
  EXPECT_EQ(value("\xe0\x80\x80").size(), 3 * replacement.size());            // overlong
}

TEST(LogContext, NestsOverridesAndEnds) {
  const std::string head = "2026-11-24T14:30:00.123Z I worker m";
  {
    const LogContext job({{"job", "j-1"}, {"phase", "bootstrap"}});
    EXPECT_EQ(Text("m"), head + " job=j-1 phase=bootstrap\n");
    {
      const LogContext phase({{"phase", "execute"}, {"rank", "2"}});
      EXPECT_EQ(Text("m"), head + " job=j-1 phase=execute rank=2\n");
      EXPECT_EQ(Text("m", {{"rank", 5}, {"x", 1}}), head + " job=j-1 phase=execute rank=5 x=1\n");
    }
    EXPECT_EQ(Text("m"), head + " job=j-1 phase=bootstrap\n");
    std::thread([&] { EXPECT_EQ(Text("m"), head + "\n"); }).join();
  }
  EXPECT_EQ(Text("m"), head + "\n");
}

TEST(Parse, LevelsAndFormats) {
  LogLevel level = LogLevel::kInfo;
  EXPECT_TRUE(ParseLogLevel("warning", &level));
  EXPECT_EQ(level, LogLevel::kWarning);
  EXPECT_FALSE(ParseLogLevel("loud", &level));
  EXPECT_EQ(level, LogLevel::kWarning);
  LogFormat format = LogFormat::kText;
  EXPECT_TRUE(ParseLogFormat("json", &format));
  EXPECT_EQ(format, LogFormat::kJson);
  EXPECT_FALSE(ParseLogFormat("xml", &format));
}

// What reaches fd 2 while `body` runs; the pipe's reader has its own thread, so that the writer never blocks
// for good.
template <typename Body>
std::string CaptureStderr(const Body& body) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  const UniqueFd saved(dup(STDERR_FILENO));
  dup2(writing.get(), STDERR_FILENO);
  writing.Reset();
  std::string all;
  std::thread reader([&] {
    char chunk[4096];
    for (ssize_t n; (n = read(reading.get(), chunk, sizeof(chunk))) > 0;)
      all.append(chunk, static_cast<size_t>(n));
  });
  body();
  dup2(saved.get(), STDERR_FILENO);  // closes the pipe's last writing end: the reader sees its end
  reader.join();
  return all;
}

TEST(Log, DropsRecordsBelowTheLevel) {
  LogConfig config;
  config.level = LogLevel::kWarning;
  config.component = "t";
  SetupLogging(config);
  const std::string out = CaptureStderr([] {
    LogDebug("d");
    LogInfo("i");
    LogWarning("w");
    LogError("e", {{"k", 1}});
  });
  SetupLogging(LogConfig());
  const std::vector<std::string> lines = absl::StrSplit(out, '\n');
  ASSERT_EQ(lines.size(), 3u) << out;
  EXPECT_EQ(lines[0].substr(25), "W t w");
  EXPECT_EQ(lines[1].substr(25), "E t e k=1");
  EXPECT_EQ(lines[2], "");
}

TEST(Log, RecordsOfManyThreadsDoNotMix) {
  SetupLogging(LogConfig());
  const std::string payload(500, 'x');
  const std::string out = CaptureStderr([&] {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 100; ++i) LogInfo("m", {{"p", payload}});
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
  const std::vector<std::string> lines = absl::StrSplit(out, '\n');
  ASSERT_EQ(lines.size(), 401u);
  for (size_t i = 0; i < 400; ++i) ASSERT_EQ(lines[i].substr(25), "I m p=" + payload);
}

TEST(Log, ATextRecordComesApartAgain) {
  LogConfig config;
  config.component = "executor";
  for (const LogLevel level : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError}) {
    std::string record = FormatLogRecord(config, 1'700'000'000'123'000, level, "two words", {{"rank", 3}});
    record.pop_back();
    LogLevel parsed = LogLevel::kDebug;
    std::string rest;
    ASSERT_TRUE(ParseTextRecord(record, &parsed, &rest)) << record;
    EXPECT_EQ(parsed, level);
    EXPECT_EQ(rest, "two words rank=3");
  }
  for (const char* line :
       {"", "NCCL INFO x", "2023-11-14T22:13:20.123Z X executor m", "2023-11-14T22:13:20.123Z I alone",
        "2023-11-14 22:13:20.123Z I executor m", "2023-11-14T22:13:20.123Z"}) {
    LogLevel level;
    std::string rest;
    EXPECT_FALSE(ParseTextRecord(line, &level, &rest)) << line;
  }
}

}  // namespace
}  // namespace seqpar
