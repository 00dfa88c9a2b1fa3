#include "client/cli/complete.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "client/cli/app.h"
#include "client/cli/completion.h"
#include "client/cli/usage.h"

namespace seqpar {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;
using ::testing::StartsWith;
using Words = std::vector<std::string>;

Completions At(const Words& words) {
  CliConfig config;
  const auto app = MakeApp(&config);
  LiveNames live;
  live.jobs = [] { return Words{"j-1", "j-2"}; };
  live.nodes = [] { return Words{"node-a"}; };
  return Complete(*app, words, live);
}

TEST(Complete, CommandsAtEveryDepth) {
  EXPECT_THAT(At({""}).words, IsSupersetOf({"submit", "plan", "local", "completion"}));
  EXPECT_THAT(At({}).words, Contains("submit"));
  EXPECT_THAT(At({"li"}).words, ElementsAre("list"));
  EXPECT_THAT(At({"local", ""}).words, ElementsAre("up", "down", "status", "address"));
  // The value of an option is no command, whatever it says.
  EXPECT_THAT(At({"--server", "local", "li"}).words, ElementsAre("list"));
  EXPECT_THAT(At({"local", "--state", "up", "d"}).words, ElementsAre("down"));
}

TEST(Complete, OptionsOfTheCommandAndThoseThatStandEverywhere) {
  EXPECT_THAT(At({"submit", "--"}).words,
              IsSupersetOf({"--file", "--set", "--wait", "--help", "--server", "--output", "--timeout"}));
  EXPECT_THAT(At({"submit", "--"}).words, Each(StartsWith("--")));
  EXPECT_THAT(At({"submit", "--"}).words, Not(Contains("--version")));
  EXPECT_THAT(At({"--"}).words, Contains("--version"));
  EXPECT_THAT(At({"local", "up", "--st"}).words, ElementsAre("--start-timeout", "--state"));
  // Where nothing else may stand.
  EXPECT_THAT(At({"submit", ""}).words, Contains("--file"));
}

TEST(Complete, ValuesThatAreKnown) {
  EXPECT_THAT(At({"list", "-o", ""}).words, ElementsAre("table", "json"));
  EXPECT_THAT(At({"list", "--state", "f"}).words, ElementsAre("failed"));
  EXPECT_THAT(At({"completion", ""}).words, ElementsAre("bash", "zsh", "fish"));
  EXPECT_THAT(At({"get", "j-"}).words, ElementsAre("j-1", "j-2"));
  EXPECT_THAT(At({"logs", "j-2"}).words, ElementsAre("j-2"));
  EXPECT_THAT(At({"trace", "j-1"}).words, ElementsAre("j-1"));
  EXPECT_TRUE(At({"trace", "j-1", "-o", ""}).files);  // of this command it is a file, not a format
  EXPECT_THAT(At({"trace", "j-1", "-o", ""}).words, IsEmpty());
  EXPECT_THAT(At({"drain", ""}).words, ElementsAre("node-a"));
  EXPECT_THAT(At({"list", "--limit", ""}).words, IsEmpty());
}

TEST(Complete, FieldsOfAJob) {
  EXPECT_THAT(At({"submit", "--set", "config.num_h"}).words, ElementsAre("config.num_hidden_layers="));
  EXPECT_THAT(At({"plan", "--set", "w"}).words,
              ElementsAre("workload=", "weights.file=", "weights.seed=", "workers.min=", "workers.max="));
  EXPECT_THAT(At({"plan", "--set", ""}).words, Not(Contains("state=")));
  EXPECT_THAT(At({"plan", "--set", "labels"}).words, ElementsAre("labels."));
  EXPECT_THAT(At({"plan", "--set", "parallelism.core="}).words,
              ElementsAre("parallelism.core=ring", "parallelism.core=gather"));
  EXPECT_THAT(At({"plan", "--set", "devices."}).words, ElementsAre("devices.kind=", "devices.selector."));
  EXPECT_THAT(At({"plan", "--set", "devices.kind=c"}).words,
              ElementsAre("devices.kind=cpu", "devices.kind=cuda"));
  EXPECT_THAT(At({"plan", "--set", "dtype=b"}).words, ElementsAre("dtype=bfloat16"));
  EXPECT_THAT(At({"plan", "--set", "workers.min="}).words, IsEmpty());
  EXPECT_THAT(At({"plan", "--set", "no.such="}).words, IsEmpty());
}

TEST(Complete, Files) {
  for (const Words& words :
       {Words{"submit", "-f", ""}, Words{"plan", "--cluster", "x"}, Words{"local", "up", "--data", ""},
        Words{"local", "--state", ""}, Words{"example", "text", ""}}) {
    EXPECT_TRUE(At(words).files) << words.front();
    EXPECT_THAT(At(words).words, IsEmpty());
  }
  EXPECT_FALSE(At({"list", "--state", ""}).files);
}

TEST(CompletionScript, AsksThisProgram) {
  for (const std::string& shell : CompletionShells()) {
    EXPECT_THAT(CompletionScript(shell), HasSubstr(kCompleteCommand)) << shell;
    EXPECT_THAT(CompletionScript(shell), HasSubstr(kCompleteFiles)) << shell;
  }
}

std::string Explained(const std::string& line) {
  CliConfig config;
  const auto app = MakeApp(&config);
  try {
    app->parse(line);
  } catch (const CLI::ParseError&) {
    return ExplainUnknownWords(*app);
  }
  return "parsed";
}

TEST(Usage, NamesTheWordAndItsNearest) {
  EXPECT_EQ(Explained("wach j-1"), "seqpar: no command 'wach'; nearest: watch\n");
  EXPECT_EQ(Explained("local upp"), "seqpar: no command 'upp'; nearest: up\n");
  EXPECT_EQ(Explained("submit --fil x"),
            "seqpar: no option '--fil'; nearest: --file\nseqpar: unexpected 'x'\n");
  EXPECT_EQ(Explained("local up --slts=4"), "seqpar: no option '--slts'; nearest: --slots\n");
  EXPECT_EQ(Explained("list --serve a:1 more"),
            "seqpar: no option '--serve'; nearest: --server\nseqpar: unexpected 'a:1'\nseqpar: unexpected "
            "'more'\n");
  EXPECT_EQ(Explained("submit"), "");  // the parser says what is missing
}

}  // namespace
}  // namespace seqpar
