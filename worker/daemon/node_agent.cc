#include "worker/daemon/node_agent.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/retry.h"
#include "common/base/saturate.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

constexpr int64_t kWelcomeTimeoutUs = 5'000'000;
constexpr size_t kAttemptsTold = 4096;

}  // namespace

NodeAgent::NodeAgent(NodeIdentity identity, const Clock* clock, ExecutorHost* host, FleetSender* fleet,
                     DeviceGate* gate, AgentObserver* observer)
    : identity_(std::move(identity)),
      clock_(clock),
      host_(host),
      fleet_(fleet),
      gate_(gate),
      observer_(observer != nullptr ? observer : &nobody_),
      logs_(kGangsKept) {}

void NodeAgent::SetWelcomed(bool welcomed) {
  welcomed_ = welcomed;
  observer_->Attached(welcomed);
}

// --- the stream ---

void NodeAgent::OnConnected() {
  connected_ = true;
  SetWelcomed(false);
  hello_sent_us_ = clock_->BootMicros();
  v1::WorkerMessage message;
  v1::Hello* hello = message.mutable_hello();
  *hello = identity_.hello;
  hello->set_highest_term(fence_.highest_term());
  hello->set_draining(draining_);
  AddSetAside(hello->mutable_set_aside());
  for (const auto& [job, attempt] : fence_.LatestAttempts(kAttemptsTold)) {
    (*hello->mutable_highest_attempts())[job] = attempt;
  }
  // A rank whose last event may not have arrived counts as running: the event follows the Welcome.
  std::set<RankKey> running;
  for (const auto& [key, gang] : gangs_) {
    for (const auto& [rank, state] : gang.ranks) {
      if (state.running || state.waiting) running.insert({key.first, key.second, rank});
    }
  }
  for (const Unconfirmed& kept : unconfirmed_) {
    if (!kept.message.has_event()) continue;
    const v1::RankEvent& event = kept.message.event();
    running.insert({event.gang().job(), event.gang().attempt(), event.rank()});
  }
  for (const RankKey& key : running) {
    v1::RunningRank* rank = hello->add_running();
    *rank->mutable_gang() = IdOf({key.job, key.attempt});
    rank->set_rank(key.rank);
    if (const Rank* state = Find(key)) rank->set_device(state->device);
  }
  fleet_->Send(message);
}

void NodeAgent::OnDisconnected() {
  connected_ = false;
  SetWelcomed(false);
  for (Unconfirmed& kept : unconfirmed_) kept.covered_by = 0;
}

void NodeAgent::OnMessage(const v1::CoordinatorMessage& message) {
  switch (message.message_case()) {
    case v1::CoordinatorMessage::kWelcome:
      return OnWelcome(message.welcome());
    case v1::CoordinatorMessage::kHeartbeat: {
      const v1::HeartbeatAnswer& answer = message.heartbeat();
      if (!welcomed_ || !lease_.HeartbeatAnswered(answer.sequence())) return;
      last_answer_us_ = clock_->BootMicros();
      observer_->LeaseExtended(lease_.deadline_us());
      // The lease counts from sending what was answered.
      observer_->HeartbeatAnswered(last_answer_us_ - (lease_.deadline_us() - lease_.length_us()));
      if (answer.answered_us() > 0) {
        coordinator_clock_.Add(
            {answer.heartbeat_sent_us(), answer.received_us(), answer.answered_us(), last_answer_us_});
      }
      while (!unconfirmed_.empty() && unconfirmed_.front().covered_by != 0 &&
             unconfirmed_.front().covered_by <= answer.sequence()) {
        unconfirmed_.pop_front();
      }
      v1::ToExecutor extend;
      extend.mutable_lease()->set_deadline_us(lease_.deadline_us());
      for (const auto& [key, gang] : gangs_) {
        for (const auto& [rank, state] : gang.ranks) {
          if (state.running) host_->Send({key.first, key.second, rank}, extend);
        }
      }
      return;
    }
    case v1::CoordinatorMessage::kStart:
      return OnStart(message.start());
    case v1::CoordinatorMessage::kBlobs:
      return OnBlobs(message.blobs());
    case v1::CoordinatorMessage::kStop:
      return OnStop(message.stop());
    case v1::CoordinatorMessage::kLogs:
      return OnLogsQuery(message.logs());
    case v1::CoordinatorMessage::MESSAGE_NOT_SET:
      return LogWarning("a message of an unknown kind: the coordinator is newer than this worker");
  }
}

