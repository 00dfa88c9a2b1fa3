#include "common/base/status.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "common/base/check.h"
#include "common/base/netstring.h"

namespace seqpar {
namespace {

constexpr char kReasonUrl[] = "seqpar/reason";
constexpr char kViolationsUrl[] = "seqpar/violations";  // netstrings: field, description, nearest of each

std::string Describe(const Violation& v) {
  std::string line = v.field.empty() ? v.description : absl::StrCat(v.field, ": ", v.description);
  if (!v.nearest.empty()) absl::StrAppend(&line, " (nearest: ", v.nearest, ")");
  return line;
}

size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, const char* reason, const std::string& message) {
  SEQPAR_CHECK(code != absl::StatusCode::kOk);
  absl::Status status(code, message);
  status.SetPayload(kReasonUrl, absl::Cord(reason));
  return status;
}

absl::Status InvalidInput(const char* reason, const std::vector<Violation>& violations) {
  SEQPAR_CHECK(!violations.empty());
  std::string message;
  std::string encoded;
  for (const Violation& v : violations) {
    absl::StrAppend(&message, message.empty() ? "" : "\n", Describe(v));
    AppendNetstring(v.field, &encoded);
    AppendNetstring(v.description, &encoded);
    AppendNetstring(v.nearest, &encoded);
  }
  absl::Status status = MakeError(absl::StatusCode::kInvalidArgument, reason, message);
  status.SetPayload(kViolationsUrl, absl::Cord(encoded));
  return status;
}

std::string ReasonOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kReasonUrl);
  return payload.has_value() ? std::string(*payload) : std::string();
}

std::vector<Violation> ViolationsOf(const absl::Status& status) {
  std::vector<Violation> violations;
  const absl::optional<absl::Cord> payload = status.GetPayload(kViolationsUrl);
  if (!payload.has_value()) return violations;
  const std::string encoded(*payload);
  size_t at = 0;
  while (at < encoded.size()) {
    Violation v;
    if (!TakeNetstring(encoded, &at, &v.field) || !TakeNetstring(encoded, &at, &v.description) ||
        !TakeNetstring(encoded, &at, &v.nearest)) {
      break;
    }
    violations.push_back(std::move(v));
  }
  return violations;
}

absl::Status Annotate(const absl::Status& status, const std::string& prefix) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(prefix, ": ", status.message()));
  status.ForEachPayload(
      [&](absl::string_view url, const absl::Cord& payload) { annotated.SetPayload(url, payload); });
  return annotated;
}

std::string NearestName(const std::string& wanted, const std::vector<std::string>& names) {
  std::string nearest;
  size_t best = SIZE_MAX;
  for (const std::string& name : names) {
    const size_t distance = EditDistance(wanted, name);
    if (distance < best) {
      best = distance;
      nearest = name;
    }
  }
  return nearest;
}

}  // namespace seqpar
