#include "coordinator/engine/engine.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "common/base/failpoints.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/engine/record_codec.h"

namespace seqpar {
namespace {

// While a job's time matters; while nothing is due, for what is not counted in NextTickUs.
constexpr int64_t kTickPeriodUs = 50'000, kIdlePeriodUs = 1'000'000;
constexpr int64_t kLogQueryLifeUs = 30'000'000;
constexpr int64_t kNodesSeenUs = 200'000;
constexpr int64_t kStandingPeriodUs = 500'000;  // so that each idle round looks
constexpr char kCalibration[] = "calibration", kRevisions[] = "revisions";
constexpr int64_t kExpiryPeriodUs = 10'000'000, kReservePeriodUs = 5'000'000;

}  // namespace

Engine::Engine(const EngineConfig& config, Store* store, const DataRoots* roots, const Clock* clock,
               TaskPool* work, TestHold* hold, std::function<void(const absl::Status&)> on_fatal,
               EngineHooks hooks)
    : config_(config),
      store_(store),
      roots_(roots),
      clock_(clock),
      work_(work),
      hold_(hold),
      on_fatal_(std::move(on_fatal)),
      observer_(hooks.observer != nullptr ? hooks.observer : &nobody_),
      plan_(std::move(hooks.plan)),
      leases_(config.lease_us),
      backlog_(config.backlog) {}

Engine::~Engine() {
  if (thread_.joinable()) Stop();
}

absl::Status Engine::Start() {
  SEQPAR_ASSIGN_OR_RETURN(const std::string reserved, store_->Setting(kRevisions));
  revisions_ = Revisions(reserved, clock_->WallMicros());
  SEQPAR_RETURN_IF_ERROR(ReserveFirstRevisions());
  SEQPAR_ASSIGN_OR_RETURN(const std::string calibration, store_->Setting(kCalibration));
  calibration_ = CalibrationFromText(calibration);
  SEQPAR_ASSIGN_OR_RETURN(const std::string links, store_->Setting(kLinksSetting));
  registry_.SetLinks(LinksFromText(links));
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<std::string> drains, store_->LoadDrains());
  for (const std::string& node : drains) registry_.SetDrained(node, true);
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<JobRow> rows, store_->LoadLive());
  const int64_t now_us = clock_->BootMicros();
  std::vector<std::string> restored;
  for (const JobRow& row : rows) {
    SEQPAR_RETURN_IF_ERROR(Failpoint("coordinator.start.adopt", {row.id}));
    SEQPAR_ASSIGN_OR_RETURN(const v1::Job view, ViewOfRow(row));
    SEQPAR_ASSIGN_OR_RETURN(const StoredAttempt attempt, store_->LoadAttempt(row.id, view.attempt()));
    SEQPAR_ASSIGN_OR_RETURN(JobRecord record, RecordOf(row, attempt));
    record.output_bytes = DemandOf(record.spec).output_bytes;
    if (record.ended()) {
      Post([this, record] { CleanLater(record.id, record.spec, record.NextAttempt(), true); });
      continue;
    }
    // More may have been seen of it than was stored, its progress: as it is now is another state.
    record.revision = revisions_.Next();
    for (size_t i = 0; i < record.ranks.size(); ++i) {
      const RankRecord& rank = record.ranks[i];
      registry_.Occupy(rank.node, rank.device, record.id, static_cast<int>(i));
      // Judged only after a full lease, however long this process was away.
      if (!rank.gone) leases_.Grant(rank.node, 0, now_us);
    }
    LogInfo("job taken up",
            {{"job", record.id}, {"stage", StageName(record.stage)}, {"attempt", record.attempt}});
    restored.push_back(record.id);
    Add(std::move(record));
  }
  schedule_ = true;
  last_tick_us_ = now_us;
  last_round_us_ = now_us;
  settled_us_ = now_us + config_.lease_us;
  if (config_.forget_us > 0) forget_.Set("", now_us + config_.forget_us);
  quiet_since_us_ = now_us;
  Post([this, restored] {
    for (const std::string& id : restored) Apply(id, event::Restored{});
  });
  thread_ = std::thread([this] { Loop(); });
  return absl::OkStatus();
}

// Jobs that are taken up may be seen as they are now before anything else of this start is written.
absl::Status Engine::ReserveFirstRevisions() {
  if (const auto reserve = revisions_.Reserve()) batch_.settings[kRevisions] = *reserve;
  absl::Status written = WriteOut();
  batch_ = WriteBatch();
  return written;
}

