// The job machine by stories: stories/*.txt hold commands and, after "----", what the machine did. A story
// that tells something else than expected fails; SEQPAR_REWRITE_STORIES=1 writes the files anew, for a look
// at the difference.
//
//   job [ranks=N] [nodes=N] [output=PATH] [attempts=N] [deadline=S] [verify=ROWS] [layers=N] [seconds=S]
//   [slow=FACTOR]
//                              submits it; it is predicted to take so long, or a second a layer
//   place                      the scheduler sets devices aside        wait TEXT, refuse TEXT: it does not
//   staging gone               the checkpoint is not there any more
//   checkpointed LAYERS R...   their part of a checkpoint is on disk      kept LAYERS ok|io    it has its
//   name drains NODE                its worker was told to stop       seen ATTEMPT    by a worker, once
//   staging ok|full|changed    merged ok|io    committed ok|io    reported
//   started R... | blob R... | finished R... | stopped R...            ranks, or "all"
//   progress R phase=P [step=N] [percent=X] [waiting=GROUP#N>RANK] [ring=ENTERED/FINISHED] [flops=N]
//   [took=SECONDS] planned R SECONDS               without its device the job is predicted to take so long
//   failed R REASON [follows]  in phase execute
//   attached NODE incarnation=N [running=R,R]      lost NODE
//   cancel | tick SECONDS      SECONDS pass first
//   restart                    the process dies; the next one reads what was on disk
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/engine/record_codec.h"
#include "coordinator/job_machine/checkpoints.h"
#include "coordinator/job_machine/job_machine.h"
#include "tests/coordinator/job_machine/samples.h"

namespace seqpar {
namespace {

class Teller {
 public:
  // Applies one command line; what happened, one line each.
  std::string Tell(const std::string& line) {
    std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    std::map<std::string, std::string> options;
    std::vector<std::string> plain;
    for (size_t i = 1; i < words.size(); ++i) {
      const size_t equals = words[i].find('=');
      if (equals == std::string::npos) {
        plain.push_back(words[i]);
      } else {
        options[words[i].substr(0, equals)] = words[i].substr(equals + 1);
      }
    }
    told_.clear();
    Command(words[0], plain, options);
    if (told_.empty()) told_ = "nothing\n";
    return told_;
  }

 private:
  using Options = std::map<std::string, std::string>;

  static int Number(const Options& options, const std::string& name, int otherwise) {
    const auto found = options.find(name);
    int value = otherwise;
    if (found != options.end()) {
      EXPECT_TRUE(absl::SimpleAtoi(found->second, &value)) << found->second;
    }
    return value;
  }

  std::vector<int> Ranks(const std::vector<std::string>& words) const {
    std::vector<int> ranks;
    for (const std::string& word : words) {
      int rank = 0;
      if (word == "all") {
        for (size_t i = 0; i < record_.ranks.size(); ++i) ranks.push_back(static_cast<int>(i));
      } else if (absl::SimpleAtoi(word, &rank)) {
        ranks.push_back(rank);
      }
    }
    return ranks;
  }

