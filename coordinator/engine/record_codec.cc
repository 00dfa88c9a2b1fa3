#include "coordinator/engine/record_codec.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/saturate.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/store/stored.pb.h"

namespace seqpar {
namespace {

void SetTime(int64_t us, google::protobuf::Timestamp* time) {
  time->set_seconds(us / 1'000'000);
  time->set_nanos(static_cast<int32_t>(us % 1'000'000) * 1000);
}

int64_t TimeUs(const google::protobuf::Timestamp& time) {
  const int64_t seconds =
      std::clamp<int64_t>(time.seconds(), -kMicrosMax / 1'000'000, kMicrosMax / 1'000'000);
  return seconds * 1'000'000 + time.nanos() / 1000;
}

void SetProgress(const JobRecord& record, int64_t boot_us, v1::Progress* progress) {
  progress->set_layers(record.spec.config.layers);
  if (record.state == JobState::kSucceeded) {
    progress->set_layer(record.spec.config.layers);
    progress->set_percent(100);
    return;
  }
  if (const RankRecord* slowest = record.Slowest(); slowest != nullptr) {
    progress->set_layer(slowest->layer);
    progress->set_pass(slowest->pass);
    progress->set_step(slowest->step);
  }
  const double percent = record.Percent();
  progress->set_percent(percent);
  const double done = percent - record.pace_begin_percent;
  if (record.pace_begin_us == 0 || done < 1 || percent >= 100) return;
  // What the work up to here took says what the rest takes; since then that much of it has passed.
  const int64_t moved_us = std::max(record.percent_us, record.pace_begin_us);
  const double took = static_cast<double>(moved_us - record.pace_begin_us) / 1e6;
  const double since = static_cast<double>(boot_us - moved_us) / 1e6;
  progress->set_seconds_left(std::max(0.0, took * (100 - percent) / done - since));
}

// The view's fields from `id` on, back into a record.
void ReadView(const v1::Job& view, JobRecord* record) {
  record->spec = JobFromProto(view);
  record->id = view.id();
  record->tenant = view.tenant();
  record->state = StateFromProto(view.state());
  record->phase = PhaseFromProto(view.phase());
  record->attempt = view.attempt();
  record->reason = view.reason();
  record->create_us = TimeUs(view.create_time());
  record->start_us = view.has_start_time() ? TimeUs(view.start_time()) : 0;
  record->end_us = view.has_end_time() ? TimeUs(view.end_time()) : 0;
  if (view.has_error()) record->error = StatusFromProto(view.error());
  for (const v1::AttemptInfo& info : view.attempts()) {
    AttemptRecord attempt;
    attempt.attempt = info.attempt();
    attempt.start_us = TimeUs(info.start_time());
    attempt.end_us = info.has_end_time() ? TimeUs(info.end_time()) : 0;
    attempt.mesh = info.mesh();
    attempt.devices = {info.devices().begin(), info.devices().end()};
    if (info.has_error()) attempt.error = StatusFromProto(info.error());
    attempt.consequences = {info.consequences().begin(), info.consequences().end()};
    attempt.not_counted = info.not_counted();
    attempt.first_layer = info.first_layer();
    record->attempts.push_back(std::move(attempt));
  }
  record->revision = view.revision();
}

absl::Status Damaged(const JobRow& row, const char* what) {
  return MakeError(absl::StatusCode::kInternal, reason::kStorage,
                   absl::StrCat("job store: ", what, " of ", row.id, " cannot be read"));
}

constexpr int kAttemptMax = 1 << 30;  // far from the end of the type: the next one is one more
constexpr int kExcusesMax = 1 << 10;  // far above what a node may have: all of them are added up

// What the job's machine relies on and no message says by itself.
absl::Status CheckRecord(const JobRow& row, const stored::Job& body) {
  const v1::Job& view = body.view();
  if (body.stage() < 0 || body.stage() > static_cast<int>(Stage::kEnded)) return Damaged(row, "the stage");
  for (const int count : {view.attempt(), body.attempt_floor(), body.failures(), body.same_failures(),
                          body.checkpoint_layers(), body.checkpoint_attempt()}) {
    if (count < 0 || count > kAttemptMax) return Damaged(row, "the attempts");
  }
  for (const auto& [node, times] : body.excuses()) {
    if (times < 0 || times > kExcusesMax) return Damaged(row, "the attempts");
  }
  // Counts of rows are products of these.
  for (const int64_t extent : {view.input().tokens(), view.input().batch()}) {
    if (extent < 0 || extent > std::numeric_limits<int32_t>::max()) return Damaged(row, "the input");
  }
  // Masks are made of these without another look.
  int64_t tokens = 0;
  for (const int64_t length : view.mask().documents()) {
    if (length < 1 || length > view.input().tokens() - tokens) return Damaged(row, "the mask");
    tokens += length;
  }
  const bool window = view.mask().kind() == v1::MASK_KIND_WINDOW;
  if ((tokens != 0 && tokens != view.input().tokens()) ||
      (window && (view.mask().left() < -1 || view.mask().right() < -1))) {
    return Damaged(row, "the mask");
  }
  for (const stored::Rank& rank : body.ranks()) {
    if (rank.state() < 0 || rank.state() > static_cast<int>(RankState::kFailed))
      return Damaged(row, "a rank");
  }
  return absl::OkStatus();
}

absl::Status ReadAttempt(const JobRow& row, const stored::Job& body, const StoredAttempt& attempt,
                         JobRecord* record) {
  v1::Plan plan;
  if (!plan.ParseFromString(attempt.plan)) return Damaged(row, "the plan");
  absl::StatusOr<Plan> read = PlanFromProto(plan);
  if (!read.ok()) return Annotate(read.status(), absl::StrCat("job store: ", row.id));
  record->plan = *std::move(read);
  if (body.ranks_size() != static_cast<int>(record->plan.ranks.size())) return Damaged(row, "the ranks");
  if (record->attempts.empty() || record->attempts.back().attempt != record->attempt) {
    return Damaged(row, "the attempts");
  }
  record->ranks.resize(body.ranks_size());
  for (int i = 0; i < body.ranks_size(); ++i) {
    RankRecord& rank = record->ranks[i];
    rank.node = record->plan.ranks[i].node;
    rank.device = record->plan.ranks[i].device;
    rank.threads = body.ranks(i).threads();
    rank.incarnation = body.ranks(i).incarnation();
    rank.state = static_cast<RankState>(body.ranks(i).state());
    rank.gone = body.ranks(i).gone();
    rank.phase = PhaseFromProto(body.ranks(i).phase());
    const auto result = attempt.results.find(i);
    if (result != attempt.results.end() && !rank.result.ParseFromString(result->second)) {
      return Damaged(row, "a rank's result");
    }
  }
  record->blobs = attempt.blobs;
  return absl::OkStatus();
}

}  // namespace

v1::Job ViewOf(const JobRecord& record, int64_t boot_us) {
  v1::Job job = JobToProto(record.spec);
  job.set_id(record.id);
  job.set_tenant(record.tenant);
  job.set_state(StateToProto(record.state));
  job.set_phase(PhaseToProto(record.phase));
  job.set_attempt(record.attempt);
  job.set_reason(record.reason);
  SetProgress(record, boot_us, job.mutable_progress());
  SetTime(record.create_us, job.mutable_create_time());
  if (record.start_us != 0) SetTime(record.start_us, job.mutable_start_time());
  if (record.end_us != 0) SetTime(record.end_us, job.mutable_end_time());
  if (!record.error.ok()) *job.mutable_error() = StatusToProto(record.error);
  for (const AttemptRecord& attempt : record.attempts) {
    v1::AttemptInfo* info = job.add_attempts();
    info->set_attempt(attempt.attempt);
    SetTime(attempt.start_us, info->mutable_start_time());
    if (attempt.end_us != 0) SetTime(attempt.end_us, info->mutable_end_time());
    info->set_mesh(attempt.mesh);
    for (const std::string& device : attempt.devices) info->add_devices(device);
    if (!attempt.error.ok()) *info->mutable_error() = StatusToProto(attempt.error);
    for (const std::string& consequence : attempt.consequences) info->add_consequences(consequence);
    info->set_not_counted(attempt.not_counted);
    info->set_first_layer(attempt.first_layer);
  }
  job.set_revision(record.revision);
  if (record.report && record.ended()) *job.mutable_report() = *record.report;
  return job;
}

JobRow RowOf(const JobRecord& record, int64_t boot_us) {
  stored::Job body;
  *body.mutable_view() = ViewOf(record, boot_us);
  JobRow row;
  if (body.view().has_report()) row.report = body.view().report().SerializeAsString();
  body.mutable_view()->clear_report();
  for (const auto& [path, print] : record.inputs) {
    stored::File& file = (*body.mutable_inputs())[path];
    file.set_inode(print.inode);
    file.set_bytes(print.bytes);
    file.set_mtime_ns(print.mtime_ns);
  }
  body.set_ignored_tensors(record.ignored_tensors);
  body.set_fits(record.fits);
  body.set_stage(static_cast<int>(record.stage));
  body.set_failures(record.failures);
  body.set_attempt_floor(record.attempt_floor);
  body.set_cancel_requested(record.cancel_requested);
  for (const RankRecord& rank : record.ranks) {
    stored::Rank* stored = body.add_ranks();
    stored->set_threads(rank.threads);
    stored->set_incarnation(rank.incarnation);
    stored->set_state(static_cast<int>(rank.state));
    stored->set_gone(rank.gone);
    stored->set_phase(PhaseToProto(rank.phase));
  }
  if (!record.cause.ok()) *body.mutable_cause() = StatusToProto(record.cause);
  body.set_cause_is_root(record.cause_is_root);
  body.set_not_counted(record.not_counted);
  body.set_checkpoint_layers(record.checkpoint_layers);
  body.set_checkpoint_attempt(record.checkpoint_attempt);
  body.set_checkpoints(record.checkpoints);
  body.set_failure(record.failure);
  body.set_last_failure(record.last_failure);
  body.set_same_failures(record.same_failures);
  body.set_last_failure_layers(record.last_failure_layers);
  body.set_staged_inode(record.staged_inode);
  *body.mutable_excuses() = {record.excuses.begin(), record.excuses.end()};
  body.set_excused_node(record.excused_node);
  for (const std::string& consequence : record.consequences) body.add_consequences(consequence);
  for (const std::string& device : record.avoided) body.add_avoided(device);
  row.sequence = record.sequence;
  row.id = record.id;
  row.request_id = record.request_id;
  row.tenant = record.tenant;
  row.state = static_cast<int>(record.state);
  row.live = !record.ended() || record.LeavesStaging();
  row.priority = record.spec.priority;
  row.create_us = record.create_us;
  row.end_us = record.end_us;
  row.revision = record.revision;
  row.body = body.SerializeAsString();
  return row;
}

absl::StatusOr<v1::Job> ViewOfRow(const JobRow& row) {
  stored::Job body;
  if (!body.ParseFromString(row.body)) return Damaged(row, "the record");
  v1::Job job = std::move(*body.mutable_view());
  if (!row.report.empty() && !job.mutable_report()->ParseFromString(row.report))
    return Damaged(row, "the report");
  return job;
}

absl::StatusOr<JobRecord> RecordOf(const JobRow& row, const StoredAttempt& attempt) {
  stored::Job body;
  if (!body.ParseFromString(row.body)) return Damaged(row, "the record");
  SEQPAR_RETURN_IF_ERROR(CheckRecord(row, body));
  JobRecord record;
  ReadView(body.view(), &record);
  record.sequence = row.sequence;
  record.request_id = row.request_id;
  for (const auto& [path, file] : body.inputs()) {
    record.inputs[path] = {file.inode(), file.bytes(), file.mtime_ns()};
  }
  record.ignored_tensors = body.ignored_tensors();
  record.fits = body.fits();
  record.stage = static_cast<Stage>(body.stage());
  record.failures = body.failures();
  record.attempt_floor = body.attempt_floor();
  record.cancel_requested = body.cancel_requested();
  if (body.has_cause()) record.cause = StatusFromProto(body.cause());
  record.cause_is_root = body.cause_is_root();
  record.not_counted = body.not_counted();
  record.checkpoint_layers = body.checkpoint_layers();
  record.checkpoint_attempt = body.checkpoint_attempt();
  record.checkpoints = body.checkpoints();
  record.failure = body.failure();
  record.last_failure = body.last_failure();
  record.same_failures = body.same_failures();
  record.last_failure_layers = body.last_failure_layers();
  record.staged_inode = body.staged_inode();
  record.excuses = {body.excuses().begin(), body.excuses().end()};
  record.excused_node = body.excused_node();
  record.consequences = {body.consequences().begin(), body.consequences().end()};
  record.avoided = {body.avoided().begin(), body.avoided().end()};
  if (record.stage == Stage::kPlacing) {
    // Nothing had been started: its turn comes again.
    record.stage = Stage::kQueued;
    record.phase = JobPhase::kPlan;
  }
  if (record.HoldsDevices()) SEQPAR_RETURN_IF_ERROR(ReadAttempt(row, body, attempt, &record));
  return record;
}

}  // namespace seqpar
