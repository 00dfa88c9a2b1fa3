#include "coordinator/api/page_token.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/tensor/seeded.h"

namespace seqpar {
namespace {

constexpr size_t kSumDigits = 16;
constexpr int kPageDefault = 50;
constexpr int kPageMax = 500;

// Binds a position to its query. No secret: it finds mistakes, and whoever forges a token only sees another
// page.
std::string Sum(const std::string& position, const std::string& query) {
  return absl::StrCat(
      absl::Hex(Fnv1a64(absl::StrCat(position.size(), ":", position, query)), absl::kZeroPad16));
}

}  // namespace

std::string MakePageToken(const std::string& position, const std::string& query) {
  return absl::WebSafeBase64Escape(absl::StrCat(Sum(position, query), position));
}

absl::StatusOr<std::string> ReadPageToken(const std::string& token, const std::string& query) {
  std::string text;
  if (absl::WebSafeBase64Unescape(token, &text) && text.size() >= kSumDigits) {
    std::string position = text.substr(kSumDigits);
    if (text.substr(0, kSumDigits) == Sum(position, query)) return position;
  }
  return BadPageToken();
}

absl::Status BadPageToken() {
  return InvalidInput(
      reason::kInvalidArgument,
      {{"page_token", "is not one that this service gave out for this list: filters must stay the same",
        "empty, for the first page"}});
}

absl::StatusOr<int> PageSizeOf(int asked) {
  if (asked < 0) {
    return InvalidInput(reason::kInvalidArgument, {{"page_size", "is negative", absl::StrCat(kPageDefault)}});
  }
  return asked == 0 ? kPageDefault : std::min(asked, kPageMax);
}

}  // namespace seqpar