  void Command(const std::string& verb, const std::vector<std::string>& plain, const Options& options) {
    const int attempt = record_.attempt;
    if (verb == "job") return Submit(options);
    if (verb == "place") return Place();
    if (verb == "restart") return Restart();
    if (verb == "wait") return Apply(event::Waits{absl::StrJoin(plain, " ")});
    if (verb == "refuse") {
      return Apply(event::Refused{
          MakeError(absl::StatusCode::kFailedPrecondition, reason::kInfeasible, absl::StrJoin(plain, " "))});
    }
    if (verb == "staging" && plain[0] == "gone") return Apply(event::StagingReady{absl::OkStatus(), true});
    if (verb == "staging") return Apply(event::StagingReady{Storage(plain[0])});
    if (verb == "kept") {
      return Apply(event::CheckpointKept{attempt, std::atoi(plain[0].c_str()), Storage(plain[1])});
    }
    if (verb == "planned") {
      return Apply(
          event::PlannedWithout{attempt, std::atoi(plain[0].c_str()), std::atof(plain[1].c_str()), 0});
    }
    if (verb == "drains") return Apply(event::NodeDrains{plain[0]});
    if (verb == "seen") return Apply(event::AttemptSeen{std::atoi(plain[0].c_str())});
    if (verb == "checkpointed") {
      for (const int rank : Ranks({plain.begin() + 1, plain.end()})) {
        Apply(event::RankCheckpointed{attempt, rank, std::atoi(plain[0].c_str())});
      }
      return;
    }
    if (verb == "merged") return Apply(event::Merged{Storage(plain[0])});
    if (verb == "committed") return Apply(event::Committed{Storage(plain[0])});
    if (verb == "reported") return Apply(event::Reported{});
    if (verb == "cancel") return Apply(event::CancelRequested{});
    if (verb == "lost") return Apply(event::NodeLost{plain[0]});
    if (verb == "attached") return Attached(plain[0], options);
    if (verb == "progress") return Progress(Ranks(plain)[0], options);
    if (verb == "failed") return Failed(plain);
    if (verb == "tick") {
      double seconds = 0;
      ASSERT_TRUE(absl::SimpleAtod(plain[0], &seconds));
      now_.boot_us += static_cast<int64_t>(seconds * 1e6);
      now_.wall_us += static_cast<int64_t>(seconds * 1e6);
      return Apply(event::Tick{});
    }
    for (const int rank : Ranks(plain)) {
      if (verb == "started") {
        Apply(event::RankStarted{attempt, rank});
      } else if (verb == "blob") {
        Apply(event::BlobArrived{attempt, rank, "world", absl::StrCat("blob of ", rank)});
      } else if (verb == "finished") {
        Apply(event::RankFinished{attempt, rank, SampleResult(rank)});
      } else if (verb == "stopped") {
        Apply(event::RankStopped{attempt, rank});
      } else {
        FAIL() << "unknown command " << verb;
      }
    }
  }

  static absl::Status Storage(const std::string& how) {
    if (how == "ok") return absl::OkStatus();
    if (how == "full")
      return MakeError(absl::StatusCode::kResourceExhausted, reason::kStorage, "no space left");
    if (how == "io") return MakeError(absl::StatusCode::kInternal, reason::kStorage, "input/output error");
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kInputChanged,
                     "in.safetensors has changed");
  }

  void Submit(const Options& options) {
    record_ = JobRecord();
    record_.id = "j-1";
    record_.request_id = "r-1";
    record_.spec = SampleSpec();
    record_.create_us = now_.wall_us;
    ranks_ = Number(options, "ranks", 2);
    nodes_ = Number(options, "nodes", 1);
    if (options.count("output") != 0) record_.spec.output_file = options.at("output");
    record_.spec.max_attempts = Number(options, "attempts", 0);
    record_.spec.deadline_seconds = Number(options, "deadline", 0);
    record_.spec.verify_rows = Number(options, "verify", 0);
    record_.spec.config.layers = Number(options, "layers", 2);
    step_seconds_ = Number(options, "seconds", record_.spec.config.layers);
    config_.slow_ranks.factor = Number(options, "slow", 0);
    Apply(event::Submitted{});
  }

  void Place() {
    event::Placed placed;
    placed.plan = SamplePlan(record_.spec, ranks_, nodes_);
    placed.plan.prediction.step_seconds = placed.plan.prediction.compute_seconds = step_seconds_;
    for (int i = 0; i < ranks_; ++i) {
      const std::string& node = placed.plan.ranks[i].node;
      placed.devices.push_back({1, incarnations_.count(node) == 0 ? 1 : incarnations_[node]});
    }
    Apply(placed);
  }

