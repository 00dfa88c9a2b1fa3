#include "common/base/retry.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"

namespace seqpar {
namespace {

constexpr char kRetryUrl[] = "seqpar/retry";

}  // namespace

absl::Status WithRetry(const absl::Status& status, int seconds) {
  absl::Status told = status;
  told.SetPayload(kRetryUrl, absl::Cord(absl::StrCat(seconds)));
  return told;
}

int RetrySecondsOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kRetryUrl);
  int seconds = 0;
  return payload.has_value() && absl::SimpleAtoi(std::string(*payload), &seconds) ? seconds : 0;
}

}  // namespace seqpar