void NodeAgent::OnWelcome(const v1::Welcome& welcome) {
  if (const absl::Status admitted = fence_.AdmitTerm(welcome.term()); !admitted.ok()) {
    fleet_->Break(Annotate(admitted, "the coordinator is not the latest"));
    return;
  }
  const int64_t now_us = clock_->BootMicros();
  coordinator_clock_.Reset();  // it may be on another machine now
  lease_us_ = MicrosOfMillis(std::max<int64_t>(welcome.lease_ms(), 100));
  lease_.Grant(lease_us_ / 1000, hello_sent_us_);
  // More often where the lease is short: two in a row may be late.
  heartbeat_us_ =
      std::min(MicrosOfMillis(std::max<int64_t>(welcome.heartbeat_ms(), 10)), lease_.length_us() / 3);
  SetWelcomed(true);
  observer_->LeaseExtended(lease_.deadline_us());
  last_answer_us_ = next_heartbeat_us_ = now_us;
  LogInfo("attached", {{"term", welcome.term()}, {"coordinator_version", welcome.version()}});

  std::set<GangKey> keep;
  for (const v1::GangId& id : welcome.keep()) keep.insert({id.job(), id.attempt()});
  for (auto& [key, gang] : gangs_) {
    if (keep.count(key) != 0) continue;
    gang.stop_asked = true;
    AbortGang(key, &gang, MakeError(absl::StatusCode::kCancelled, reason::kRankLost, "its attempt is over"),
              kStopGraceUs);
  }
  if (draining_) SayDraining();  // the hello may have been sent before
  for (Unconfirmed& kept : unconfirmed_) {
    kept.covered_by = 0;
    if (kept.message.has_event())
      kept.message.mutable_event()->mutable_gang()->set_term(fence_.highest_term());
    if (kept.message.has_blob()) kept.message.mutable_blob()->mutable_gang()->set_term(fence_.highest_term());
    fleet_->Send(kept.message);
  }
}

// Whether a command is to be obeyed; what was decided is in the log, so that it can be checked afterwards.
bool NodeAgent::Admit(const char* command, const v1::GangId& gang) {
  const absl::Status admitted = fence_.Admit(gang.term(), gang.job(), gang.attempt());
  if (admitted.ok()) {
    LogDebug("command obeyed",
             {{"command", command}, {"term", gang.term()}, {"job", gang.job()}, {"attempt", gang.attempt()}});
  } else {
    LogWarning(absl::StrCat(command, " refused"),
               {{"job", gang.job()}, {"attempt", gang.attempt()}, {"error", admitted.message()}});
  }
  return admitted.ok();
}

void NodeAgent::OnStart(const v1::StartRanks& start) {
  const GangKey key(start.gang().job(), start.gang().attempt());
  if (!Admit("start", start.gang())) return;
  for (auto& [other, gang] : gangs_) {
    if (other.first != key.first || other.second >= key.second) continue;
    AbortGang(other, &gang, MakeError(absl::StatusCode::kAborted, reason::kRankLost, "a newer attempt began"),
              0);
  }
  Gang& gang = Know(key);
  if (gang.stop_asked) {
    // The stop came first, and whoever sent it was told that these would never run.
    for (const v1::StartRanks::Placement& placement : start.ranks()) TellStopped(key, gang, placement.rank());
    return;
  }
  const auto shared = std::make_shared<const v1::StartRanks>(start);
  for (const v1::StartRanks::Placement& placement : start.ranks()) {
    if (gang.ranks.count(placement.rank()) != 0)
      continue;  // the coordinator repeats itself after a new stream
    Rank& rank = gang.ranks[placement.rank()];
    rank.start = shared;
    rank.device = placement.device();
    rank.progress.set_phase(v1::JOB_PHASE_BOOTSTRAP);
    rank.progress.set_rank(placement.rank());
    rank.progress.set_waiting_for_rank(-1);
    StartRank(key, placement.rank());
  }
  ForgetOldGangs();
}