  void Attached(const std::string& node, const Options& options) {
    event::NodeAttached attached{node, Number(options, "incarnation", 1), {}};
    incarnations_[node] = attached.incarnation;
    if (options.count("running") != 0) {
      const std::vector<std::string> words = absl::StrSplit(options.at("running"), ',', absl::SkipEmpty());
      for (const int rank : Ranks(words)) attached.running.insert(rank);
    }
    Apply(attached);
  }

  void Progress(int rank, const Options& options) {
    v1::RankProgress progress;
    progress.set_rank(rank);
    for (int i = 0; i <= static_cast<int>(JobPhase::kReport); ++i) {
      const auto phase = static_cast<JobPhase>(i);
      if (options.count("phase") != 0 && options.at("phase") == PhaseName(phase)) {
        progress.set_phase(PhaseToProto(phase));
      }
    }
    progress.set_step(Number(options, "step", 0));
    progress.set_percent(Number(options, "percent", 0));
    progress.set_waiting_for_rank(-1);
    progress.mutable_totals()->set_flops(Number(options, "flops", 0));
    progress.mutable_totals()->set_flops_seconds(Number(options, "took", 0));
    if (options.count("ring") != 0) {
      v1::GroupProgress* ring = progress.add_groups();
      ring->set_group("ring");
      ring->set_entered(std::atoi(options.at("ring").c_str()));
      ring->set_finished(std::atoi(options.at("ring").substr(options.at("ring").find('/') + 1).c_str()));
    }
    if (options.count("waiting") != 0) {
      const std::vector<std::string> parts = absl::StrSplit(options.at("waiting"), absl::ByAnyChar("#>"));
      ASSERT_EQ(parts.size(), 3u);
      progress.set_waiting_group(parts[0]);
      progress.set_collective(std::atoi(parts[1].c_str()));
      progress.set_waiting_for_rank(std::atoi(parts[2].c_str()));
    }
    Apply(event::RankProgressed{record_.attempt, progress});
  }

  void Failed(const std::vector<std::string>& plain) {
    const int rank = Ranks(plain)[0];
    const bool follows = plain.back() == "follows";
    Apply(event::RankFailed{record_.attempt, rank,
                            MakeError(absl::StatusCode::kUnavailable, plain[1].c_str(), "it broke"), !follows,
                            JobPhase::kExecute});
  }

  void Restart() {
    const absl::StatusOr<JobRecord> restored = RecordOf(row_, stored_);
    ASSERT_TRUE(restored.ok()) << restored.status();
    record_ = *restored;
    Apply(event::Restored{});
  }

  void Apply(const JobEvent& event) {
    const std::vector<JobAction> actions = Step(&record_, event, config_, now_);
    for (const JobAction& action : actions) {
      std::visit([this](const auto& a) { Show(a); }, action);
    }
    if (!actions.empty()) ShowState();
  }

