// The engine's side of links between nodes: a gang that measures one, while no job waits.
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/engine/engine.h"

namespace seqpar {
namespace {

// Figures of nodes that have not been what they were for so many ages are forgotten.
constexpr int kAgesKept = 4;

std::vector<LinkNode> LinkNodesOf(const std::map<std::string, NodeEntry>& nodes) {
  std::vector<LinkNode> found;
  for (const auto& [name, node] : nodes) {
    if (!node.known() || node.link_keys.empty()) continue;
    LinkNode link_node;
    link_node.name = name;
    link_node.idle = node.Ready() && node.busy.empty();
    const auto zone = node.hello.labels().find(kZoneLabel);
    if (zone != node.hello.labels().end()) link_node.zone = zone->second;
    for (size_t i = 0; i < node.devices.size(); ++i) {
      const int device = static_cast<int>(i);
      if (node.set_aside.count(device) != 0) continue;
      LinkNode::Kind& kind = link_node.kinds[node.devices[i].kind];
      kind.key = node.link_keys.at(node.devices[i].kind);
      kind.devices.push_back(device);
    }
    found.push_back(std::move(link_node));
  }
  return found;
}

absl::Status BadFigure() {
  return MakeError(absl::StatusCode::kInternal, reason::kInternal, "what was measured is no rate");
}

}  // namespace

void Engine::TickLinks() {
  if (!config_.links.on) return;
  const Now now = Time();
  // Whoever waits comes first, whatever it waits for: devices are given back at once, before it is known
  // which of them it gets.
  const bool wanted = scheduling_ || !queue_.turns().empty();
  if (wanted) quiet_since_us_ = now.boot_us;
  if (link_gang_) {
    if (wanted) {
      return EndLink(LinkOutcome::kInterrupted,
                     MakeError(absl::StatusCode::kCancelled, reason::kCancelled, "a job waits"));
    }
    if (const absl::Status trouble = LinkTrouble(); !trouble.ok()) {
      const bool drained = ReasonOf(trouble) == reason::kNodeDrained;
      EndLink(drained ? LinkOutcome::kInterrupted : LinkOutcome::kFailed, trouble);
    }
    return;
  }
  if (wanted || now.boot_us < quiet_since_us_ + config_.links.idle_us || !store_->has_reserve()) return;
  if (links_seen_version_ == registry_.version() && now.wall_us < links_due_us_) return;
  NextLink next = FindNextLink(LinkNodesOf(registry_.nodes()), registry_.links(), link_troubles_,
                               config_.links, now.wall_us);
  links_seen_version_ = registry_.version();
  links_due_us_ = next.look_again_us;
  if (next.wish) BeginLink(*std::move(next.wish));
}

absl::Status Engine::LinkTrouble() const {
  for (const auto& [name, stream] : link_streams_) {
    const NodeEntry* node = registry_.Find(name);
    if (node == nullptr || node->lost || node->stream != stream) {
      return MakeError(absl::StatusCode::kUnavailable, reason::kRankLost,
                       absl::StrCat("node ", name, " is not there any more"));
    }
    if (!node->Ready()) {
      return MakeError(absl::StatusCode::kUnavailable, reason::kNodeDrained,
                       absl::StrCat("node ", name, " takes no more ranks"));
    }
  }
  if (clock_->BootMicros() < link_gang_->deadline_us()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kDeadlineExceeded, reason::kNoProgress,
                   absl::StrCat("nothing was measured in ", config_.links.timeout_us / 1'000'000, " s"));
}

void Engine::BeginLink(LinkWish wish) {
  // A term is never used again, so neither is this.
  const std::string id = absl::StrCat("link-", term(), "-", ++links_begun_);
  link_gang_.emplace(id, std::move(wish), clock_->BootMicros() + config_.links.timeout_us);
  link_streams_.clear();
  std::map<std::string, v1::CoordinatorMessage> messages;
  for (size_t i = 0; i < link_gang_->ranks().size(); ++i) {
    const LinkGang::Rank& rank = link_gang_->ranks()[i];
    v1::StartRanks::Placement* placement = messages[rank.node].mutable_start()->add_ranks();
    placement->set_rank(static_cast<int>(i));
    placement->set_device(rank.device);
    link_streams_[rank.node] = registry_.Find(rank.node)->stream;
  }
  for (auto& [node, message] : messages) {
    v1::StartRanks* start = message.mutable_start();
    *start->mutable_gang() = IdOfLink();
    start->set_bootstrap_timeout_ms(config_.links.timeout_us / 1000);
    start->mutable_measure_link()->set_ranks(static_cast<int>(link_gang_->ranks().size()));
    start->mutable_measure_link()->set_seconds(config_.links.seconds);
    SendLater(node, std::move(message));
  }
}

v1::GangId Engine::IdOfLink() const {
  v1::GangId gang;
  gang.set_term(term());
  gang.set_job(link_gang_->id());
  gang.set_attempt(1);
  return gang;
}

bool Engine::IsOfLink(const v1::WorkerMessage& message) const {
  if (!link_gang_) return false;
  if (message.has_blob()) return message.blob().gang().job() == link_gang_->id();
  return message.has_event() && message.event().gang().job() == link_gang_->id();
}

void Engine::HandleLink(const std::string& node, const v1::WorkerMessage& message) {
  const int rank = message.has_blob() ? message.blob().rank() : message.event().rank();
  if (!link_gang_->Holds(node, rank)) return TurnAway(node);
  if (message.has_blob()) {
    const auto blobs = link_gang_->AddBlob(rank, message.blob().data());
    if (!blobs) return;
    v1::CoordinatorMessage answer;
    *answer.mutable_blobs()->mutable_gang() = IdOfLink();
    answer.mutable_blobs()->set_group(message.blob().group());
    for (const std::string& blob : *blobs) answer.mutable_blobs()->add_blobs(blob);
    for (const auto& [name, stream] : link_streams_) SendLater(name, answer);
    return;
  }
  const v1::RankEvent& event = message.event();
  if (event.kind() == v1::RankEvent::FAILED) {
    const absl::Status error = StatusFromProto(event.error());
    const bool drained = ReasonOf(error) == reason::kNodeDrained;
    return EndLink(drained ? LinkOutcome::kInterrupted : LinkOutcome::kFailed,
                   Annotate(error, absl::StrCat("rank ", rank, " on ", node)));
  }
  if (event.kind() != v1::RankEvent::FINISHED) return;
  const LinkRates rates = LinkFromProto(event.link());
  const auto good = [](double value) { return value > 0 && std::isfinite(value); };
  if (!good(rates.latency) || !good(rates.bandwidth)) return EndLink(LinkOutcome::kFailed, BadFigure());
  const std::optional<LinkRates> measured = link_gang_->AddResult(rank, rates);
  if (!measured) return;
  KeepLink(link_gang_->wish(), *measured);
  EndLink(LinkOutcome::kMeasured, absl::OkStatus());
}

void Engine::KeepLink(const LinkWish& wish, const LinkRates& rates) {
  const int64_t now_us = clock_->WallMicros();
  LinkTable links = registry_.links();
  links[wish.ends] = {wish.key, rates, now_us};
  for (auto it = links.begin(); it != links.end();) {
    const bool old = it->second.measured_us + kAgesKept * config_.links.age_us < now_us;
    it = old && !registry_.Holds(it->first, it->second) ? links.erase(it) : std::next(it);
  }
  batch_.settings[kLinksSetting] = LinksToText(links);
  registry_.SetLinks(std::move(links));
  LogInfo("link measured", {{"kind", wish.ends.kind},
                            {"node", wish.ends.a},
                            {"peer", wish.ends.b},
                            {"latency_us", rates.latency * 1e6},
                            {"gbytes", rates.bandwidth / 1e9}});
}

void Engine::EndLink(LinkOutcome outcome, const absl::Status& why) {
  const LinkEnds ends = link_gang_->wish().ends;
  if (outcome == LinkOutcome::kMeasured) link_troubles_.Succeeded(ends);
  if (outcome == LinkOutcome::kFailed) {
    link_troubles_.Failed(ends, config_.links, clock_->WallMicros());
    LogWarning("link not measured",
               {{"kind", ends.kind}, {"node", ends.a}, {"peer", ends.b}, {"error", why.message()}});
  }
  if (outcome != LinkOutcome::kMeasured) {
    std::map<std::string, v1::CoordinatorMessage> messages;
    for (size_t i = 0; i < link_gang_->ranks().size(); ++i) {
      messages[link_gang_->ranks()[i].node].mutable_stop()->add_ranks(static_cast<int>(i));
    }
    for (auto& [node, message] : messages) {
      *message.mutable_stop()->mutable_gang() = IdOfLink();
      *message.mutable_stop()->mutable_reason() = StatusToProto(why);
      SendLater(node, std::move(message));
    }
  }
  observer_->LinkEnded(ends, outcome);
  link_gang_.reset();
  link_streams_.clear();
  links_seen_version_ = 0;
}

}  // namespace seqpar