void NodeAgent::OnBlobs(const v1::BlobTable& blobs) {
  const GangKey key(blobs.gang().job(), blobs.gang().attempt());
  if (!Admit("blobs", blobs.gang())) return;
  const auto found = gangs_.find(key);
  if (found == gangs_.end()) return;
  v1::ToExecutor message;
  *message.mutable_blobs() = blobs;
  for (const auto& [rank, state] : found->second.ranks) {
    if (state.running) host_->Send({key.first, key.second, rank}, message);
  }
}

void NodeAgent::OnLogsQuery(const v1::LogsQuery& query) {
  std::vector<LogStore::Tail> tails =
      logs_.Find(query.job(), query.has_attempt() ? std::optional<int32_t>(query.attempt()) : std::nullopt,
                 query.has_rank() ? std::optional<int32_t>(query.rank()) : std::nullopt);
  v1::WorkerMessage message;
  v1::LogsAnswer* answer = message.mutable_logs();
  answer->set_query(query.query());
  answer->set_job(query.job());
  for (LogStore::Tail& tail : tails) {
    answer->set_attempt(tail.key.attempt);
    answer->set_rank(tail.key.rank);
    answer->set_device(tail.device);
    answer->set_text(std::move(tail.text));
    fleet_->Send(message);
  }
  // The end is a message of its own, so that a node without logs answers the same way.
  answer->clear_text();
  answer->clear_device();
  answer->clear_attempt();
  answer->set_rank(-1);
  answer->set_last(true);
  fleet_->Send(message);
}

// --- what is sent ---

void NodeAgent::Fail(const GangKey& key, int32_t index, const absl::Status& error, bool root_cause) {
  Rank& rank = gangs_[key].ranks[index];
  if (rank.reported) return;
  rank.reported = true;
  v1::RankEvent event;
  *event.mutable_error() = StatusToProto(error);
  event.set_root_cause(root_cause);
  event.set_phase(rank.progress.phase());
  SendEvent(key, index, v1::RankEvent::FAILED, std::move(event));
}

void NodeAgent::SendEvent(const GangKey& key, int32_t rank, v1::RankEvent::Kind kind, v1::RankEvent event) {
  *event.mutable_gang() = IdOf(key);
  event.set_rank(rank);
  event.set_kind(kind);
  v1::WorkerMessage message;
  *message.mutable_event() = std::move(event);
  SendKept(std::move(message));
}

void NodeAgent::SendKept(v1::WorkerMessage message) {
  if (welcomed_) fleet_->Send(message);
  unconfirmed_.push_back({std::move(message), 0});
}

void NodeAgent::SendHeartbeat(int64_t now_us) {
  v1::WorkerMessage message;
  v1::Heartbeat* heartbeat = message.mutable_heartbeat();
  heartbeat->set_sequence(++sequence_);
  heartbeat->set_draining(draining_);
  AddSetAside(heartbeat->mutable_set_aside());
  heartbeat->set_sent_us(now_us);
  for (const auto& [key, gang] : gangs_) {
    for (const auto& [index, rank] : gang.ranks) {
      if (!rank.running) continue;
      v1::RankProgress* progress = heartbeat->add_ranks();
      *progress = rank.progress;
      progress->mutable_totals()->clear_traffic();  // for this node's metrics only
      *progress->mutable_gang() = IdOf(key);
      progress->set_rank(index);
    }
  }
  for (Unconfirmed& kept : unconfirmed_) {
    if (kept.covered_by == 0) kept.covered_by = sequence_;
  }
  lease_.HeartbeatSent(sequence_, now_us);
  fleet_->Send(message);
}

