// The coordinator's one mind: a thread that owns every live job's machine, the nodes and the watchers. Others
// post events to it; it decides, writes, and only then lets anything be seen: a batch of events is one
// transaction, and messages to nodes, answers to clients and tasks leave after its commit.
#ifndef SEQPAR_COORDINATOR_ENGINE_ENGINE_H_
#define SEQPAR_COORDINATOR_ENGINE_ENGINE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/data_roots.h"
#include "common/base/mutex.h"
#include "coordinator/admission/tenant_ledger.h"
#include "coordinator/admission/tenant_limits.h"
#include "coordinator/engine/alarms.h"
#include "coordinator/engine/backlog.h"
#include "coordinator/engine/log_collector.h"
#include "coordinator/engine/observer.h"
#include "coordinator/engine/revisions.h"
#include "coordinator/engine/task_pool.h"
#include "coordinator/engine/test_hold.h"
#include "coordinator/engine/watchers.h"
#include "coordinator/fleet/lease_table.h"
#include "coordinator/fleet/node_link.h"
#include "coordinator/fleet/node_registry.h"
#include "coordinator/job_machine/job_machine.h"
#include "coordinator/links/link_gang.h"
#include "coordinator/links/next_link.h"
#include "coordinator/planner/planner.h"
#include "coordinator/scheduler/job_queue.h"
#include "coordinator/scheduler/scheduler.h"
#include "coordinator/store/store.h"
#include "seqpar/v1/service.pb.h"

namespace seqpar {

struct EngineConfig {
  MachineConfig machine;
  int64_t heartbeat_us = 1'000'000;
  int64_t lease_us = 6'000'000;
  // A node that has been lost for so long is forgotten, with its links. 0: never.
  int64_t forget_us = int64_t{3600} * 1'000'000;
  // Jobs that have ended are forgotten: beyond the newest so many, and after so long. 0: never.
  int64_t keep_jobs = 100'000;
  int64_t keep_us = int64_t{30} * 24 * 3600 * 1'000'000;
  size_t max_live_jobs = 20'000;  // that have not ended; above them submits are refused
  TenantPolicy tenants;           // beside that
  LinkPolicy links;
  BacklogLimits backlog;
};

// What others put around the engine.
struct EngineHooks {
  EngineObserver* observer = nullptr;  // null: nobody looks
  Planner plan = PlanJob;              // called from any thread
};

class Engine {
 public:
  // All outlive the engine; `work` is drained before Stop. `on_fatal` is called once, from the engine's
  // thread, when the store can no longer be written: nothing may be promised from then on.
  Engine(const EngineConfig& config, Store* store, const DataRoots* roots, const Clock* clock, TaskPool* work,
         TestHold* hold, std::function<void(const absl::Status&)> on_fatal, EngineHooks hooks = {});
  ~Engine();

  // Takes up the live jobs of the store, grants their nodes one full lease, and starts the thread.
  absl::Status Start();
  // Ends streams to watchers and nodes. Running gangs go on: their workers hold them until the lease ends.
  void EndStreams();
  // Handles what is queued and joins. Nothing may be posted afterwards.
  void Stop();

  // --- for threads that may wait: they return when the effects are durable ---

  // Adds a validated job (id, request_id, spec, inputs, create_us are set). OUTPUT_IN_USE where a live job
  // has the same target; ALREADY_EXISTS where the request_id is taken; RESOURCE_EXHAUSTED, with a time after
  // which to try again, where there are too many jobs or the store's disk is full. `request`: the submitted
  // bytes.
  absl::StatusOr<v1::Job> Submit(JobRecord record, const std::string& request);
  const TenantLimits& LimitsOf(const std::string& tenant) const { return config_.tenants.Of(tenant); }
  // Nothing where the job is not live: the store has it.
  std::optional<v1::Job> ViewLive(const std::string& id);
  // Asks a live job to end; nothing where it is not live.
  std::optional<v1::Job> Cancel(const std::string& id);
  // Offers the present state, if it is newer than `revision`, and each later one. False where the job is not
  // live.
  bool Watch(const std::string& id, int64_t revision, const std::shared_ptr<Watcher>& watcher);
  std::pair<std::shared_ptr<const ClusterSnapshot>, Calibration> Cluster();
  // With a tenant, jobs of others are only called so.
  std::vector<v1::Node> Nodes(const std::optional<std::string>& tenant);
  // Durable when it returns. NOT_FOUND where no such node ever attached.
  absl::StatusOr<v1::Node> Drain(const std::string& node, bool undo);
  // Asks every node for the logs of a job, which is seen as it is now.
  std::shared_ptr<LogCollector> AskLogs(const v1::Job& job, std::optional<int> rank,
                                        std::optional<int> attempt);

  // --- from the streams of workers; these never wait ---
  // RESOURCE_EXHAUSTED (OVERLOADED), with a time after which to try again, where too much waits to be handled
  // already: the message is lost, and with it its stream, as if it had broken.

