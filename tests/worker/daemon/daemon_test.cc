// A real worker, daemon and executors, against a coordinator that a test drives.
#include "worker/daemon/daemon.h"

#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/base/fd.h"
#include "common/job/proto.h"
#include "common/job/tensors.h"
#include "common/tensor/dtype.h"
#include "tests/support/sharded_plan.h"
#include "tests/support/temp_folder.h"
#include "tests/support/time.h"
#include "tests/worker/daemon/fake_fleet.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

JobSpec SmallJob() {
  JobSpec job;
  job.config.hidden_size = 24;
  job.config.heads = 4;
  job.config.kv_heads = 2;
  job.config.head_dim = 8;
  job.config.intermediate_size = 20;
  job.config.layers = 2;
  job.config.rope_theta = 10000;
  job.weights.seed = 1;
  job.input.seed = 2;
  job.grad_output.seed = 3;
  job.batch = 2;
  job.tokens = 61;
  job.output_file = "out.safetensors";
  job.output_hidden_states = true;
  return job;
}

JobSpec BackwardJob() {
  JobSpec job = SmallJob();
  job.pass = JobPass::kForwardBackward;
  job.output_hidden_grad = job.output_weight_grads = true;
  return job;
}

// What the coordinator does before a gang starts.
void MakeStagingFile(const std::string& path, const JobSpec& job) {
  SafetensorsHeader layout;
  const std::string header = BuildOutputHeader(job, &layout);
  std::ofstream(path, std::ios::binary) << header;
  std::filesystem::resize_file(path, static_cast<uintmax_t>(layout.file_bytes));
}

class WorkerTest : public ::testing::Test {
 protected:
  WorkerTest() { std::filesystem::create_directory(folder_ / "data"); }