absl::Status Engine::Health() const {
  if (!fatal_) return absl::OkStatus();
  return absl::UnavailableError("the job store cannot be written");
}

void Engine::EndStreams() {
  Call<bool>([this] {
    const absl::Status why = absl::UnavailableError("the coordinator is shutting down");
    watchers_.EndAll(why);
    for (auto& [query, asked] : log_queries_) {
      const auto collector = asked.first.lock();
      for (const auto& [name, node] : registry_.nodes()) {
        if (collector != nullptr) collector->GiveUp(name);
      }
    }
    for (const auto& [name, node] : registry_.nodes()) {
      if (node.link != nullptr) node.link->Close(why);
      registry_.Change(name)->link = nullptr;
    }
    return true;
  });
}

void Engine::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Engine::Post(std::function<void()> task) {
  {
    MutexLock lock(mutex_);
    posted_.push_back(std::move(task));
  }
  wake_.notify_one();
}

void Engine::Loop() {
  while (true) {
    const std::chrono::microseconds wait(std::max<int64_t>(0, NextTickUs() - clock_->BootMicros()));
    std::vector<std::function<void()>> tasks;
    bool stopping;
    {
      MutexLock lock(mutex_);
      const auto due = [this]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !posted_.empty(); };
      wake_.wait_for(mutex_, wait, due);
      tasks.swap(posted_);
      stopping = stopping_;
    }
    if (stopping && tasks.empty()) return;
    last_round_us_ = clock_->BootMicros();
    for (std::function<void()>& task : tasks) {
      task();
      task = nullptr;  // with what it holds: a message may be large
    }
    Tick();
    // A new attempt is more to write, and the disk is full.
    if (schedule_ && !scheduling_ && store_->has_reserve()) Schedule();
    Flush();
  }
}

int64_t Engine::NextTickUs() const {
  if (!timed_.empty() || link_gang_) return last_tick_us_ + kTickPeriodUs;
  int64_t next_us = last_tick_us_ + (nodes_unseen_ ? kNodesSeenUs : kIdlePeriodUs);
  next_us = std::min(next_us, due_.NextUs());
  if (settled_us_ > last_tick_us_) next_us = std::min(next_us, settled_us_);
  return std::min(next_us, leases_.NextEndUs());
}

void Engine::Tick() {
  const int64_t now_us = clock_->BootMicros();
  for (const std::string& name : leases_.TakeExpired(now_us)) {
    LogWarning("node lost: its lease is over", {{"node", name}});
    PassFailpoint("coordinator.node.lost");
    if (NodeEntry* node = registry_.Change(name); node != nullptr) {
      node->lost = true;
      if (node->link != nullptr) {
        node->link->Close(
            MakeError(absl::StatusCode::kUnavailable, reason::kRankLost, "the lease of this node is over"));
      }
      node->link = nullptr;
      node->stream = 0;
    }
    ApplyToHolders(event::NodeLost{name});
    if (config_.forget_us > 0) forget_.Set(name, now_us + config_.forget_us);
    schedule_ = true;
  }
  ForgetNodes(now_us);
  if (settled_us_ > last_tick_us_ && settled_us_ <= now_us) {
    queue_.SetNodes("");  // those that were to be refused may be now
    schedule_ = true;
  }
  if (now_us >= next_standing_us_) {
    next_standing_us_ = now_us + kStandingPeriodUs;
    watchers_.EndLapsed();
  }
  if (now_us >= next_expiry_us_) {
    next_expiry_us_ = now_us + kExpiryPeriodUs;
    batch_.expire.keep_jobs = config_.keep_jobs;
    if (config_.keep_us > 0) batch_.expire.ended_before_us = clock_->WallMicros() - config_.keep_us;
  }
  if (!store_->has_reserve() && now_us >= next_reserve_us_) {
    next_reserve_us_ = now_us + kReservePeriodUs;
    if (store_->KeepReserve().ok()) {
      LogInfo("the job store has room again");
      schedule_ = true;
    }
  }
  for (const std::string& id : due_.TakeDue(now_us)) {
    schedule_ = true;  // where its pause between two attempts is over
    Apply(id, event::Tick{});
  }
  const std::vector<std::string> timed(timed_.begin(), timed_.end());
  for (const std::string& id : timed) Apply(id, event::Tick{});
  for (auto it = log_queries_.begin(); it != log_queries_.end();) {
    it = now_us > it->second.second + kLogQueryLifeUs ? log_queries_.erase(it) : std::next(it);
  }
  last_tick_us_ = now_us;
  TickLinks();
  const bool news = nodes_seen_version_ != registry_.version();
  nodes_unseen_ = news && now_us < nodes_seen_us_ + kNodesSeenUs;
  if (!news || nodes_unseen_) return;
  nodes_seen_us_ = now_us;
  nodes_seen_version_ = registry_.version();
  observer_->NodesSeen(registry_.nodes());
}

