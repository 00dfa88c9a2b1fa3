#include "common/base/failpoints.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "common/base/status.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kPlan[] = "coordinator.plan";            // cannot fail
constexpr char kFsync[] = "executor.merge.fsync";       // fails like a disk
constexpr char kLaunch[] = "coordinator.send.launch";   // sends
constexpr char kSubmit[] = "coordinator.store.submit";  // has a response

class FailpointsTest : public ::testing::Test {
 protected:
  void SetUp() override { Enable({FailProcess::kExecutor, "node-a", "j-1", 2, 3}); }
  void TearDown() override { DisableFailpoints(); }

  void Enable(const FailpointIdentity& identity) {
    ASSERT_TRUE(EnableFailpoints(folder_.path(), identity).ok());
  }
  // As the interface asks for it: whole or not at all.
  void Arm(const std::string& name, const std::string& line) {
    const std::string elsewhere = folder_ / "arming";
    std::ofstream(elsewhere) << line << "\n";
    std::filesystem::rename(elsewhere, folder_ / "armed/" + name);
  }
  bool IsArmed(const std::string& name) const { return std::filesystem::exists(folder_ / "armed/" + name); }
  std::vector<json> Hits() const {
    std::vector<json> hits;
    std::ifstream file(folder_ / "hits.jsonl");
    for (std::string line; std::getline(file, line);) hits.push_back(json::parse(line));
    return hits;
  }

  TempFolder folder_;
};

TEST(FailpointTable, HasPointsInEveryPhaseAndProcess) {
  std::set<std::string> names, phases, processes;
  for (const FailpointInfo& info : AllFailpoints()) {
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
    phases.insert(info.phase);
    processes.insert(FailProcessName(info.process));
    EXPECT_EQ(std::string(info.name).rfind(std::string(FailProcessName(info.process)) + ".", 0), 0u)
        << info.name;
    EXPECT_EQ((info.actions & kFailError) != 0, info.reason != nullptr) << info.name;
    EXPECT_NE(info.actions & kFailCrash, 0u) << info.name;
    EXPECT_STRNE(info.where, "") << info.name;
    EXPECT_EQ(FindFailpoint(info.name), &info);
  }
  EXPECT_GE(names.size(), 41u);
  EXPECT_EQ(processes, (std::set<std::string>{"coordinator", "daemon", "executor"}));
  EXPECT_EQ(phases, (std::set<std::string>{"any", "submit", "validate", "plan", "place", "bootstrap", "shard",
                                           "execute", "merge", "report"}));
  EXPECT_EQ(FindFailpoint("executor.lunch"), nullptr);
}

TEST(FailpointTable, IsPrintedWhole) {
  const json all = json::parse(FailpointsAsJson());
  ASSERT_EQ(all.size(), AllFailpoints().size());
  const std::string text = FailpointsAsText();
  for (size_t i = 0; i < all.size(); ++i) {
    const FailpointInfo& info = AllFailpoints()[i];
    EXPECT_EQ(all[i]["name"], info.name);
    EXPECT_EQ(all[i]["phase"], info.phase);
    unsigned actions = 0;
    for (const json& action : all[i]["actions"]) actions |= ParseFailAction(action.get<std::string>());
    EXPECT_EQ(actions, info.actions) << info.name;
    EXPECT_THAT(text, HasSubstr(info.name));
  }
}

TEST(FailpointIdentity, IsMeantByItsBeginnings) {
  const FailpointIdentity executor{FailProcess::kExecutor, "node-a", "j-1", 1, 12};
  EXPECT_EQ(executor.ToString(), "executor:node-a:12");
  for (const char* who : {"executor", "executor:node-a", "executor:node-a:12"}) {
    EXPECT_TRUE(executor.IsMeantBy(who)) << who;
  }
  for (const char* who : {"exec", "executor:node", "executor:node-a:1", "daemon:node-a", "coordinator"}) {
    EXPECT_FALSE(executor.IsMeantBy(who)) << who;
  }
  EXPECT_EQ(FailpointIdentity().ToString(), "coordinator");
  EXPECT_EQ((FailpointIdentity{FailProcess::kDaemon, "node-a"}).ToString(), "daemon:node-a");
}