void NodeAgent::AddSetAside(google::protobuf::Map<int32_t, std::string>* to) const {
  for (int device = 0; device < identity_.hello.devices_size(); ++device) {
    if (gate_->StateOf(device) == DeviceGate::State::kSetAside)
      (*to)[device] = ToUtf8(gate_->WhySetAside(device));
  }
}

// --- time ---

int64_t NodeAgent::Tick() {
  const int64_t now_us = clock_->BootMicros();
  int64_t next_us = now_us + 1'000'000;
  if (connected_ && !welcomed_ && now_us >= hello_sent_us_ + kWelcomeTimeoutUs) {
    connected_ = false;
    fleet_->Break(absl::DeadlineExceededError("no welcome from the coordinator"));
  }
  if (welcomed_ && now_us >= last_answer_us_ + lease_us_) {
    connected_ = false;
    SetWelcomed(false);
    fleet_->Break(absl::DeadlineExceededError("no heartbeat was answered for a lease"));
  }
  if (welcomed_) {
    // Who waits to leave need not wait for the next one: its answer confirms the last events.
    const bool last = draining_ && !unconfirmed_.empty() && unconfirmed_.back().covered_by == 0 && Idle();
    if (last || now_us >= next_heartbeat_us_) {
      SendHeartbeat(now_us);
      next_heartbeat_us_ = now_us + heartbeat_us_;
    }
    next_us = std::min(next_us, next_heartbeat_us_);
  }
  const bool lease_over = lease_.Over(now_us);
  for (auto& [key, gang] : gangs_) {
    for (auto& [index, rank] : gang.ranks) {
      if (!rank.running) continue;
      if (lease_over && !rank.killed) {
        Fail(key, index, LeaseOver(), true);
        rank.kill_at_us = now_us;
      }
      if (rank.kill_at_us == 0 || rank.killed) continue;
      if (now_us >= rank.kill_at_us) {
        rank.killed = true;
        host_->Kill({key.first, key.second, index});
      } else {
        next_us = std::min(next_us, rank.kill_at_us);
      }
    }
  }
  return lease_over ? next_us : std::min(next_us, lease_.deadline_us());
}

absl::Status NodeAgent::LeaseOver() const {
  return MakeError(absl::StatusCode::kUnavailable, reason::kRankLost,
                   absl::StrCat("the lease of ", identity_.hello.node(), " is over"));
}

void NodeAgent::BeginDrain() {
  if (draining_) return;
  draining_ = true;
  if (welcomed_) SayDraining();
  observer_->Draining();
}

void NodeAgent::SayDraining() {
  const int64_t now_us = clock_->BootMicros();
  SendHeartbeat(now_us);
  next_heartbeat_us_ = now_us + heartbeat_us_;
}

void NodeAgent::BeginShutdown() {
  BeginDrain();
  for (auto& [key, gang] : gangs_) {
    StopByOwnDecision(key, &gang,
                      MakeError(absl::StatusCode::kUnavailable, reason::kNodeDrained,
                                absl::StrCat("the worker on ", identity_.hello.node(), " was told to stop")));
  }
}

bool NodeAgent::Idle() const {
  for (const auto& [key, gang] : gangs_) {
    for (const auto& [index, rank] : gang.ranks) {
      if (rank.running) return false;
    }
  }
  return true;
}

v1::GangId NodeAgent::IdOf(const GangKey& key) const {
  v1::GangId id;
  id.set_term(fence_.highest_term());
  id.set_job(key.first);
  id.set_attempt(key.second);
  return id;
}

NodeAgent::Rank* NodeAgent::Find(const RankKey& key) {
  const auto gang = gangs_.find({key.job, key.attempt});
  if (gang == gangs_.end()) return nullptr;
  const auto rank = gang->second.ranks.find(key.rank);
  return rank == gang->second.ranks.end() ? nullptr : &rank->second;
}

}  // namespace seqpar
