#include <string>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/error_info.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/job/proto.h"
#include "google/rpc/error_details.pb.h"

namespace seqpar {
namespace {

constexpr char kDomain[] = "seqpar";

// BadRequest has no field for the nearest legal value: it ends the description, and is taken off again on our
// side.
constexpr char kNearestBegin[] = " (nearest: ";
constexpr char kNearestEnd[] = ")";

Violation ViolationFromProto(const google::rpc::BadRequest::FieldViolation& proto) {
  Violation violation{proto.field(), proto.description(), ""};
  const size_t at = proto.description().rfind(kNearestBegin);
  if (at == std::string::npos || !absl::EndsWith(proto.description(), kNearestEnd)) return violation;
  violation.description = proto.description().substr(0, at);
  violation.nearest = proto.description().substr(at + sizeof(kNearestBegin) - 1);
  violation.nearest.pop_back();
  return violation;
}

}  // namespace

v1::JobState StateToProto(JobState state) {
  switch (state) {
    case JobState::kPending:
      return v1::JOB_STATE_PENDING;
    case JobState::kRunning:
      return v1::JOB_STATE_RUNNING;
    case JobState::kSucceeded:
      return v1::JOB_STATE_SUCCEEDED;
    case JobState::kFailed:
      return v1::JOB_STATE_FAILED;
    case JobState::kCancelled:
      return v1::JOB_STATE_CANCELLED;
  }
  return v1::JOB_STATE_UNSPECIFIED;
}

JobState StateFromProto(v1::JobState state) {
  switch (state) {
    case v1::JOB_STATE_RUNNING:
      return JobState::kRunning;
    case v1::JOB_STATE_SUCCEEDED:
      return JobState::kSucceeded;
    case v1::JOB_STATE_FAILED:
      return JobState::kFailed;
    case v1::JOB_STATE_CANCELLED:
      return JobState::kCancelled;
    default:
      return JobState::kPending;
  }
}

v1::JobPhase PhaseToProto(JobPhase phase) { return static_cast<v1::JobPhase>(static_cast<int>(phase) + 1); }

JobPhase PhaseFromProto(v1::JobPhase phase) {
  if (phase < v1::JOB_PHASE_SUBMIT || phase > v1::JOB_PHASE_REPORT) return JobPhase::kSubmit;
  return static_cast<JobPhase>(static_cast<int>(phase) - 1);
}

google::rpc::Status StatusToProto(const absl::Status& status) {
  google::rpc::Status proto;
  proto.set_code(static_cast<int>(status.code()));
  if (status.ok()) return proto;
  proto.set_message(ToUtf8(std::string(status.message())));
  const std::string why = ReasonOf(status);
  if (!why.empty()) {
    google::rpc::ErrorInfo info;
    info.set_reason(why);
    info.set_domain(kDomain);
    for (const auto& [name, value] : MetadataOf(status)) (*info.mutable_metadata())[name] = ToUtf8(value);
    proto.add_details()->PackFrom(info);
  }
  const std::vector<Violation> violations = ViolationsOf(status);
  if (!violations.empty()) {
    google::rpc::BadRequest bad;
    for (const Violation& violation : violations) {
      google::rpc::BadRequest::FieldViolation* out = bad.add_field_violations();
      out->set_field(ToUtf8(violation.field));
      out->set_description(
          ToUtf8(violation.nearest.empty()
                     ? violation.description
                     : absl::StrCat(violation.description, kNearestBegin, violation.nearest, kNearestEnd)));
    }
    proto.add_details()->PackFrom(bad);
  }
  if (const int seconds = RetrySecondsOf(status); seconds > 0) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(seconds);
    proto.add_details()->PackFrom(retry);
  }
  return proto;
}

absl::Status StatusFromProto(const google::rpc::Status& proto) {
  if (proto.code() == 0) return absl::OkStatus();
  absl::Status status(static_cast<absl::StatusCode>(proto.code()), proto.message());
  std::string why;
  std::vector<Violation> violations;
  for (const google::protobuf::Any& detail : proto.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::RetryInfo retry;
    if (detail.UnpackTo(&retry)) status = WithRetry(status, static_cast<int>(retry.retry_delay().seconds()));
    if (detail.UnpackTo(&info)) {
      why = info.reason();
      status = WithMetadata(status, {info.metadata().begin(), info.metadata().end()});
    } else if (detail.UnpackTo(&bad)) {
      for (const auto& violation : bad.field_violations())
        violations.push_back(ViolationFromProto(violation));
    }
  }
  // The message stays as it was sent; reason and violations ride along as common/base/status.h keeps them.
  if (violations.empty() && why.empty()) return status;
  const absl::Status carrier =
      violations.empty() ? MakeError(status.code(), why.c_str(), "") : InvalidInput(why.c_str(), violations);
  carrier.ForEachPayload(
      [&status](absl::string_view url, const absl::Cord& payload) { status.SetPayload(url, payload); });
  return status;
}

}  // namespace seqpar