TEST_F(FailpointsTest, NothingHappensWhileTheyAreOffOrNotArmed) {
  EXPECT_TRUE(Failpoint(kFsync).ok());
  Arm(kFsync, "error");
  DisableFailpoints();
  EXPECT_TRUE(Failpoint(kFsync).ok());
  EXPECT_TRUE(IsArmed(kFsync));
  EXPECT_TRUE(Hits().empty());
}

TEST_F(FailpointsTest, AnErrorIsTheSitesOwnAndComesOnce) {
  Arm(kFsync, "error");
  EXPECT_TRUE(Failpoint("executor.merge.write").ok());
  const absl::Status status = Failpoint(kFsync, {"j-2", 5, 6});
  EXPECT_TRUE(absl::IsInternal(status));
  EXPECT_EQ(ReasonOf(status), reason::kStorage);
  EXPECT_FALSE(IsArmed(kFsync));
  EXPECT_TRUE(Failpoint(kFsync).ok());
  Arm("executor.connect", "error");
  EXPECT_TRUE(absl::IsUnavailable(Failpoint("executor.connect")));
  const std::vector<json> hits = Hits();
  ASSERT_EQ(hits.size(), 2u);
  EXPECT_EQ(hits[0]["name"], kFsync);
  EXPECT_EQ(hits[0]["action"], "error");
  EXPECT_EQ(hits[0]["pid"], getpid());
  EXPECT_EQ(hits[0]["process"], "executor");
  EXPECT_EQ(hits[0]["node"], "node-a");
  EXPECT_EQ(hits[0]["job"], "j-2") << "the pass said whose it is";
  EXPECT_EQ(hits[0]["attempt"], 5);
  EXPECT_EQ(hits[0]["rank"], 6);
  EXPECT_EQ(hits[1]["job"], "j-1") << "it did not: the process's own";
  EXPECT_EQ(hits[1]["attempt"], 2);
  EXPECT_EQ(hits[1]["rank"], 3);
  EXPECT_GT(hits[0]["boot_ns"].get<int64_t>(), 0);
  EXPECT_GE(hits[1]["boot_ns"].get<int64_t>(), hits[0]["boot_ns"].get<int64_t>());
  EXPECT_GT(hits[0]["real_ns"].get<int64_t>(), int64_t{1'600'000'000} * 1'000'000'000);
  EXPECT_FALSE(hits[0].contains("refused"));
}

TEST_F(FailpointsTest, MessagesAndTheirAnswersAreLost) {
  Arm(kLaunch, "drop_request");
  {
    const HandOverFailpoint point(kLaunch);
    EXPECT_TRUE(point.drops_request());
    EXPECT_FALSE(point.drops_response());
    EXPECT_TRUE(point.error().ok());
  }
  Arm(kSubmit, "drop_response");
  EXPECT_TRUE(HandOverFailpoint(kSubmit).drops_response());
  Arm(kSubmit, "error");
  EXPECT_EQ(ReasonOf(HandOverFailpoint(kSubmit).error()), reason::kStorage);
  EXPECT_TRUE(HandOverFailpoint(kSubmit).error().ok());
}

TEST_F(FailpointsTest, ADelayIsAtLeastAsLong) {
  Arm(kPlan, "delay 30");
  const auto begin = std::chrono::steady_clock::now();
  PassFailpoint(kPlan);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(30));
}

TEST_F(FailpointsTest, TheFirstPassesAreLetGo) {
  Arm(kFsync, "error skip=2");
  EXPECT_TRUE(Failpoint(kFsync).ok());
  EXPECT_TRUE(Failpoint(kFsync).ok());
  EXPECT_TRUE(IsArmed(kFsync));
  EXPECT_FALSE(Failpoint(kFsync).ok());
  Arm(kFsync, "error skip=1");
  EXPECT_TRUE(Failpoint(kFsync).ok()) << "counted anew for another file";
  EXPECT_FALSE(Failpoint(kFsync).ok());
}

TEST_F(FailpointsTest, OnlyWhoeverIsMeantTakesIt) {
  Arm(kFsync, "error who=executor:node-a:2");
  EXPECT_TRUE(Failpoint(kFsync).ok());
  EXPECT_TRUE(IsArmed(kFsync));
  Enable({FailProcess::kExecutor, "node-a", "j-1", 2, 2});
  EXPECT_FALSE(Failpoint(kFsync).ok());
}

