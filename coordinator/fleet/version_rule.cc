#include "coordinator/fleet/version_rule.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

using Release = std::pair<int32_t, int32_t>;  // major, minor

constexpr size_t kVersionBytesMax = 64;

bool AllDigits(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

std::optional<Release> ReleaseOf(absl::string_view version) {
  if (version.size() > kVersionBytesMax) return std::nullopt;
  const absl::string_view numbers = version.substr(0, version.find_first_of("-+"));
  const std::vector<absl::string_view> parts = absl::StrSplit(numbers, '.');
  if (parts.size() != 3) return std::nullopt;
  int32_t number[3];
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!AllDigits(parts[i]) || !absl::SimpleAtoi(parts[i], &number[i])) return std::nullopt;
  }
  return Release(number[0], number[1]);
}

std::string TextOf(const Release& release) { return absl::StrCat(release.first, ".", release.second); }

absl::Status Refused(const std::string& why) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kVersionSkew, why);
}

}  // namespace

absl::Status ServesWorker(const VersionRule& rule, const std::string& node, const std::string& version) {
  const std::optional<Release> own = ReleaseOf(rule.own);
  const std::optional<Release> oldest = ReleaseOf(rule.oldest);
  SEQPAR_CHECK(own && oldest);
  const std::optional<Release> worker = ReleaseOf(version);
  if (!worker) {
    return Refused(absl::StrCat("the worker on ", node, " gives no version that can be read (\"",
                                absl::CHexEscape(version.substr(0, kVersionBytesMax)), "\"): run ", rule.own,
                                ", as this coordinator does"));
  }
  if (*worker < *oldest) {
    const std::string served =
        *oldest == *own ? TextOf(*own) : absl::StrCat(TextOf(*oldest), " to ", TextOf(*own));
    return Refused(absl::StrCat("the worker on ", node, " is ", version, ", older than this coordinator, ",
                                rule.own, ", serves (", served, "): upgrade the worker to ", rule.own));
  }
  if (*own < *worker) {
    return Refused(absl::StrCat("the worker on ", node, " is ", version, ", newer than this coordinator, ",
                                rule.own, ": upgrade the coordinator first"));
  }
  return absl::OkStatus();
}

}  // namespace seqpar
