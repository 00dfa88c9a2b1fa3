#include "worker/executor/trace_buffer.h"

namespace seqpar {
namespace {

constexpr const char* kTrackNames[] = {"compute", "communication", "phases"};

const char* KernelName(WorkKind kind) {
  switch (kind) {
    case WorkKind::kAttention:
      return "attention";
    case WorkKind::kProduct:
      return "products";
    case WorkKind::kPointwise:
      return "pointwise";
    case WorkKind::kOther:
      break;
  }
  return "other";
}

}  // namespace

void TraceBuffer::Add(Track track, const StreamSpan& span) {
  MutexLock lock(mutex_);
  const bool counted = *pass_ != '\0';
  if (!counted && span.end_ns - span.begin_ns < limits_.uncounted_min_ns) return;
  const bool compute = track == Track::kCompute;
  v1::TraceActivityKind kind = compute ? v1::TRACE_ACTIVITY_KIND_EXPOSED : v1::TRACE_ACTIVITY_KIND_IDLE;
  const char* name = compute ? "wait for communication" : "wait for compute";
  if (!span.waiting) {
    kind = compute ? v1::TRACE_ACTIVITY_KIND_COMPUTE : v1::TRACE_ACTIVITY_KIND_COMMUNICATION;
    name = span.name != nullptr ? span.name : KernelName(span.kind);
  }
  Keep(static_cast<int>(track), span.begin_ns, span.end_ns, kind, name);
}

void TraceBuffer::Keep(int track, int64_t begin_ns, int64_t end_ns, v1::TraceActivityKind kind,
                       const char* name) {
  const Activity activity(kind, name, phase_, pass_, layer_);
  const int index = activities_.try_emplace(activity, static_cast<int>(activities_.size())).first->second;
  if (track != kPhases && kept_ >= limits_.spans) {
    Dropped& dropped = dropped_[index];
    ++dropped.spans;
    dropped.duration_ns += end_ns - begin_ns;
    return;
  }
  if (track != kPhases) ++kept_;
  spans_[track].push_back({begin_ns, end_ns, index});
}

void TraceBuffer::EnterPhase(const char* phase, int64_t now_ns) {
  MutexLock lock(mutex_);
  EndPhase(now_ns);
  phase_ = phase;
}

void TraceBuffer::EndPhase(int64_t now_ns) {
  if (*phase_ != '\0' && now_ns > phase_begin_ns_) {
    const char* const pass = pass_;
    const int layer = layer_;
    pass_ = "";
    layer_ = -1;
    Keep(kPhases, phase_begin_ns_, now_ns, v1::TRACE_ACTIVITY_KIND_PHASE, phase_);
    pass_ = pass;
    layer_ = layer;
  }
  phase_begin_ns_ = now_ns;
}

void TraceBuffer::EnterLayer(const char* pass, int layer) {
  MutexLock lock(mutex_);
  pass_ = pass;
  layer_ = layer;
}

void TraceBuffer::LeaveLayer() { EnterLayer("", -1); }

int64_t TraceBuffer::pending() const {
  MutexLock lock(mutex_);
  int64_t spans = 0;
  for (const std::vector<Span>& track : spans_) spans += static_cast<int64_t>(track.size());
  return spans;
}

std::optional<v1::TraceChunk> TraceBuffer::Take(int64_t now_ns) {
  MutexLock lock(mutex_);
  EndPhase(now_ns);
  if (activities_.empty()) return std::nullopt;
  v1::TraceChunk chunk;
  chunk.set_number(chunks_++);
  std::vector<const Activity*> by_index(activities_.size());
  for (const auto& [activity, index] : activities_) by_index[index] = &activity;
  for (const Activity* activity : by_index) {
    const auto& [kind, name, phase, pass, layer] = *activity;
    v1::TraceActivity* out = chunk.add_activities();
    out->set_kind(kind);
    out->set_name(name);
    out->set_phase(phase);
    out->set_pass(pass);
    if (layer >= 0) out->set_layer(layer);
  }
  for (int t = 0; t < kTracks; ++t) {
    if (spans_[t].empty()) continue;
    v1::TraceTrack* track = chunk.add_tracks();
    track->set_name(kTrackNames[t]);
    track->set_base_ns(spans_[t].front().begin_ns + boot_offset_ns_);
    int64_t end_ns = spans_[t].front().begin_ns;
    for (const Span& span : spans_[t]) {
      track->add_gap_ns(span.begin_ns - end_ns);
      track->add_duration_ns(span.end_ns - span.begin_ns);
      track->add_activity(span.activity);
      end_ns = span.end_ns;
    }
    spans_[t].clear();
  }
  for (const auto& [index, dropped] : dropped_) {
    v1::TraceDropped* out = chunk.add_dropped();
    out->set_activity(index);
    out->set_spans(dropped.spans);
    out->set_duration_ns(dropped.duration_ns);
  }
  activities_.clear();
  dropped_.clear();
  return chunk;
}

}  // namespace seqpar
