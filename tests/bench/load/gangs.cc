#include "tests/bench/load/gangs.h"

#include <algorithm>
#include <functional>
#include <set>

namespace seqpar::load {
namespace {

constexpr int kBlobBytes = 512;  // about what a UCX worker address has
constexpr int kLayers = 32;

std::chrono::duration<double> Fraction(double seconds, const std::string& job) {
  // The same on every node of a gang.
  return std::chrono::duration<double>(
      seconds * (0.5 + static_cast<double>(std::hash<std::string>()(job) % 1000) / 1000));
}

}  // namespace

v1::WorkerMessage Gangs::Event(const Gang& gang, int rank, v1::RankEvent::Kind kind) {
  v1::WorkerMessage message;
  *message.mutable_event()->mutable_gang() = gang.id;
  message.mutable_event()->set_rank(rank);
  message.mutable_event()->set_kind(kind);
  return message;
}

std::vector<v1::WorkerMessage> Gangs::Start(const v1::StartRanks& start, int64_t* ranks) {
  Gang& gang = gangs_[KeyOf(start.gang())];
  gang.id = start.gang();
  std::vector<v1::WorkerMessage> messages;
  for (const v1::StartRanks::Placement& placement : start.ranks()) {
    if (!gang.devices.emplace(placement.rank(), placement.device()).second) continue;  // told again
    ++*ranks;
    AppendStarted(gang, placement.rank(), &messages);
  }
  return messages;
}

void Gangs::AppendStarted(const Gang& gang, int rank, std::vector<v1::WorkerMessage>* messages) {
  messages->push_back(Event(gang, rank, v1::RankEvent::STARTED));
  v1::WorkerMessage blob;
  *blob.mutable_blob()->mutable_gang() = gang.id;
  blob.mutable_blob()->set_group("world");
  blob.mutable_blob()->set_rank(rank);
  blob.mutable_blob()->set_data(std::string(kBlobBytes, 'b'));
  messages->push_back(std::move(blob));
}

std::vector<v1::WorkerMessage> Gangs::Stop(const v1::StopGang& stop, int64_t* ranks) {
  Gang gang;
  gang.id = stop.gang();
  std::vector<v1::WorkerMessage> messages;
  for (const int rank : stop.ranks()) messages.push_back(Event(gang, rank, v1::RankEvent::STOPPED));
  if (const auto known = gangs_.find(KeyOf(stop.gang())); known != gangs_.end()) {
    *ranks += static_cast<int64_t>(known->second.devices.size());
    gangs_.erase(known);
  }
  return messages;
}

void Gangs::Meet(const v1::GangId& id) {
  const auto found = gangs_.find(KeyOf(id));
  if (found == gangs_.end() || found->second.met) return;
  Gang& gang = found->second;
  gang.met = true;
  gang.begin = SteadyClock::now();
  gang.end = gang.begin + std::chrono::duration_cast<SteadyClock::duration>(Fraction(job_seconds_, id.job()));
}

void Gangs::AppendFinished(const Gang& gang, std::vector<v1::WorkerMessage>* messages) {
  for (const auto& [rank, device] : gang.devices) {
    v1::WorkerMessage message = Event(gang, rank, v1::RankEvent::FINISHED);
    v1::RankReport* report = message.mutable_event()->mutable_report();
    report->set_rank(rank);
    report->set_execute_seconds(1);
    report->set_compute_seconds(0.5);
    messages->push_back(std::move(message));
  }
}

std::vector<v1::WorkerMessage> Gangs::Finish(int64_t covered_by, int64_t* ranks) {
  std::vector<v1::WorkerMessage> messages;
  const TimePoint now = SteadyClock::now();
  for (auto& [key, gang] : gangs_) {
    if (!gang.met || gang.finished || now < gang.end) continue;
    gang.finished = true;
    gang.covered_by = covered_by;
    *ranks += static_cast<int64_t>(gang.devices.size());
    AppendFinished(gang, &messages);
  }
  return messages;
}

void Gangs::Confirm(int64_t heartbeat) {
  for (auto it = gangs_.begin(); it != gangs_.end();) {
    const Gang& gang = it->second;
    it = gang.finished && gang.covered_by <= heartbeat ? gangs_.erase(it) : std::next(it);
  }
}

void Gangs::AddRunning(v1::Hello* hello) const {
  for (const auto& [key, gang] : gangs_) {
    for (const auto& [rank, device] : gang.devices) {
      v1::RunningRank* running = hello->add_running();
      *running->mutable_gang() = gang.id;
      running->set_rank(rank);
      running->set_device(device);
    }
  }
}

void Gangs::AddProgress(v1::Heartbeat* heartbeat) {
  const TimePoint now = SteadyClock::now();
  for (auto& [key, gang] : gangs_) {
    if (gang.finished) continue;
    ++gang.step;
    const double percent = gang.met
                               ? std::min(100.0, 100.0 * std::chrono::duration<double>(now - gang.begin) /
                                                     std::chrono::duration<double>(gang.end - gang.begin))
                               : 0;
    for (const auto& [rank, device] : gang.devices) {
      v1::RankProgress* progress = heartbeat->add_ranks();
      *progress->mutable_gang() = gang.id;
      progress->set_rank(rank);
      progress->set_phase(gang.met ? v1::JOB_PHASE_EXECUTE : v1::JOB_PHASE_BOOTSTRAP);
      progress->set_layer(static_cast<int>(percent * kLayers / 100));
      progress->set_pass("forward");
      progress->set_step(gang.step);
      progress->set_waiting_for_rank(-1);
      progress->set_used_bytes(int64_t{40} << 30);
      progress->set_peak_bytes(int64_t{60} << 30);
      progress->set_percent(percent);
      v1::GroupProgress* group = progress->add_groups();
      group->set_group("world");
      group->set_entered(gang.step);
      group->set_finished(gang.step);
      progress->mutable_totals()->set_attention_seconds(static_cast<double>(gang.step));
      progress->mutable_totals()->set_tokens(percent);
    }
  }
}

std::vector<v1::WorkerMessage> Gangs::Keep(const v1::Welcome& welcome, int64_t* ranks) {
  std::set<Key> keep;
  for (const v1::GangId& id : welcome.keep()) keep.insert(KeyOf(id));
  std::vector<v1::WorkerMessage> messages;
  for (auto it = gangs_.begin(); it != gangs_.end();) {
    if (keep.count(it->first) == 0) {
      it = gangs_.erase(it);
      continue;
    }
    Gang& gang = it->second;
    gang.id.set_term(welcome.term());
    gang.covered_by = 0;  // the next answer on this stream confirms what is told again now
    *ranks += static_cast<int64_t>(gang.devices.size());
    for (const auto& [rank, device] : gang.devices) {
      if (!gang.met) AppendStarted(gang, rank, &messages);
    }
    if (gang.finished) AppendFinished(gang, &messages);
    ++it;
  }
  return messages;
}

}  // namespace seqpar::load
