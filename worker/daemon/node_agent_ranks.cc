// The agent's side of executors: starting, watching and stopping ranks.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "worker/daemon/node_agent.h"

namespace seqpar {
namespace {

constexpr int64_t kSiblingGraceUs =
    3'000'000;  // from Abort to SIGKILL where a rank only follows another's failure
constexpr int64_t kExitGraceUs = 5'000'000;  // from the last message to the end of the process

}  // namespace

void NodeAgent::OnExecutorMessage(const RankKey& key, const v1::FromExecutor& message) {
  Rank* rank = Find(key);
  if (rank == nullptr || rank->reported) return;
  const GangKey gang(key.job, key.attempt);
  if (message.has_progress()) {
    rank->progress = message.progress();
    observer_->RankProgressed(key, rank->progress);
  } else if (message.has_blob()) {
    v1::WorkerMessage up;
    *up.mutable_blob() = message.blob();
    *up.mutable_blob()->mutable_gang() = IdOf(gang);
    up.mutable_blob()->set_rank(key.rank);
    SendKept(std::move(up));
  } else if (message.has_trace()) {
    v1::WorkerMessage up;
    *up.mutable_trace()->mutable_gang() = IdOf(gang);
    v1::TraceChunk* chunk = up.mutable_trace()->mutable_chunk();
    *chunk = message.trace();
    chunk->set_attempt(key.attempt);
    chunk->set_rank(key.rank);
    if (const auto clock = coordinator_clock_.Estimate(clock_->BootMicros())) {
      chunk->mutable_clock()->set_known(true);
      chunk->mutable_clock()->set_offset_ns(clock->offset_ns);
      chunk->mutable_clock()->set_bound_ns(clock->bound_ns);
    }
    SendKept(std::move(up));
  } else if (message.has_event() && message.event().kind() == v1::RankEvent::CHECKPOINTED) {
    SendEvent(gang, key.rank, message.event().kind(), message.event());
  } else if (message.has_event()) {
    v1::RankEvent event = message.event();
    if (event.kind() == v1::RankEvent::FAILED && event.error().code() == 0) {
      *event.mutable_error() = StatusToProto(
          MakeError(absl::StatusCode::kUnknown, reason::kRankFailed, "its executor gave no error"));
    }
    rank->reported = true;
    observer_->RankReported(key, event);
    if (rank->kill_at_us == 0) rank->kill_at_us = clock_->BootMicros() + kExitGraceUs;
    SendEvent(gang, key.rank, event.kind(), event);
    if (event.kind() != v1::RankEvent::FAILED) return;
    const absl::Status error = StatusFromProto(event.error());
    LogWarning("rank failed", {{"job", key.job},
                               {"attempt", key.attempt},
                               {"rank", key.rank},
                               {"phase", PhaseName(PhaseFromProto(rank->progress.phase()))},
                               {"root_cause", event.root_cause()},
                               {"error", error.message()}});
    AbortGang(gang, &gangs_[gang], Annotate(error, absl::StrCat("rank ", key.rank, " failed")),
              kSiblingGraceUs);
  }
}

void NodeAgent::OnExecutorExit(const RankKey& key, const ExecutorExit& exit) {
  Rank* rank = Find(key);
  if (rank == nullptr) return;
  gate_->Ended(rank->device, exit.pid, clock_->BootMicros());
  logs_.End(key);
  const GangKey id(key.job, key.attempt);
  Gang& gang = gangs_[id];
  rank->running = false;
  rank->kill_at_us = 0;
  observer_->RankEnded(key);
  LogInfo("executor ended", {{"job", key.job},
                             {"attempt", key.attempt},
                             {"rank", key.rank},
                             {"phase", PhaseName(PhaseFromProto(rank->progress.phase()))},
                             {"how", exit.how}});
  if (!rank->reported && !gang.stop_asked) {
    // Executors look at the time as often as this loop does: which of them sees the end first is chance.
    const absl::Status error = exit.lease_over
                                   ? LeaseOver()
                                   : MakeError(absl::StatusCode::kUnavailable, reason::kRankFailed,
                                               absl::StrCat("its executor ", exit.how));
    Fail(id, key.rank, error, !rank->killed);
    AbortGang(id, &gang, Annotate(error, absl::StrCat("rank ", key.rank, " failed")), kSiblingGraceUs);
  }
  // The coordinator need not wait for the lease of a daemon that is about to leave.
  if (gang.stop_asked || draining_) SendEvent(id, key.rank, v1::RankEvent::STOPPED, {});
  StartWaiting();
  ForgetOldGangs();
}

NodeAgent::Gang& NodeAgent::Know(const GangKey& key) {
  if (gangs_.count(key) == 0) gang_order_.push_back(key);
  return gangs_[key];
}

// One that runs for days does not keep the thousands that began and ended after it.
void NodeAgent::ForgetOldGangs() {
  const auto is_live = [](const auto& entry) { return entry.second.running || entry.second.waiting; };
  // The newest stays: what it was told a moment ago counts.
  for (size_t i = 0; gang_order_.size() > kGangsKept && i + 1 < gang_order_.size();) {
    const auto& ranks = gangs_.at(gang_order_[i]).ranks;
    if (std::any_of(ranks.begin(), ranks.end(), is_live)) {
      ++i;
      continue;
    }
    gangs_.erase(gang_order_[i]);
    gang_order_.erase(gang_order_.begin() + static_cast<int64_t>(i));
  }
}

void NodeAgent::OnDevicesChanged() {
  for (int device = 0; device < identity_.hello.devices_size(); ++device) {
    observer_->DeviceSetAside(device, gate_->StateOf(device) == DeviceGate::State::kSetAside);
  }
  // The coordinator hears of the device before it hears of ranks that cannot have it.
  if (welcomed_) SendHeartbeat(clock_->BootMicros());
  StartWaiting();
}

void NodeAgent::StartRank(const GangKey& key, int32_t index) {
  Rank& rank = gangs_[key].ranks[index];
  rank.waiting = false;
  const auto refuse = [&](const std::string& why) {
    Fail(key, index,
         MakeError(absl::StatusCode::kUnavailable, draining_ ? reason::kNodeDrained : reason::kRankFailed,
                   absl::StrCat("it cannot start: ", why)),
         true);
    if (draining_) SendEvent(key, index, v1::RankEvent::STOPPED, {});
  };
  if (draining_) return refuse("its worker was told to stop");
  if (rank.device < 0 || rank.device >= identity_.hello.devices_size()) {
    return refuse(absl::StrCat("it has no device ", rank.device));
  }
  GangKey holder_gang;
  if (const Rank* holder = HolderOf(rank.device, &holder_gang)) {
    if (holder->kill_at_us == 0) {
      return refuse(absl::StrCat("device ", rank.device, " is busy with ", holder_gang.first));
    }
    rank.waiting = true;  // the holder is on its way out
    return;
  }
  if (gate_->StateOf(rank.device) == DeviceGate::State::kChecking) {
    rank.waiting = true;  // not for long: it opens, or is set aside
    return;
  }
  if (gate_->StateOf(rank.device) == DeviceGate::State::kSetAside) {
    return refuse(absl::StrCat("device ", rank.device, " is set aside: ", gate_->WhySetAside(rank.device)));
  }
  v1::Run run;
  *run.mutable_start() = *rank.start;
  run.mutable_start()->clear_ranks();
  v1::StartRanks::Placement* placement = run.mutable_start()->add_ranks();
  placement->set_rank(index);
  placement->set_device(rank.device);
  run.set_node(identity_.hello.node());
  for (const auto& [name, path] : identity_.data_roots) {
    v1::Run::Root* root = run.add_data_roots();
    root->set_name(name);
    root->set_path(path);
  }
  *run.mutable_device() = identity_.hello.devices(rank.device);
  run.set_lease_deadline_us(lease_.deadline_us());

  const RankKey rank_key{key.first, key.second, index};
  if (const absl::Status started = host_->Start(rank_key, run); !started.ok()) {
    return refuse(std::string(started.message()));
  }
  rank.running = true;
  // Logs and metrics are of jobs.
  if (!rank.start->has_measure_link()) {
    logs_.Begin(rank_key, absl::StrCat(identity_.hello.node(), "/", rank.device));
    observer_->RankStarted(rank_key, rank.device, *rank.start);
  }
  LogInfo("rank started", {{"job", key.first},
                           {"attempt", key.second},
                           {"rank", index},
                           {"phase", PhaseName(PhaseFromProto(rank.progress.phase()))},
                           {"device", rank.device}});
  SendEvent(key, index, v1::RankEvent::STARTED, {});
}

const NodeAgent::Rank* NodeAgent::HolderOf(int32_t device, GangKey* gang) const {
  for (const auto& [key, candidate] : gangs_) {
    for (const auto& [index, rank] : candidate.ranks) {
      if (!rank.running || rank.device != device) continue;
      *gang = key;
      return &rank;
    }
  }
  return nullptr;
}

void NodeAgent::StartWaiting() {
  std::vector<RankKey> waiting;
  for (const auto& [key, gang] : gangs_) {
    for (const auto& [index, rank] : gang.ranks) {
      if (rank.waiting) waiting.push_back({key.first, key.second, index});
    }
  }
  for (const RankKey& key : waiting) StartRank({key.job, key.attempt}, key.rank);
}

// Also of gangs that were forgotten, or whose start was lost: the coordinator keeps their devices until it
// has been told that nothing of them is left. A stop of an attempt that is over is not obeyed, as nothing can
// be left to do, but answered all the same; one of a term that is over is not.
void NodeAgent::OnStop(const v1::StopGang& stop) {
  const GangKey key(stop.gang().job(), stop.gang().attempt());
  const bool obeyed = Admit("stop", stop.gang());
  if (stop.gang().term() < fence_.highest_term()) return;
  Gang& gang = Know(key);
  gang.stop_asked = true;
  std::set<int32_t> ranks(stop.ranks().begin(), stop.ranks().end());
  for (const auto& entry : gang.ranks) ranks.insert(entry.first);
  for (const int32_t rank : ranks) TellStopped(key, gang, rank);
  if (obeyed) {
    absl::Status why = StatusFromProto(stop.reason());
    if (why.ok())
      why = MakeError(absl::StatusCode::kCancelled, reason::kCancelled, "stopped, without a reason");
    AbortGang(key, &gang, why, kStopGraceUs);
  }
  ForgetOldGangs();
}

// Of one that has a process, its end tells.
void NodeAgent::TellStopped(const GangKey& key, const Gang& gang, int32_t rank) {
  const auto known = gang.ranks.find(rank);
  if (known != gang.ranks.end() && known->second.running) return;
  SendEvent(key, rank, v1::RankEvent::STOPPED, {});
}

void NodeAgent::AbortGang(const GangKey& key, Gang* gang, const absl::Status& reason, int64_t grace_us) {
  const int64_t now_us = clock_->BootMicros();
  v1::ToExecutor message;
  *message.mutable_abort()->mutable_reason() = StatusToProto(reason);
  for (auto& [index, rank] : gang->ranks) {
    if (rank.waiting) {
      rank.waiting = false;
      Fail(key, index, Annotate(reason, "never started"), false);
    }
    if (!rank.running) continue;
    if (!rank.reported) host_->Send({key.first, key.second, index}, message);
    const int64_t kill_at_us = now_us + grace_us;
    rank.kill_at_us = rank.kill_at_us == 0 ? kill_at_us : std::min(rank.kill_at_us, kill_at_us);
  }
}

void NodeAgent::StopByOwnDecision(const GangKey& key, Gang* gang, const absl::Status& reason) {
  AbortGang(key, gang, reason, kStopGraceUs);
  for (auto& [index, rank] : gang->ranks) {
    if (!rank.running) continue;
    Fail(key, index, reason, true);
  }
}

}  // namespace seqpar
