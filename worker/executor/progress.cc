#include "worker/executor/progress.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "common/base/log.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(200);
constexpr auto kHoldPoll = std::chrono::milliseconds(20);

}  // namespace

Progress::Progress(std::vector<ExecutorHold> holds, std::function<void(const v1::RankProgress&)> send)
    : holds_(std::move(holds)), send_(std::move(send)), thread_([this] { Run(); }) {}

Progress::~Progress() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Progress::Enter(JobPhase phase) {
  {
    MutexLock lock(mutex_);
    phase_ = phase;
    steps_.fetch_add(1);
    entered_.emplace_back(phase, std::chrono::steady_clock::now());
    send_(Sample());
  }
  LogInfo("phase begins", {{"phase", PhaseName(phase)}});
  for (const ExecutorHold& hold : holds_) {
    if (hold.phase != PhaseName(phase)) continue;
    while (access(hold.file.c_str(), F_OK) == 0) std::this_thread::sleep_for(kHoldPoll);
  }
}

std::vector<v1::PhaseSeconds> Progress::Seconds() const {
  MutexLock lock(mutex_);
  return PhasesSoFar();
}

std::vector<v1::PhaseSeconds> Progress::PhasesSoFar() const {
  std::vector<v1::PhaseSeconds> all;
  for (size_t i = 0; i < entered_.size(); ++i) {
    const Time end = i + 1 < entered_.size() ? entered_[i + 1].second : std::chrono::steady_clock::now();
    v1::PhaseSeconds seconds;
    seconds.set_phase(PhaseName(entered_[i].first));
    seconds.set_seconds(std::chrono::duration<double>(end - entered_[i].second).count());
    all.push_back(seconds);
  }
  return all;
}

void Progress::Watch(ProgressSources sources) {
  MutexLock lock(mutex_);
  sources_ = std::move(sources);
}

void Progress::Measure(std::function<PassFigures()> figures) {
  MutexLock lock(mutex_);
  measure_ = std::move(figures);
}

void Progress::StopMeasuring() {
  MutexLock lock(mutex_);
  figures_ = measure_();
  measure_ = nullptr;
}

void Progress::Advance(const char* pass, int layers, double fraction) {
  pass_ = pass;
  layers_ = layers;
  fraction_ = fraction;
  steps_.fetch_add(1);
}

void Progress::Run() {
  MutexLock lock(mutex_);
  while (!stopping_) {
    const auto stopping = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_; };
    if (changed_.wait_for(mutex_, kInterval, stopping) || entered_.empty()) continue;
    send_(Sample());
  }
}

v1::RankProgress Progress::Sample() {
  v1::RankProgress sample;
  sample.set_phase(PhaseToProto(phase_));
  sample.set_pass(pass_);
  sample.set_layer(layers_);
  sample.set_percent(100 * fraction_);
  sample.set_waiting_for_rank(-1);
  int64_t steps = steps_;
  if (sources_.device != nullptr) {
    const MemoryUse memory = sources_.device->memory();
    sample.set_used_bytes(memory.used_bytes);
    sample.set_peak_bytes(memory.peak_bytes);
    // What completes inside a layer, or inside one long kernel, is progress too.
    steps += sources_.device->work_done();
  }
  for (const Communicator* group : sources_.groups) {
    const CommProgress progress = group->progress();
    steps += progress.finished;
    v1::GroupProgress* one = sample.add_groups();
    one->set_group(progress.group);
    one->set_entered(progress.entered);
    one->set_finished(progress.finished);
    if (progress.entered == progress.finished) continue;
    sample.set_waiting_group(progress.group);
    sample.set_collective(progress.entered);
    const auto ranks = sources_.world_ranks.find(progress.group);
    const int peer = progress.waiting_for_peer;
    if (peer < 0 || ranks == sources_.world_ranks.end() || peer >= static_cast<int>(ranks->second.size()))
      continue;
    sample.set_waiting_for_rank(ranks->second[peer]);
  }
  sample.set_step(steps);
  SampleTotals(sample.mutable_totals());
  return sample;
}

void Progress::SampleTotals(v1::RankTotals* totals) {
  for (v1::PhaseSeconds& phase : PhasesSoFar()) *totals->add_phases() = std::move(phase);
  const double fraction = fraction_;
  if (measure_ != nullptr) figures_ = measure_();
  if (fraction != sampled_fraction_) fraction_seconds_ = figures_.compute_seconds;
  sampled_fraction_ = fraction;
  totals->set_attention_seconds(figures_.attention_seconds);
  totals->set_product_seconds(figures_.product_seconds);
  totals->set_pointwise_seconds(figures_.pointwise_seconds);
  totals->set_other_seconds(figures_.compute_seconds - figures_.attention_seconds - figures_.product_seconds -
                            figures_.pointwise_seconds);
  totals->set_communication_exposed_seconds(figures_.exposed_seconds);
  totals->set_communication_hidden_seconds(figures_.hidden_seconds);
  const double own = std::max(0.0, fraction - sources_.done_before);
  totals->set_tokens(sources_.tokens * own);
  totals->set_flops(sources_.flops * own);
  totals->set_flops_seconds(fraction_seconds_);
  if (sources_.traffic == nullptr) return;
  for (const auto& [key, sent] : sources_.traffic->ByLink()) {
    v1::Traffic* traffic = totals->add_traffic();
    traffic->set_operation(OperationName(key.first));
    traffic->set_link(LinkName(key.second));
    traffic->set_bytes(sent.bytes);
    traffic->set_messages(sent.messages);
  }
}

}  // namespace seqpar