void Engine::Flush() {
  const int64_t now_us = clock_->BootMicros();
  std::vector<std::string> ended;
  for (const auto& [id, dirty] : dirty_) {
    const auto found = live_.find(id);
    if (found == live_.end()) continue;
    JobRecord& record = found->second;
    if (dirty.record) batch_.jobs.push_back(RowOf(record, now_us));
    if (dirty.plan) {
      batch_.attempts.push_back({id, record.attempt, PlanToProto(record.plan).SerializeAsString()});
    }
    if (record.ended()) ended.push_back(id);
  }
  if (const auto reserve = revisions_.Reserve()) batch_.settings[kRevisions] = *reserve;
  if (!batch_.empty() && !fatal_) {
    if (const absl::Status written = WriteOut(); !written.ok()) {
      // What cannot be written must not be seen. The next process starts from what is on disk.
      fatal_ = true;
      LogError("the job store cannot be written", {{"error", written.message()}});
      on_fatal_(written);
    }
  }
  if (!fatal_) {
    for (const auto& [id, dirty] : dirty_) {
      const auto found = live_.find(id);
      if (!dirty.publish || found == live_.end() || !watchers_.Any(id)) continue;
      watchers_.Publish(ViewOf(found->second, now_us), found->second.ended());
    }
  }
  for (const std::string& id : ended) Remove(id);
  dirty_.clear();
  batch_ = WriteBatch();
  inserted_.clear();
  std::vector<std::function<void()>> outbox;
  outbox.swap(outbox_);
  for (const std::function<void()>& effect : outbox) effect();
}

// One transaction for all that happened since the last one, of however many clients and nodes.
absl::Status Engine::WriteOut() {
  std::vector<std::string> taken;
  absl::Status written = store_->Write(batch_, &taken);
  if (absl::IsResourceExhausted(written) && store_->has_reserve()) {
    LogError("the disk of the job store is full: no new jobs, and the reserve is for those that run",
             {{"error", written.message()}});
    store_->GiveUpReserve();
    next_reserve_us_ = clock_->BootMicros() + kReservePeriodUs;
    for (const JobRow& row : std::exchange(batch_.inserts, {})) Refuse(row.id, Admission());
    batch_.expire = {};
    written = store_->Write(batch_, &taken);
  }
  if (!written.ok()) {
    for (const JobRow& row : batch_.inserts) Refuse(row.id, Annotate(written, "the job is not accepted"));
    return written;
  }
  for (const std::string& id : taken) {
    Refuse(id,
           MakeError(absl::StatusCode::kAlreadyExists, reason::kStorage, "its id or request_id is taken"));
  }
  return absl::OkStatus();
}

void Engine::Refuse(const std::string& insert, const absl::Status& why) {
  *inserted_[insert] = why;
  Remove(insert);
}

void Engine::SendLater(const std::string& node, v1::CoordinatorMessage message) {
  auto shared = std::make_shared<v1::CoordinatorMessage>(std::move(message));
  Later([this, node, shared] {
    NodeLink* link = registry_.LinkOf(node);
    // As late as can be: what passes until it is sent counts as the message's way.
    if (shared->has_heartbeat()) shared->mutable_heartbeat()->set_answered_us(clock_->BootMicros());
    if (link != nullptr && !fatal_) link->Send(std::move(*shared));
  });
}

void Engine::WorkLater(const std::string& job, std::function<std::optional<JobEvent>()> task) {
  Later([this, job, task = std::move(task)] {
    if (fatal_) return;
    work_->Run([this, job, task] {
      std::optional<JobEvent> event = task();
      if (!event) return;
      Post([this, job, event = std::move(*event)] { Apply(job, event); });
    });
  });
}

}  // namespace seqpar
