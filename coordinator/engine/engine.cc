#include "coordinator/engine/engine.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/engine/record_codec.h"

namespace seqpar {
namespace {

// While a job's time matters, and while only leases run.
constexpr auto kTickPeriod = std::chrono::milliseconds(50), kIdlePeriod = std::chrono::milliseconds(250);
// Revisions of one start of the coordinator; the next start begins above all of them without having written
// each.
constexpr int64_t kRevisionsPerTerm = 1'000'000'000;
constexpr int64_t kLogQueryLifeUs = 30'000'000;
constexpr int64_t kNodesSeenUs = 200'000;
constexpr char kCalibration[] = "calibration";
const std::string& kOthersJob = *new std::string("another tenant's job");

}  // namespace

Engine::Engine(const EngineConfig& config, Store* store, const Clock* clock, TaskPool* work, TestHold* hold,
               std::function<void(const absl::Status&)> on_fatal, EngineHooks hooks)
    : config_(config),
      store_(store),
      clock_(clock),
      work_(work),
      hold_(hold),
      on_fatal_(std::move(on_fatal)),
      observer_(hooks.observer != nullptr ? hooks.observer : &nobody_),
      plan_(std::move(hooks.plan)),
      leases_(config.lease_us) {}

Engine::~Engine() {
  if (thread_.joinable()) Stop();
}

absl::Status Engine::Start() {
  revision_ = store_->term() * kRevisionsPerTerm;
  SEQPAR_ASSIGN_OR_RETURN(const std::string calibration, store_->Setting(kCalibration));
  calibration_ = CalibrationFromText(calibration);
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<std::string> drains, store_->LoadDrains());
  for (const std::string& node : drains) registry_.SetDrained(node, true);
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<JobRow> rows, store_->LoadLive());
  const int64_t now_us = clock_->BootMicros();
  std::vector<std::string> restored;
  for (const JobRow& row : rows) {
    SEQPAR_ASSIGN_OR_RETURN(const v1::Job view, ViewOfRow(row));
    SEQPAR_ASSIGN_OR_RETURN(const StoredAttempt attempt, store_->LoadAttempt(row.id, view.attempt()));
    SEQPAR_ASSIGN_OR_RETURN(JobRecord record, RecordOf(row, attempt));
    if (record.ended()) {
      Post([this, record] { CleanLater(record.id, record.spec, record.attempt + 1, true); });
      continue;
    }
    for (size_t i = 0; i < record.ranks.size(); ++i) {
      const RankRecord& rank = record.ranks[i];
      registry_.Occupy(rank.node, rank.device, record.id, static_cast<int>(i));
      // Judged only after a full lease, however long this process was away.
      if (!rank.gone) leases_.Grant(rank.node, 0, now_us);
    }
    LogInfo("job taken up",
            {{"job", record.id}, {"stage", StageName(record.stage)}, {"attempt", record.attempt}});
    restored.push_back(record.id);
    KeepTime(record);
    live_.emplace(row.id, std::move(record));
  }
  schedule_ = true;
  last_tick_us_ = now_us;
  last_round_us_ = now_us;
  settled_us_ = now_us + config_.lease_us;
  Post([this, restored] {
    for (const std::string& id : restored) Apply(id, event::Restored{});
  });
  thread_ = std::thread([this] { Loop(); });
  return absl::OkStatus();
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
    for (auto& [name, node] : registry_.nodes()) {
      if (node.link != nullptr) node.link->Close(why);
      node.link = nullptr;
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
    queue_.push_back(std::move(task));
  }
  wake_.notify_one();
}

void Engine::Loop() {
  while (true) {
    std::vector<std::function<void()>> tasks;
    bool stopping;
    {
      MutexLock lock(mutex_);
      const auto due = [this]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !queue_.empty(); };
      wake_.wait_for(mutex_, timed_.empty() ? kIdlePeriod : kTickPeriod, due);
      tasks.swap(queue_);
      stopping = stopping_;
    }
    if (stopping && tasks.empty()) return;
    last_round_us_ = clock_->BootMicros();
    for (const std::function<void()>& task : tasks) task();
    Tick();
    if (schedule_ && !scheduling_) Schedule();
    Flush();
  }
}