  void Say(const std::string& line) { told_ += line + "\n"; }
  void Show(const action::Persist& a) {
    row_ = RowOf(record_, now_.boot_us);
    if (a.plan) {
      stored_ = StoredAttempt();
      stored_.plan = PlanToProto(record_.plan).SerializeAsString();
      Say("  persist plan");
    }
  }
  void Show(const action::PersistBlob& a) { stored_.blobs[a.group][a.rank] = record_.blobs[a.group][a.rank]; }
  void Show(const action::PersistResult& a) {
    stored_.results[a.rank] = record_.ranks[a.rank].result.SerializeAsString();
  }
  void Show(const action::Publish&) {}
  void Show(const action::PrepareStaging& a) {
    Say(absl::StrCat("  prepare staging of attempt ", a.attempt));
  }
  void Show(const action::UnlinkStaging&) { Say("  unlink staging"); }
  void Show(const action::KeepCheckpoint& a) { Say(absl::StrCat("  keep checkpoint after ", a.layers)); }
  void Show(const action::DropCheckpoints&) { Say("  drop earlier checkpoints"); }
  void Show(const action::PlanWithout& a) { Say(absl::StrCat("  plan without the device of ", a.rank)); }
  void Show(const action::StartGang& a) {
    const int first = record_.attempts.back().first_layer;
    Say(absl::StrCat("  start ranks on ", Where(a.node),
                     first == 0 ? std::string() : absl::StrCat(" from layer ", first)));
    const std::vector<int> after =
        CheckpointLayers(record_.spec, record_.plan, first, config_.checkpoint_interval_us);
    if (!after.empty()) Say(absl::StrCat("  with checkpoints after ", absl::StrJoin(after, ", ")));
  }
  void Show(const action::SendBlobTable& a) {
    Say(absl::StrCat("  send table of ", a.group, " (", record_.blobs[a.group].size(), ") to ",
                     Where(a.node)));
  }
  void Show(const action::StopGang& a) { Say(absl::StrCat("  stop gang on ", Where(a.node))); }
  void Show(const action::Merge&) { Say("  merge"); }
  void Show(const action::Commit&) { Say("  commit"); }
  void Show(const action::Report&) { Say("  report"); }
  static std::string Where(const std::string& node) { return node.empty() ? "every node" : node; }

  void ShowState() {
    std::string line = absl::StrCat(StateName(record_.state), " ", PhaseName(record_.phase), " (",
                                    StageName(record_.stage), ", attempt ", record_.attempt, ")");
    if (!record_.reason.empty()) absl::StrAppend(&line, " because it ", record_.reason);
    Say(line);
    if (record_.ended() && !record_.error.ok()) {
      Say(absl::StrCat("error ", ReasonOf(record_.error), ": ", record_.error.message()));
    }
    if (record_.attempts.empty() || record_.attempts.back().error.ok()) return;
    const AttemptRecord& last = record_.attempts.back();
    Say(absl::StrCat("cause ", ReasonOf(last.error), ": ", last.error.message()));
    for (const std::string& consequence : last.consequences) Say("  then " + consequence);
  }

  MachineConfig config_;
  Now now_{1'000'000, 1'700'000'000'000'000};
  JobRecord record_;
  int ranks_ = 2, nodes_ = 1;
  double step_seconds_ = 2;
  std::map<std::string, int64_t> incarnations_;
  // What is on disk.
  JobRow row_;
  StoredAttempt stored_;
  std::string told_;
};

// Blocks of comment and command lines, each followed by "----", what happened, and an empty line.
std::string Retell(const std::string& story) {
  Teller teller;
  std::string retold, happened;
  bool telling = false;
  std::istringstream lines(story);
  for (std::string line; std::getline(lines, line);) {
    if (telling) {
      telling = !line.empty();
      continue;
    }
    if (line == "----") {
      retold += "----\n" + happened + "\n";
      happened.clear();
      telling = true;
      continue;
    }
    retold += line + "\n";
    if (!line.empty() && line[0] != '#') happened += teller.Tell(line);
  }
  EXPECT_EQ(happened, "") << "the last commands have no ---- after them";
  return retold;
}

std::string Read(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST(Stories, TellWhatIsExpected) {
  const std::filesystem::path folder =
      std::filesystem::path(std::getenv("SEQPAR_SOURCE_DIR")) / "tests/coordinator/job_machine/stories";
  const bool rewrite = std::getenv("SEQPAR_REWRITE_STORIES") != nullptr;
  int told = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".txt") continue;
    SCOPED_TRACE(entry.path().filename().string());
    const std::string expected = Read(entry.path());
    const std::string retold = Retell(expected);
    if (rewrite) {
      std::ofstream(entry.path()) << retold;
    } else {
      EXPECT_EQ(retold, expected);
    }
    ++told;
  }
  EXPECT_GE(told, 12);
}

}  // namespace
}  // namespace seqpar