  // Takes `hello` as received now on `stream` (a number that is never used again).
  absl::Status OnHello(const v1::Hello& hello, int64_t stream, std::shared_ptr<NodeLink> link);
  absl::Status OnMessage(const std::string& node, int64_t stream, v1::WorkerMessage message);
  void OnBroken(const std::string& node, int64_t stream);

  int64_t term() const { return store_->term(); }
  // Microseconds that are left of each node's lease. Never waits for the engine.
  std::map<std::string, int64_t> LeasesLeft() const { return leases_.AllLeft(clock_->BootMicros()); }
  // UNAVAILABLE once the store can no longer be written: nothing that was answered since is durable.
  absl::Status Health() const;
  // When its thread last began a round (Clock::BootMicros): it does several times a second, unless it is
  // stuck.
  int64_t last_round_us() const { return last_round_us_; }

 private:
  // Of a pass: those behind them wait for these anyway, as long as one of them waits for devices.
  static constexpr size_t kPassJobs = 200;

  struct Dirty {
    bool record = false, plan = false, publish = false;
  };

  void Post(std::function<void()> task);
  // Runs `body` in the engine's thread; its result comes back once everything that it did is durable.
  template <typename T>
  T Call(std::function<T()> body) {
    auto promise = std::make_shared<std::promise<T>>();
    std::future<T> future = promise->get_future();
    Post([this, promise, body = std::move(body)] {
      auto result = std::make_shared<T>(body());
      Later([promise, result] { promise->set_value(std::move(*result)); });
    });
    return future.get();
  }
  // Runs after the commit of the present batch.
  void Later(std::function<void()> effect) { outbox_.push_back(std::move(effect)); }
  void SendLater(const std::string& node, v1::CoordinatorMessage message);
  // Why no more jobs are taken now; OK: they are.
  absl::Status Admission() const;
  // Why `record` is not; OK: it is.
  absl::Status Admission(const JobRecord& record) const;
  // What a job that was taken just now waits for, as far as that is known before a pass; nothing: one is due.
  std::optional<std::string> WaitsBehind(const Turn& turn) const;
  // Runs `task` on the worker threads after the commit, then posts the event that it returns (none: shutting
  // down).
  void WorkLater(const std::string& job, std::function<std::optional<JobEvent>()> task);

  absl::Status ReserveFirstRevisions();
  void Loop();
  void Tick();
  // When Tick has to look again though nothing is posted.
  int64_t NextTickUs() const;
  void Flush();
  absl::Status WriteOut();
  // Takes a new job of this batch back.
  void Refuse(const std::string& insert, const absl::Status& why);
  Now Time() const { return {clock_->BootMicros(), clock_->WallMicros()}; }

  // engine_jobs.cc
  void Apply(const std::string& job, const JobEvent& event);
  // Jobs that hold devices: the others, of which there may be thousands, care for no node.
  std::vector<std::string> Holders() const;
  void ApplyToHolders(const JobEvent& event);
  void Add(JobRecord record);
  void Remove(const std::string& job);
  // When a job that is queued has to be looked at: its deadline is over, or its pause.
  int64_t DueUs(const JobRecord& record) const;
  // Which lists a job stands on, by its stage.
  void Enlist(const JobRecord& record);
  void Do(JobRecord* record, const action::Persist& a);
  void Do(JobRecord* record, const action::PersistBlob& a);
  void Do(JobRecord* record, const action::PersistResult& a);
  void Do(JobRecord* record, const action::Publish& a);
  void Do(JobRecord* record, const action::PrepareStaging& a);
  void Do(JobRecord* record, const action::UnlinkStaging& a);
  void Do(JobRecord* record, const action::KeepCheckpoint& a);
  void Do(JobRecord* record, const action::DropCheckpoints& a);
  void Do(JobRecord* record, const action::PlanWithout& a);
  void Do(JobRecord* record, const action::StartGang& a);
  void Do(JobRecord* record, const action::SendBlobTable& a);
  void Do(JobRecord* record, const action::StopGang& a);
  void Do(JobRecord* record, const action::Merge& a);
  void Do(JobRecord* record, const action::Commit& a);
  void Do(JobRecord* record, const action::Report& a);
  // Unlinks the staging files of attempts 1 to `attempt`. `ended`: and that was the last of the job.
  void CleanLater(const std::string& job, const JobSpec& spec, int attempt, bool ended);

  // engine_schedule.cc
  struct PassView;
  void Schedule();
  void SetAside(const JobRecord& record, const PassView& view);
  void ReleaseOthers(const std::set<std::string>& held_back, const PassView& view);
  void ApplyDecisions(const std::vector<Decision>& decisions, const PassView& view);
  void Place(const std::string& job, const Plan& plan);