void Engine::Tick() {
  const int64_t now_us = clock_->BootMicros();
  for (const std::string& name : leases_.TakeExpired(now_us)) {
    LogWarning("node lost: its lease is over", {{"node", name}});
    if (NodeEntry* node = registry_.Find(name); node != nullptr) {
      node->lost = true;
      if (node->link != nullptr) {
        node->link->Close(
            MakeError(absl::StatusCode::kUnavailable, reason::kRankLost, "the lease of this node is over"));
      }
      node->link = nullptr;
      node->stream = 0;
    }
    ApplyToAll(event::NodeLost{name});
    schedule_ = true;
  }
  if (settled_us_ > last_tick_us_ && settled_us_ <= now_us) {
    unfit_.clear();  // those that were to be refused may be now
    schedule_ = true;
  }
  const std::vector<std::string> timed(timed_.begin(), timed_.end());
  for (const std::string& id : timed) {
    const auto found = live_.find(id);
    if (found == live_.end()) {
      timed_.erase(id);
      continue;
    }
    // Its pause between two attempts is over.
    const JobRecord& record = found->second;
    const int64_t due_us = record.not_before_us;
    if (record.stage == Stage::kQueued && due_us > last_tick_us_ && due_us <= now_us) schedule_ = true;
    Apply(id, event::Tick{});
  }
  for (auto it = log_queries_.begin(); it != log_queries_.end();) {
    it = now_us > it->second.second + kLogQueryLifeUs ? log_queries_.erase(it) : std::next(it);
  }
  last_tick_us_ = now_us;
  if (now_us < nodes_seen_us_ + kNodesSeenUs) return;
  nodes_seen_us_ = now_us;
  observer_->NodesSeen(registry_.nodes());
}