TEST_F(FailpointsTest, WhatCannotBeObeyedIsRefusedOnceAndLoudly) {
  const std::vector<std::pair<std::string, std::string>> refused = {
      {"explode", "no action explode"},
      {"error", "does not honour error"},
      {"drop_response", "does not honour drop_response"},
      {"delay", "delay needs milliseconds"},
      {"delay soon", "delay needs milliseconds"},
      {"delay -1", "delay needs milliseconds"},
      {"crash skip=-1", "'skip=-1'"},
      {"crash who=", "'who='"},
      {"crash now", "'now'"},
      {" ", "names no action"},
  };
  for (const auto& [line, why] : refused) {
    Arm(kPlan, line);
    PassFailpoint(kPlan);
    EXPECT_FALSE(IsArmed(kPlan)) << line;
    ASSERT_FALSE(Hits().empty());
    const json last = Hits().back();
    ASSERT_TRUE(last.contains("refused")) << line;
    EXPECT_THAT(last["refused"].get<std::string>(), HasSubstr(why));
  }
  EXPECT_EQ(Hits().size(), refused.size());
}

TEST_F(FailpointsTest, AFileThatIsBeingWrittenIsLeftAlone) {
  std::ofstream(folder_ / "armed/" + kPlan).flush();
  PassFailpoint(kPlan);
  EXPECT_TRUE(IsArmed(kPlan));
}

TEST_F(FailpointsTest, OneOfManyThreadsTakesIt) {
  for (int round = 1; round <= 20; ++round) {
    Arm(kFsync, "error");
    std::atomic<int> taken{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&taken] { taken += Failpoint(kFsync).ok() ? 0 : 1; });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(taken, 1);
    EXPECT_EQ(Hits().size(), static_cast<size_t>(round));
  }
}

// A process of the test's own; its exit code or, negative, the signal that ended it.
template <typename Body>
pid_t Fork(Body body) {
  const pid_t pid = fork();
  if (pid == 0) _exit(body());
  return pid;
}
int EndOf(pid_t pid) {
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST_F(FailpointsTest, OneOfManyProcessesTakesIt) {
  for (int round = 1; round <= 10; ++round) {
    // They race for what is armed once they run.
    std::vector<pid_t> children;
    for (int i = 0; i < 4; ++i) {
      children.push_back(Fork([this] {
        while (!std::filesystem::exists(folder_ / "go")) {
          if (!Failpoint(kFsync).ok()) return 1;
        }
        return Failpoint(kFsync).ok() ? 0 : 1;
      }));
    }
    Arm(kFsync, "error");
    std::ofstream(folder_ / "go").flush();
    int taken = 0;
    for (const pid_t child : children) taken += EndOf(child);
    EXPECT_EQ(taken, 1);
    EXPECT_EQ(Hits().size(), static_cast<size_t>(round));
    std::filesystem::remove(folder_ / "go");
  }
}

TEST_F(FailpointsTest, ACrashIsOnRecordBeforeItHappens) {
  Arm(kFsync, "crash");
  EXPECT_EQ(EndOf(Fork([] { return Failpoint(kFsync).ok() ? 0 : 1; })), -SIGKILL);
  ASSERT_EQ(Hits().size(), 1u);
  EXPECT_EQ(Hits()[0]["action"], "crash");
}

TEST_F(FailpointsTest, InFlightCrashesBehindWhatWasHandedOver) {
  Arm(kLaunch, "in_flight");
  const pid_t child = Fork([this] {
    const HandOverFailpoint point(kLaunch);
    std::ofstream(folder_ / "sent").flush();
    return 0;
  });
  EXPECT_EQ(EndOf(child), -SIGKILL);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "sent"));
}

TEST_F(FailpointsTest, AHangLastsUntilTheProcessIsKilled) {
  Arm(kPlan, "hang");
  const pid_t child = Fork([] {
    PassFailpoint(kPlan);
    return 0;
  });
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (Hits().empty() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  ASSERT_EQ(Hits().size(), 1u);
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0) << "it ended";
  kill(child, SIGKILL);
  EXPECT_EQ(EndOf(child), -SIGKILL);
}

TEST_F(FailpointsTest, AFolderThatCannotBeIsRefused) {
  std::ofstream(folder_ / "file").flush();
  EXPECT_TRUE(absl::IsFailedPrecondition(EnableFailpoints(folder_ / "file", {})));
}

}  // namespace
}  // namespace seqpar