  // engine_fleet.cc
  void HandleHello(const v1::Hello& hello, int64_t stream, const std::shared_ptr<NodeLink>& link,
                   int64_t received_us);
  void RaiseTerm(const v1::Hello& hello);
  void HandleMessage(const std::string& node, const v1::WorkerMessage& message, int64_t received_us);
  // Those that have been lost for long enough.
  void ForgetNodes(int64_t now_us);
  void ForgetLinks();
  void HandleSetAside(const std::string& name, const v1::Heartbeat& heartbeat);
  void HandleTrace(const std::string& node, const v1::RankTrace& trace);
  void HandleEvent(const v1::RankEvent& event);
  v1::GangId IdOf(const JobRecord& record) const;
  // Whether each rank that `message` speaks of is one of the node that sent it.
  bool SpeaksForItself(const std::string& node, const v1::WorkerMessage& message) const;
  // Whether a message from `node` about a rank of a present gang is about a rank of another node.
  bool IsElsewhere(const std::string& node, const v1::GangId& gang, int rank) const;
  // Closes the stream of a node that spoke for a rank which it does not hold.
  void TurnAway(const std::string& node);
  void HideOthers(const std::string& tenant, v1::Node* node) const;

  // engine_links.cc
  static constexpr char kLinksSetting[] = "links";  // of the store
  void TickLinks();
  void BeginLink(LinkWish wish);
  void EndLink(LinkOutcome outcome, const absl::Status& why);
  // Why the link that is being measured cannot be any more; OK: it can.
  absl::Status LinkTrouble() const;
  v1::GangId IdOfLink() const;
  bool IsOfLink(const v1::WorkerMessage& message) const;
  void HandleLink(const std::string& node, const v1::WorkerMessage& message);
  void KeepLink(const LinkWish& wish, const LinkRates& rates);

  const EngineConfig config_;
  Store* const store_;
  const DataRoots* const roots_;
  const Clock* const clock_;
  TaskPool* const work_;
  TestHold* const hold_;
  const std::function<void(const absl::Status&)> on_fatal_;
  EngineObserver nobody_;
  EngineObserver* const observer_;
  const Planner plan_;
  LeaseTable leases_;
  Backlog backlog_;

  Mutex mutex_;
  ConditionVariable wake_;
  std::vector<std::function<void()>> posted_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
  std::atomic<bool> fatal_{false};
  std::atomic<int64_t> last_round_us_{0};

  // The rest belongs to the engine's thread.
  std::map<std::string, JobRecord> live_;
  std::set<std::string> placing_;  // a staging file is being made
  // Of live_: those that Tick looks at each time, since they hold devices, and those that wait for a moment.
  // Thousands only wait for devices.
  std::set<std::string> timed_;
  Alarms due_;                                  // boot
  Alarms forget_;                               // boot; by node that is lost, "": those not heard of here
  std::map<std::string, std::string> targets_;  // output file -> its job
  static Turn TurnOf(const JobRecord& record) {
    return {record.spec.priority, record.sequence, record.id, record.tenant};
  }
  JobQueue queue_;  // those that wait for devices; its nodes are NodeRegistry::KnownNodes
  TenantLedger tenants_;
  NodeRegistry registry_;
  std::set<std::string> forgotten_;  // told our term before that; kept where the store was restored
  Watchers watchers_;
  std::map<int64_t, std::pair<std::weak_ptr<LogCollector>, int64_t>> log_queries_;  // with the time of asking
  int64_t next_log_query_ = 1;
  Calibration calibration_;
  // The link that is being measured, and the streams of its nodes. Jobs take its devices as if they were
  // free.
  std::optional<LinkGang> link_gang_;
  std::map<std::string, int64_t> link_streams_;
  LinkTroubles link_troubles_;
  int64_t links_begun_ = 0;
  int64_t quiet_since_us_ = 0;  // no job has waited since, and no node has come
  // The policy had nothing to measure: of which nodes and links, and until when (wall).
  int64_t links_seen_version_ = 0, links_due_us_ = 0;
  Revisions revisions_{"", 0};
  bool schedule_ = false;    // something changed since the last pass
  bool scheduling_ = false;  // a pass is under way
  int64_t last_tick_us_ = 0;
  int64_t nodes_seen_us_ = 0, nodes_seen_version_ = 0;  // by the observer
  bool nodes_unseen_ = false;                           // something happened since, too soon after it
  int64_t next_standing_us_ = 0, next_expiry_us_ = 0, next_reserve_us_ = 0;
  int64_t settled_us_ = 0;  // a lease after the last node attached: only from then on is a queued job refused
  // The batch.
  std::map<std::string, Dirty> dirty_;
  WriteBatch batch_;
  std::map<std::string, std::shared_ptr<absl::Status>> inserted_;  // what becomes of batch_.inserts, by job
  std::vector<std::function<void()>> outbox_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_ENGINE_ENGINE_H_