void Engine::Flush() {
  const int64_t now_us = clock_->BootMicros();
  std::vector<std::string> ended;
  for (const auto& [id, dirty] : dirty_) {
    const auto found = live_.find(id);
    if (found == live_.end()) continue;
    JobRecord& record = found->second;
    if (dirty.publish) record.revision = ++revision_;
    if (dirty.record) batch_.jobs.push_back(RowOf(record, now_us));
    if (dirty.plan) {
      batch_.attempts.push_back({id, record.attempt, PlanToProto(record.plan).SerializeAsString()});
    }
    if (record.ended()) ended.push_back(id);
  }
  if (!batch_.empty() && !fatal_) {
    if (const absl::Status written = store_->Write(batch_); !written.ok()) {
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
  for (const std::string& id : ended) {
    live_.erase(id);
    timed_.erase(id);
    unfit_.erase(id);
  }
  dirty_.clear();
  batch_ = WriteBatch();
  std::vector<std::function<void()>> outbox;
  outbox.swap(outbox_);
  for (const std::function<void()>& effect : outbox) effect();
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

// --- for clients ---

absl::StatusOr<v1::Job> Engine::Submit(JobRecord record, const std::string& request) {
  return Call<absl::StatusOr<v1::Job>>(
      [this, record = std::move(record), request]() -> absl::StatusOr<v1::Job> {
        SEQPAR_RETURN_IF_ERROR(Health());
        const std::string& target = record.spec.output_file;
        for (const auto& [id, other] : live_) {
          if (target.empty() || other.spec.output_file != target) continue;
          const std::string& named = other.tenant == record.tenant ? id : kOthersJob;
          return MakeError(absl::StatusCode::kFailedPrecondition, reason::kOutputInUse,
                           absl::StrCat(target, " is the output of ", named, ", which has not ended"));
        }
        JobRecord job = record;
        const std::vector<JobAction> actions = Step(&job, event::Submitted{}, config_.machine, Time());
        job.revision = ++revision_;
        JobRow row = RowOf(job, Time().boot_us);
        row.request = request;
        SEQPAR_RETURN_IF_ERROR(store_->Insert(&row));
        job.sequence = row.sequence;
        LogInfo("job submitted", {{"job", job.id}, {"name", job.spec.name}, {"phase", "submit"}});
        schedule_ = true;
        observer_->JobSubmitted(job);
        v1::Job view = ViewOf(job, Time().boot_us);
        KeepTime(job);
        live_.emplace(job.id, std::move(job));
        return view;
      });
}

std::optional<v1::Job> Engine::ViewLive(const std::string& id) {
  return Call<std::optional<v1::Job>>([this, id]() -> std::optional<v1::Job> {
    const auto found = live_.find(id);
    if (found == live_.end()) return std::nullopt;
    return ViewOf(found->second, Time().boot_us);
  });
}

std::optional<v1::Job> Engine::Cancel(const std::string& id) {
  return Call<std::optional<v1::Job>>([this, id]() -> std::optional<v1::Job> {
    const auto found = live_.find(id);
    if (found == live_.end()) return std::nullopt;
    LogInfo("cancel requested", {{"job", id}, {"phase", PhaseName(found->second.phase)}});
    Apply(id, event::CancelRequested{});
    return ViewOf(found->second, Time().boot_us);
  });
}

bool Engine::Watch(const std::string& id, int64_t revision, const std::shared_ptr<Watcher>& watcher) {
  return Call<bool>([this, id, revision, watcher] {
    const auto found = live_.find(id);
    if (found == live_.end()) return false;
    watchers_.Add(id, watcher);
    if (found->second.revision > revision) watcher->Offer(ViewOf(found->second, Time().boot_us));
    return true;
  });
}

std::pair<ClusterSnapshot, Calibration> Engine::Cluster() {
  return Call<std::pair<ClusterSnapshot, Calibration>>(
      [this] { return std::make_pair(registry_.Snapshot(), calibration_); });
}

std::vector<v1::Node> Engine::Nodes(const std::optional<std::string>& tenant) {
  return Call<std::vector<v1::Node>>([this, tenant] {
    std::vector<v1::Node> nodes;
    for (const auto& [name, node] : registry_.nodes()) {
      if (!node.known() && !node.drained) continue;
      const int64_t left_us = leases_.Left(name, Time().boot_us).value_or(0);
      nodes.push_back(NodeRegistry::ToProto(name, node, static_cast<double>(left_us) / 1e6));
      if (tenant) HideOthers(*tenant, &nodes.back());
    }
    return nodes;
  });
}

void Engine::HideOthers(const std::string& tenant, v1::Node* node) const {
  for (v1::NodeDevice& device : *node->mutable_devices()) {
    const auto found = live_.find(device.job());
    if (device.job().empty() || (found != live_.end() && found->second.tenant == tenant)) continue;
    device.set_job("other");
    device.clear_rank();
  }
}

absl::StatusOr<v1::Node> Engine::Drain(const std::string& name, bool undo) {
  return Call<absl::StatusOr<v1::Node>>([this, name, undo]() -> absl::StatusOr<v1::Node> {
    NodeEntry* node = registry_.Find(name);
    if (node == nullptr || (!node->known() && !node->drained)) {
      return MakeError(absl::StatusCode::kNotFound, reason::kNotFound,
                       absl::StrCat("no node is called ", name));
    }
    registry_.SetDrained(name, !undo);
    batch_.drains[name] = !undo;
    schedule_ = true;
    LogInfo(undo ? "drain undone" : "node drained", {{"node", name}});
    const int64_t left_us = leases_.Left(name, Time().boot_us).value_or(0);
    return NodeRegistry::ToProto(name, *node, static_cast<double>(left_us) / 1e6);
  });
}

std::shared_ptr<LogCollector> Engine::AskLogs(const std::string& job, std::optional<int> rank,
                                              std::optional<int> attempt) {
  return Call<std::shared_ptr<LogCollector>>([this, job, rank, attempt] {
    auto collector = std::make_shared<LogCollector>();
    const int64_t query = next_log_query_++;
    log_queries_[query] = {collector, Time().boot_us};
    v1::CoordinatorMessage message;
    message.mutable_logs()->set_query(query);
    message.mutable_logs()->set_job(job);
    if (rank) message.mutable_logs()->set_rank(*rank);
    if (attempt) message.mutable_logs()->set_attempt(*attempt);
    for (const auto& [name, node] : registry_.nodes()) {
      if (node.link == nullptr) continue;
      collector->Expect(name);
      SendLater(name, message);
    }
    return collector;
  });
}

}  // namespace seqpar