  ~WorkerTest() override {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  static std::string Binary() {
    return (std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / "bin/seqpar-worker")
        .string();
  }

  // One for all tests of the process: slots are measured once.
  static const std::string& StateFolder() {
    static const TempFolder folder;
    return folder.path();
  }

  void StartWorker(const FakeFleet& fleet, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {Binary(),
                                          "--coordinator",
                                          fleet.address(),
                                          "--node-name",
                                          "node-a",
                                          "--cpu-slots",
                                          "4",
                                          "--threads-per-slot",
                                          "1",
                                          "--data-root",
                                          "data=" + folder_ / "data",
                                          "--state-dir",
                                          StateFolder(),
                                          "--memory-per-slot",
                                          "1GiB"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    ASSERT_EQ(posix_spawn(&pid_, Binary().c_str(), nullptr, nullptr, pointers.data(), environ), 0);
  }

  v1::CoordinatorMessage StartMessage(const JobSpec& job, const Plan& plan, int attempt = 1) {
    v1::CoordinatorMessage message;
    v1::StartRanks* start = message.mutable_start();
    start->mutable_gang()->set_term(1);
    start->mutable_gang()->set_job("j-1");
    start->mutable_gang()->set_attempt(attempt);
    *start->mutable_job() = JobToProto(job);
    *start->mutable_plan() = PlanToProto(plan);
    for (int rank = 0; rank < plan.mesh.size(); ++rank) {
      v1::StartRanks::Placement* placement = start->add_ranks();
      placement->set_rank(rank);
      placement->set_device(rank);
    }
    start->set_staging_file(StagingFile(attempt));
    start->set_bootstrap_timeout_ms(30'000);
    return message;
  }

  std::string StagingFile(int attempt) const { return absl::StrCat(folder_ / "data/out.partial.", attempt); }

  // Runs a job on a fresh worker and returns the bytes of its output.
  std::vector<char> RunJob(const JobSpec& job, const Mesh& mesh, LayoutKind layout,
                           CoreKind core = CoreKind::kRing) {
    FakeFleet fleet(mesh.size());
    StartWorker(fleet);
    EXPECT_TRUE(fleet.WaitFor([](const v1::WorkerMessage& m) { return m.has_heartbeat(); }).has_value());
    MakeStagingFile(StagingFile(1), job);
    fleet.Send(StartMessage(job, ShardedPlan(job, mesh, layout, core)));
    for (int rank = 0; rank < mesh.size(); ++rank) {
      const auto finished = fleet.WaitForEvent(v1::RankEvent::FINISHED, rank);
      EXPECT_TRUE(finished.has_value()) << "rank " << rank;
      if (!finished.has_value()) continue;
      reports_.push_back(finished->report());
      verification_ = finished->verification();
    }
    StopWorker();
    std::ifstream file(StagingFile(1), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  void StopWorker() {
    ASSERT_EQ(kill(pid_, SIGTERM), 0);
    int status = 0;
    ASSERT_EQ(waitpid(pid_, &status, 0), pid_);
    pid_ = -1;
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
  }

  // Process ids of the worker's executors.
  std::vector<pid_t> Executors() const {
    std::ifstream children(absl::StrCat("/proc/", pid_, "/task/", pid_, "/children"));
    std::vector<pid_t> all;
    for (pid_t child; children >> child;) all.push_back(child);
    return all;
  }

  // Processes that are not ours to wait for are gone when their id answers no more, or waits to be reaped.
  static bool EndsSoon(pid_t pid) {
    const auto end = std::chrono::steady_clock::now() + TestSeconds(10);
    while (std::chrono::steady_clock::now() < end) {
      std::ifstream stat(absl::StrCat("/proc/", pid, "/stat"));
      std::string id, name, state;
      if (!(stat >> id >> name >> state) || state == "Z") return true;
      sched_yield();
    }
    return false;
  }

  TempFolder folder_;
  pid_t pid_ = -1;
  std::vector<v1::RankReport> reports_;
  v1::Verification verification_;
};

// ||got - want|| / ||want|| over the float32 data of two outputs of the same job.
double DataError(const JobSpec& job, const std::vector<char>& got, const std::vector<char>& want) {
  SafetensorsHeader layout;
  const std::string header = BuildOutputHeader(job, &layout);
  EXPECT_EQ(got.size(), want.size());
  EXPECT_EQ(static_cast<int64_t>(want.size()), layout.file_bytes);
  if (got.size() != want.size()) return 1;
  double difference = 0, norm = 0;
  for (size_t at = header.size(); at + sizeof(float) <= want.size(); at += sizeof(float)) {
    float g, w;
    std::copy_n(&got[at], sizeof(float), reinterpret_cast<char*>(&g));
    std::copy_n(&want[at], sizeof(float), reinterpret_cast<char*>(&w));
    difference += (double{g} - w) * (double{g} - w);
    norm += double{w} * w;
  }
  EXPECT_GT(norm, 0);
  return std::sqrt(difference / norm);
}

TEST_F(WorkerTest, EveryMeshWritesWhatOneRankWrites) {
  JobSpec job = BackwardJob();
  job.verify_rows = 7;
  const std::vector<char> one = RunJob(job, {1, 1, 1, 1}, LayoutKind::kContiguous);
  const struct {
    Mesh mesh;
    LayoutKind layout;
    CoreKind core;
  } cases[] = {{{1, 1, 4, 4}, LayoutKind::kZigzag, CoreKind::kRing},
               {{1, 4, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing},
               {{4, 1, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing},
               {{1, 1, 3, 3}, LayoutKind::kStriped, CoreKind::kGather},
               {{2, 1, 2, 2}, LayoutKind::kZigzag, CoreKind::kRing}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.mesh.ToString());
    reports_.clear();
    EXPECT_LT(DataError(job, RunJob(job, c.mesh, c.layout, c.core), one), 1e-5);
    EXPECT_EQ(verification_.layers_size(), 2 * (3 + 3));
    EXPECT_GT(verification_.worst_error(), 0);
    EXPECT_LT(verification_.worst_error(), 1e-5) << verification_.ShortDebugString();
    int64_t tokens = 0;
    for (const v1::RankReport& report : reports_) {
      tokens += report.tokens();
      EXPECT_GT(report.peak_bytes(), 0);
      EXPECT_GT(report.execute_seconds(), 0);
      EXPECT_GT(report.traffic_size(), 0);
    }
    EXPECT_EQ(tokens, job.tokens);
  }
}

TEST_F(WorkerTest, AKilledExecutorHarmsItsAttemptOnly) {
  const JobSpec job = SmallJob();
  const Plan plan = ShardedPlan(job, {1, 1, 4, 4}, LayoutKind::kZigzag, CoreKind::kRing);
  const std::string hold = folder_ / "hold";
  std::ofstream(hold) << "";
  FakeFleet fleet(4);
  StartWorker(fleet, {"--test-hold", "execute:" + hold});
  ASSERT_TRUE(fleet.WaitFor([](const v1::WorkerMessage& m) { return m.has_heartbeat(); }).has_value());
  MakeStagingFile(StagingFile(1), job);
  fleet.Send(StartMessage(job, plan));
  ASSERT_TRUE(fleet
                  .WaitFor([](const v1::WorkerMessage& m) {
                    int executing = 0;
                    for (const v1::RankProgress& p : m.heartbeat().ranks())
                      executing += p.phase() == v1::JOB_PHASE_EXECUTE;
                    return executing == 4;
                  })
                  .has_value());
  const std::vector<pid_t> executors = Executors();
  ASSERT_EQ(executors.size(), 4u);
  kill(executors[0], SIGKILL);

  const auto root = fleet.WaitFor([](const v1::WorkerMessage& m) {
    return m.has_event() && m.event().kind() == v1::RankEvent::FAILED && m.event().root_cause();
  });
  ASSERT_TRUE(root.has_value());
  EXPECT_THAT(root->event().error().message(), HasSubstr("was killed by signal 9"));
  EXPECT_EQ(root->event().phase(), v1::JOB_PHASE_EXECUTE);

  v1::CoordinatorMessage stop;
  *stop.mutable_stop()->mutable_gang() = root->event().gang();
  fleet.Send(stop);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_TRUE(fleet.WaitForEvent(v1::RankEvent::STOPPED, rank).has_value()) << rank;
  }
  std::filesystem::remove(hold);
  MakeStagingFile(StagingFile(2), job);
  fleet.Send(StartMessage(job, plan, 2));
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_TRUE(fleet.WaitForEvent(v1::RankEvent::FINISHED, rank, 2).has_value()) << rank;
  }
  StopWorker();
}

// Of four layers the first two by one mesh, kept; then the rest of them, from there, by the same or another.
TEST_F(WorkerTest, AnotherAttemptGoesOnFromACheckpoint) {
  JobSpec job = SmallJob();
  job.config.layers = 4;
  const Mesh mesh{1, 2, 1, 1};
  const std::vector<char> undisturbed = RunJob(job, mesh, LayoutKind::kContiguous);
  const std::string base = folder_ / "data/.out.checkpoint-";
  const auto run = [&](int attempt, const Mesh& by, const v1::Checkpoints& checkpoints) {
    FakeFleet fleet(by.size());
    StartWorker(fleet);
    EXPECT_TRUE(fleet.WaitFor([](const v1::WorkerMessage& m) { return m.has_heartbeat(); }).has_value());
    MakeStagingFile(StagingFile(attempt), job);
    const Plan plan = ShardedPlan(job, by, LayoutKind::kContiguous, CoreKind::kRing);
    v1::CoordinatorMessage message = StartMessage(job, plan, attempt);
    *message.mutable_start()->mutable_checkpoints() = checkpoints;
    fleet.Send(message);
    for (int rank = 0; rank < by.size(); ++rank) {
      EXPECT_TRUE(fleet.WaitForEvent(v1::RankEvent::FINISHED, rank, attempt).has_value()) << rank;
      if (checkpoints.after_layers_size() == 0) continue;
      const auto event = fleet.WaitForEvent(v1::RankEvent::CHECKPOINTED, rank, attempt);
      EXPECT_TRUE(event.has_value() && event->layers() == 2) << rank;
    }
    StopWorker();
    std::ifstream file(StagingFile(attempt), std::ios::binary);
    return std::vector<char>{std::istreambuf_iterator<char>(file), {}};
  };
  v1::Checkpoints write;
  write.add_after_layers(2);
  write.set_staging_file(base);
  EXPECT_EQ(run(1, mesh, write), undisturbed);
  std::filesystem::rename(base + "2.partial", base + "2");
  v1::Checkpoints from;
  from.set_layers(2);
  from.set_file(base + "2");
  EXPECT_EQ(run(2, mesh, from), undisturbed) << "the same plan has the same bits";
  EXPECT_LT(DataError(job, run(3, {1, 1, 3, 3}, from), undisturbed), 1e-5);
  std::filesystem::remove(base + "2");
  v1::Checkpoints none = from;
  none.set_file(base + "3");
  FakeFleet fleet(1);
  StartWorker(fleet);
  ASSERT_TRUE(fleet.WaitFor([](const v1::WorkerMessage& m) { return m.has_heartbeat(); }).has_value());
  MakeStagingFile(StagingFile(4), job);
  v1::CoordinatorMessage message =
      StartMessage(job, ShardedPlan(job, {1, 1, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing), 4);
  *message.mutable_start()->mutable_checkpoints() = none;
  fleet.Send(message);
  const auto failed = fleet.WaitForEvent(v1::RankEvent::FAILED, 0, 4);
  ASSERT_TRUE(failed.has_value());
  EXPECT_THAT(failed->error().message(), HasSubstr(".out.checkpoint-3"));
  StopWorker();
}

// Shells and containers begin with 1,024, which a node of some hundred slots has used up.
TEST_F(WorkerTest, DaemonAndExecutorsMayOpenAsManyFilesAsTheyAreAllowed) {
  const auto raised = [](pid_t pid) {
    rlimit files{};
    return prlimit(pid, RLIMIT_NOFILE, nullptr, &files) == 0 && files.rlim_cur == files.rlim_max;
  };
  FakeFleet fleet(2);
  rlimit mine{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &mine), 0);
  const rlimit low{std::min<rlim_t>(mine.rlim_max, 256), mine.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  const std::string hold = folder_ / "hold";
  std::ofstream(hold) << "";
  StartWorker(fleet, {"--test-hold", "shard:" + hold});
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &mine), 0);
  ASSERT_TRUE(fleet.WaitFor([](const v1::WorkerMessage& m) { return m.has_heartbeat(); }).has_value());
  EXPECT_TRUE(raised(pid_));
  MakeStagingFile(StagingFile(1), SmallJob());
  fleet.Send(StartMessage(SmallJob(),
                          ShardedPlan(SmallJob(), {1, 2, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing)));
  ASSERT_TRUE(fleet.WaitForEvent(v1::RankEvent::STARTED, 1).has_value());
  ASSERT_EQ(Executors().size(), 2u);
  for (const pid_t executor : Executors()) EXPECT_TRUE(raised(executor)) << executor;
}

TEST_F(WorkerTest, AStoppedDaemonCannotKeepRanksAlive) {
  const std::string hold = folder_ / "hold";
  std::ofstream(hold) << "";
  FakeFleet fleet(2, /*lease_ms=*/1000);
  StartWorker(fleet, {"--test-hold", "shard:" + hold});
  ASSERT_TRUE(fleet.WaitFor([](const v1::WorkerMessage& m) { return m.has_heartbeat(); }).has_value());
  MakeStagingFile(StagingFile(1), SmallJob());
  fleet.Send(StartMessage(SmallJob(),
                          ShardedPlan(SmallJob(), {1, 2, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing)));
  ASSERT_TRUE(fleet.WaitForEvent(v1::RankEvent::STARTED, 1).has_value());
  const std::vector<pid_t> executors = Executors();
  ASSERT_EQ(executors.size(), 2u);
  ASSERT_EQ(kill(pid_, SIGSTOP), 0);
  for (const pid_t executor : executors) EXPECT_TRUE(EndsSoon(executor)) << executor;
}

TEST_F(WorkerTest, ExecutorsGoOnWhileTheStreamIsBrokenAndStopWithTheDaemon) {
  const JobSpec job = SmallJob();
  const std::string hold = folder_ / "hold";
  std::ofstream(hold) << "";
  FakeFleet fleet(2);
  StartWorker(fleet, {"--test-hold", "shard:" + hold});
  ASSERT_TRUE(fleet.WaitFor([](const v1::WorkerMessage& m) { return m.has_heartbeat(); }).has_value());
  MakeStagingFile(StagingFile(1), job);
  const v1::CoordinatorMessage start =
      StartMessage(job, ShardedPlan(job, {1, 2, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing));
  fleet.Keep(start.start().gang());
  fleet.Send(start);
  ASSERT_TRUE(fleet.WaitForEvent(v1::RankEvent::STARTED, 1).has_value());
  fleet.BreakStream();
  ASSERT_TRUE(
      fleet.WaitFor([](const v1::WorkerMessage& m) { return m.hello().running_size() == 2; }).has_value());
  std::filesystem::remove(hold);
  EXPECT_TRUE(fleet.WaitForEvent(v1::RankEvent::FINISHED, 0).has_value());
  EXPECT_TRUE(fleet.WaitForEvent(v1::RankEvent::FINISHED, 1).has_value());

  std::ofstream(hold) << "";
  MakeStagingFile(StagingFile(2), job);
  fleet.Send(StartMessage(job, ShardedPlan(job, {1, 2, 1, 1}, LayoutKind::kContiguous, CoreKind::kRing), 2));
  ASSERT_TRUE(fleet.WaitForEvent(v1::RankEvent::STARTED, 1, 2).has_value());
  const std::vector<pid_t> executors = Executors();
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
  for (const pid_t executor : executors) EXPECT_TRUE(EndsSoon(executor)) << executor;
}

}  // namespace
}  // namespace seqpar
