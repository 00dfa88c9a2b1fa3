// The engine's side of nodes: streams, heartbeats and what ranks say.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "common/job/proto.h"
#include "coordinator/engine/engine.h"

namespace seqpar {
namespace {

// Several times what a worker makes.
constexpr size_t kTraceChunkBytesMax = 1 << 20;
constexpr size_t kBlobBytesMax = 1 << 20, kGroupNameBytesMax = 64;

bool IsTooLarge(const v1::Blob& blob) {
  return blob.data().size() > kBlobBytesMax || blob.group().size() > kGroupNameBytesMax;
}

}  // namespace

absl::Status Engine::OnHello(const v1::Hello& hello, int64_t stream, std::shared_ptr<NodeLink> link) {
  const int64_t received_us = clock_->BootMicros();
  const auto bytes = static_cast<int64_t>(hello.ByteSizeLong());
  SEQPAR_RETURN_IF_ERROR(backlog_.Enter(stream, bytes, false));
  Post([this, hello, stream, bytes, link = std::move(link), received_us] {
    backlog_.Leave(stream, bytes);
    HandleHello(hello, stream, link, received_us);
  });
  return absl::OkStatus();
}

absl::Status Engine::OnMessage(const std::string& node, int64_t stream, v1::WorkerMessage message) {
  const auto bytes = static_cast<int64_t>(message.ByteSizeLong());
  SEQPAR_RETURN_IF_ERROR(backlog_.Enter(stream, bytes, message.has_heartbeat()));
  // Counted here, so that a busy engine never makes a lease run out. The answer comes from the engine, after
  // all that arrived before it is durable: workers forget what an answered heartbeat covers.
  std::optional<int64_t> left_us;  // of the lease, as it was
  const int64_t received_us = clock_->BootMicros();
  if (message.has_heartbeat()) left_us = leases_.Extend(node, stream, received_us);
  if (left_us) observer_->LeaseExtended(node, *left_us);
  auto shared = std::make_shared<v1::WorkerMessage>(std::move(message));
  Post([this, node, stream, bytes, extended = left_us.has_value(), received_us, shared] {
    backlog_.Leave(stream, bytes);
    const NodeEntry* entry = registry_.Find(node);
    if (entry == nullptr || entry->stream != stream) return;  // of a stream that was replaced
    if (shared->has_heartbeat() && !extended) return;         // too late: Tick will say so
    HandleMessage(node, *shared, received_us);
  });
  return absl::OkStatus();
}

void Engine::OnBroken(const std::string& node, int64_t stream) {
  Post([this, node, stream] {
    const NodeEntry* known = registry_.Find(node);
    if (known == nullptr || known->stream != stream) return;
    // The lease decides when the node is lost; until then the worker may come back.
    LogWarning("stream to node broken", {{"node", node}});
    NodeEntry* entry = registry_.Change(node);
    entry->link = nullptr;
    entry->stream = 0;
    for (auto& [query, asked] : log_queries_) {
      if (const auto collector = asked.first.lock()) collector->GiveUp(node);
    }
  });
}

void Engine::ForgetNodes(int64_t now_us) {
  const std::vector<std::string> due = forget_.TakeDue(now_us);
  for (const std::string& name : due) {
    const NodeEntry* node = registry_.Find(name);
    if (node == nullptr) continue;
    if (!node->busy.empty()) {  // of a job that ends without it, such as one whose output is on its way
      forget_.Set(name, now_us + config_.forget_us);
      continue;
    }
    LogInfo("lost node forgotten", {{"node", name}});
    if (store_->restored() && node->known()) forgotten_.insert(name);
    registry_.Forget(name);
    link_troubles_.Forget(name);
    schedule_ = true;
  }
  if (!due.empty()) ForgetLinks();
}

// By now every node that is not known here has been away for as long: a lost one since then, any other since
// this process began.
void Engine::ForgetLinks() {
  LinkTable links = registry_.links();
  const size_t before = links.size();
  for (auto it = links.begin(); it != links.end();) {
    it = registry_.Knows(it->first.a) && registry_.Knows(it->first.b) ? std::next(it) : links.erase(it);
  }
  if (links.size() == before) return;
  batch_.settings[kLinksSetting] = LinksToText(links);
  registry_.SetLinks(std::move(links));
}

// The store came from a backup: of its time are terms that workers have seen later ones of.
void Engine::RaiseTerm(const v1::Hello& hello) {
  if (const absl::Status raised = store_->RaiseTerm(hello.highest_term()); !raised.ok()) {
    return LogError("the term cannot be raised", {{"error", raised.message()}});
  }
  LogWarning("the store was restored, and a worker has seen a later term: going above it",
             {{"node", hello.node()}, {"seen", hello.highest_term()}, {"term", term()}});
}

void Engine::HandleHello(const v1::Hello& hello, int64_t stream, const std::shared_ptr<NodeLink>& link,
                         int64_t received_us) {
  const NodeEntry* known = registry_.Find(hello.node());
  const bool told_here = (known != nullptr && known->known()) || forgotten_.count(hello.node()) != 0;
  if (store_->restored() && hello.highest_term() >= term() + (told_here ? 1 : 0)) RaiseTerm(hello);
  if (hello.highest_term() > term()) {
    return link->Close(absl::FailedPreconditionError(
        absl::StrCat("this coordinator's term ", term(), " is below ", hello.highest_term(),
                     ", which the worker has seen: its state folder is not the latest")));
  }
  if (const NodeEntry* earlier = registry_.Find(hello.node());
      earlier != nullptr && earlier->link != nullptr) {
    LogWarning("node attached again: its earlier stream is closed", {{"node", hello.node()}});
    earlier->link->Close(MakeError(absl::StatusCode::kAborted, reason::kRankLost,
                                   absl::StrCat("another worker attached as ", hello.node())));
  }
  leases_.Grant(hello.node(), stream, received_us);
  forget_.Set(hello.node(), Alarms::kNever);
  registry_.Attach(hello, link, stream, clock_->WallMicros());
  schedule_ = true;
  settled_us_ = received_us + config_.lease_us;
  quiet_since_us_ = received_us;
  LogInfo("node attached", {{"node", hello.node()},
                            {"devices", hello.devices_size()},
                            {"running", hello.running_size()},
                            {"version", hello.version()}});
  v1::CoordinatorMessage message;
  v1::Welcome* welcome = message.mutable_welcome();
  welcome->set_term(term());
  welcome->set_heartbeat_ms(config_.heartbeat_us / 1000);
  welcome->set_lease_ms(config_.lease_us / 1000);
  welcome->set_version(kVersion);
  std::map<std::string, std::set<int>> running;  // of current attempts, by job
  for (const v1::RunningRank& rank : hello.running()) {
    const auto found = live_.find(rank.gang().job());
    if (found == live_.end() || found->second.attempt != rank.gang().attempt() ||
        !found->second.HoldsGang()) {
      LogWarning("a rank of no attempt that is known is stopped", {{"node", hello.node()},
                                                                   {"job", rank.gang().job()},
                                                                   {"attempt", rank.gang().attempt()},
                                                                   {"rank", rank.rank()}});
      continue;
    }
    if (running[found->first].empty() && found->second.stage != Stage::kStopping) {
      *welcome->add_keep() = IdOf(found->second);
    }
    running[found->first].insert(rank.rank());
  }
  SendLater(hello.node(), std::move(message));
  for (const auto& [job, attempt] : hello.highest_attempts()) Apply(job, event::AttemptSeen{attempt});
  if (hello.draining()) ApplyToHolders(event::NodeDrains{hello.node()});
  for (const std::string& job : Holders()) {
    Apply(job, event::NodeAttached{hello.node(), hello.incarnation(), running[job]});
  }
}

bool Engine::IsElsewhere(const std::string& node, const v1::GangId& gang, int rank) const {
  const auto found = live_.find(gang.job());
  if (found == live_.end() || found->second.attempt != gang.attempt() || !found->second.HoldsGang()) {
    return false;  // of the past: the job's machine does not listen
  }
  const std::vector<RankRecord>& ranks = found->second.ranks;
  return rank < 0 || rank >= static_cast<int>(ranks.size()) || ranks[rank].node != node;
}

bool Engine::SpeaksForItself(const std::string& node, const v1::WorkerMessage& message) const {
  switch (message.message_case()) {
    case v1::WorkerMessage::kHeartbeat:
      for (const v1::RankProgress& progress : message.heartbeat().ranks()) {
        if (IsElsewhere(node, progress.gang(), progress.rank())) return false;
      }
      return true;
    case v1::WorkerMessage::kBlob:
      return !IsElsewhere(node, message.blob().gang(), message.blob().rank());
    case v1::WorkerMessage::kEvent:
      return !IsElsewhere(node, message.event().gang(), message.event().rank());
    case v1::WorkerMessage::kTrace:
      return !IsElsewhere(node, message.trace().gang(), message.trace().chunk().rank());
    default:
      return true;
  }
}

void Engine::TurnAway(const std::string& node) {
  LogError("a node spoke for a rank that it does not hold: its stream is closed", {{"node", node}});
  NodeLink* link = registry_.LinkOf(node);
  if (link == nullptr) return;  // the coordinator is shutting down
  link->Close(MakeError(absl::StatusCode::kPermissionDenied, reason::kPermissionDenied,
                        absl::StrCat("node ", node, " does not hold the rank that it speaks for")));
}

void Engine::HandleMessage(const std::string& node, const v1::WorkerMessage& message, int64_t received_us) {
  if (!SpeaksForItself(node, message)) return TurnAway(node);
  if (message.has_blob() && IsTooLarge(message.blob())) {
    return LogWarning("a blob is too large and is not relayed",
                      {{"node", node}, {"bytes", message.blob().data().size()}});
  }
  if (IsOfLink(message)) return HandleLink(node, message);
  switch (message.message_case()) {
    case v1::WorkerMessage::kHeartbeat: {
      // Who was told to stop does not take it back: ranks that end for it cost their jobs no attempt.
      if (message.heartbeat().draining() && !registry_.Find(node)->draining_itself) {
        schedule_ = true;
        registry_.Change(node)->draining_itself = true;
        ApplyToHolders(event::NodeDrains{node});
      }
      HandleSetAside(node, message.heartbeat());
      for (const v1::RankProgress& progress : message.heartbeat().ranks()) {
        Apply(progress.gang().job(), event::RankProgressed{progress.gang().attempt(), progress});
      }
      v1::CoordinatorMessage answer;
      answer.mutable_heartbeat()->set_sequence(message.heartbeat().sequence());
      answer.mutable_heartbeat()->set_term(term());
      answer.mutable_heartbeat()->set_heartbeat_sent_us(message.heartbeat().sent_us());
      answer.mutable_heartbeat()->set_received_us(received_us);
      return SendLater(node, std::move(answer));
    }
    case v1::WorkerMessage::kBlob: {
      const v1::Blob& blob = message.blob();
      return Apply(blob.gang().job(),
                   event::BlobArrived{blob.gang().attempt(), blob.rank(), blob.group(), blob.data()});
    }
    case v1::WorkerMessage::kEvent:
      return HandleEvent(message.event());
    case v1::WorkerMessage::kLogs: {
      const auto found = log_queries_.find(message.logs().query());
      if (found == log_queries_.end()) return;
      const auto collector = found->second.first.lock();
      if (collector != nullptr && !collector->Add(node, message.logs())) TurnAway(node);
      return;
    }
    case v1::WorkerMessage::kTrace:
      return HandleTrace(node, message.trace());
    case v1::WorkerMessage::kHello:
    case v1::WorkerMessage::MESSAGE_NOT_SET:
      return LogWarning("a message that does not belong here", {{"node", node}});
  }
}

void Engine::HandleSetAside(const std::string& name, const v1::Heartbeat& heartbeat) {
  const NodeEntry* node = registry_.Find(name);
  const std::map<int, std::string> before = node->set_aside;
  if (!registry_.SetAside(name, heartbeat.set_aside())) return;
  schedule_ = true;
  for (const auto& [device, why] : node->set_aside) {
    if (before.count(device) != 0) continue;
    LogWarning("device set aside", {{"node", name}, {"device", device}, {"why", why}});
  }
  for (const auto& entry : before) {
    if (node->set_aside.count(entry.first) != 0) continue;
    LogInfo("device is back", {{"node", name}, {"device", entry.first}});
  }
}

void Engine::HandleTrace(const std::string& node, const v1::RankTrace& trace) {
  const auto found = live_.find(trace.gang().job());
  if (found == live_.end()) return;
  const int attempt = trace.gang().attempt();
  const int rank = trace.chunk().rank();
  const std::vector<AttemptRecord>& attempts = found->second.attempts;
  const auto held = std::find_if(attempts.begin(), attempts.end(), [&](const AttemptRecord& a) {
    return a.attempt == attempt && rank >= 0 && rank < static_cast<int>(a.devices.size()) &&
           absl::StartsWith(a.devices[rank], node + "/");
  });
  if (held == attempts.end()) {
    return LogWarning("a piece of a trace is of a rank that its node never held",
                      {{"node", node}, {"job", found->first}, {"attempt", attempt}, {"rank", rank}});
  }
  std::string chunk = trace.chunk().SerializeAsString();
  if (chunk.size() > kTraceChunkBytesMax) {
    return LogWarning("a piece of a trace is too large and is not kept",
                      {{"node", node}, {"job", found->first}, {"bytes", chunk.size()}});
  }
  batch_.traces.push_back({found->first, attempt, rank, trace.chunk().number(), std::move(chunk)});
}

void Engine::HandleEvent(const v1::RankEvent& event) {
  const std::string& job = event.gang().job();
  const int attempt = event.gang().attempt();
  switch (event.kind()) {
    case v1::RankEvent::STARTED:
      return Apply(job, event::RankStarted{attempt, event.rank()});
    case v1::RankEvent::FINISHED:
      return Apply(job, event::RankFinished{attempt, event.rank(), event});
    case v1::RankEvent::FAILED: {
      absl::Status error = StatusFromProto(event.error());
      if (error.ok()) {
        error = MakeError(absl::StatusCode::kUnknown, reason::kRankFailed, "its worker gave no error");
      }
      const JobPhase phase =
          event.phase() == v1::JOB_PHASE_UNSPECIFIED ? JobPhase::kBootstrap : PhaseFromProto(event.phase());
      LogWarning("rank failed", {{"job", job},
                                 {"attempt", attempt},
                                 {"rank", event.rank()},
                                 {"phase", PhaseName(phase)},
                                 {"root_cause", event.root_cause()},
                                 {"error", error.message()}});
      return Apply(job, event::RankFailed{attempt, event.rank(), error, event.root_cause(), phase});
    }
    case v1::RankEvent::CHECKPOINTED:
      return Apply(job, event::RankCheckpointed{attempt, event.rank(), event.layers()});
    case v1::RankEvent::STOPPED:
      return Apply(job, event::RankStopped{attempt, event.rank()});
    default:
      return LogWarning("a rank event of an unknown kind", {{"job", job}, {"rank", event.rank()}});
  }
}

}  // namespace seqpar
