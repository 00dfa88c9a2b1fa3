#include "client/cli/app.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

CliConfig Parse(const std::string& line) {
  CliConfig config;
  MakeApp(&config)->parse(line);
  return config;
}

void ForEachCommand(const CLI::App& app, const std::string& path,
                    const std::function<void(const std::string& path, const CLI::App&)>& visit) {
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    const std::string here = path.empty() ? sub->get_name() : path + " " + sub->get_name();
    visit(here, *sub);
    ForEachCommand(*sub, here, visit);
  }
}

TEST(App, GlobalFlagsStandBeforeOrAfterTheCommand) {
  EXPECT_EQ(Parse("--server a:1 -o json --timeout 2 list").output, OutputFormat::kJson);
  const CliConfig config = Parse("list --server a:1 -o json --timeout 2");
  EXPECT_EQ(config.server, "a:1");
  EXPECT_EQ(config.output, OutputFormat::kJson);
  EXPECT_EQ(config.timeout_seconds, 2);
}

TEST(App, ReadsSubmit) {
  const CliConfig config = Parse(
      "submit --file j.yaml --wait --set a=1 --set mask.documents=[1,2] --request-id x --wait-timeout 3");
  EXPECT_EQ(config.file, "j.yaml");
  EXPECT_TRUE(config.wait);
  EXPECT_THAT(config.assignments, ElementsAre("a=1", "mask.documents=[1,2]"));
  EXPECT_EQ(config.request_id, "x");
  EXPECT_EQ(config.wait_seconds, 3);
}

TEST(App, ReadsLocalAndExampleAtAnyDepth) {
  const CliConfig local = Parse("local up --slots 3 --state s --port 0");
  EXPECT_EQ(local.slots, 3);
  EXPECT_EQ(local.state_dir, "s");
  EXPECT_EQ(local.port, 0);
  const CliConfig text = Parse("example text f --write d --hidden 128 --overwrite");
  EXPECT_EQ(text.text_file, "f");
  EXPECT_EQ(text.write_dir, "d");
  EXPECT_EQ(text.hidden, 128);
  EXPECT_TRUE(text.overwrite);
}

TEST(App, TracesGoToTheFileAfterDashO) {
  const CliConfig config = Parse("trace j-1 -o t.json --attempt 2 --server a:1");
  EXPECT_EQ(config.job, "j-1");
  EXPECT_EQ(config.trace_file, "t.json");
  EXPECT_EQ(config.output, OutputFormat::kTable);
  EXPECT_EQ(config.attempt, 2);
  EXPECT_EQ(config.server, "a:1");
  // What stands before the command is how errors are told.
  EXPECT_EQ(Parse("-o json trace j-1").output, OutputFormat::kJson);
  EXPECT_EQ(Parse("-o json trace j-1").trace_file, "-");
  CliConfig asked;
  const std::string help = MakeApp(&asked)->get_subcommand("trace")->help();
  EXPECT_THAT(help, HasSubstr("--token-file and --timeout stand here too"));
}

std::string Refusal(const std::string& line) {
  try {
    Parse(line);
  } catch (const CLI::ParseError& error) {
    return error.what();
  }
  return "parsed";
}

TEST(App, RefusalsNameTheNearest) {
  EXPECT_EQ(Refusal("list --limit 0"), "--limit: is '0'; must be 1 to 1000000; nearest: 1");
  EXPECT_EQ(Refusal("list --timeout 0"), "--timeout: is '0'; must be 0.001 to 1e+09; nearest: 0.001");
  EXPECT_EQ(Refusal("list --timeout inf"), "--timeout: is 'inf'; must be 0.001 to 1e+09; nearest: 1e+09");
  EXPECT_EQ(Refusal("logs j-1 --rank -1"), "--rank: is '-1'; must be at least 0; nearest: 0");
  EXPECT_EQ(Refusal("completion tcsh"), "shell: is 'tcsh'; must be one of bash, zsh, fish; nearest: bash");
  EXPECT_EQ(Refusal("list --server h:99999"),
            "--server: is 'h:99999'; the port must be 0 to 65535; nearest: h:7700");
  EXPECT_EQ(Refusal("submit -f j --set a.b"), "--set: is 'a.b'; must be key=value");
  EXPECT_EQ(Refusal("plan -f j --set =1"), "--set: is '=1'; must be key=value");
  EXPECT_EQ(Refusal("list --label team"), "--label: is 'team'; must be key=value");
  EXPECT_THAT(Refusal("local up --memory-per-slot 5XB"),
              HasSubstr("--memory-per-slot: \"5XB\" is not a size"));
}

TEST(App, RefusesWhatItDoesNotKnow) {
  for (const char* line : {"", "nothing", "list --stat x", "submit", "get", "local", "-o xml list",
                           "local up --slots 0", "completion tcsh", "list --limit 0"}) {
    EXPECT_THROW(Parse(line), CLI::ParseError) << line;
  }
}

TEST(App, EveryCommandHasExamples) {
  CliConfig config;
  const auto app = MakeApp(&config);
  int commands = 0;
  ForEachCommand(*app, "", [&](const std::string& path, const CLI::App& command) {
    ++commands;
    EXPECT_THAT(command.help(), HasSubstr("Examples:")) << path;
    EXPECT_THAT(command.help(), HasSubstr("seqpar " + path.substr(0, path.find(' ')))) << path;
  });
  EXPECT_GE(commands, 17);
}

// Scripts tell a plan from a job that would wait.
TEST(App, HelpSaysHowAPlanEndsWithoutOne) {
  CliConfig config;
  const auto app = MakeApp(&config);
  EXPECT_THAT(app->get_subcommand("plan")->help(), HasSubstr("exit code 5 where it would wait"));
  EXPECT_THAT(app->help(), HasSubstr("plan: the job would wait"));
}

TEST(App, TheOutputIsTableOrJson) {
  EXPECT_EQ(Parse("list -o table").output, OutputFormat::kTable);
  CliConfig config;
  try {
    MakeApp(&config)->parse("list -o jsn");
    FAIL();
  } catch (const CLI::ParseError& error) {
    EXPECT_THAT(error.what(), HasSubstr("must be table or json, is 'jsn'; nearest: json"));
  }
  EXPECT_THROW(Parse("list -o 1"), CLI::ParseError);
}

}  // namespace
}  // namespace seqpar
