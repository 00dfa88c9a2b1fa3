#include "common/base/error_info.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace seqpar {
namespace {

constexpr char kMetadataUrl[] = "seqpar/metadata/";  // and the name

}  // namespace

absl::Status WithMetadata(const absl::Status& status, const std::map<std::string, std::string>& metadata) {
  absl::Status told = status;
  for (const auto& [name, value] : metadata) {
    told.SetPayload(absl::StrCat(kMetadataUrl, name), absl::Cord(value));
  }
  return told;
}

std::map<std::string, std::string> MetadataOf(const absl::Status& status) {
  std::map<std::string, std::string> metadata;
  status.ForEachPayload([&metadata](absl::string_view url, const absl::Cord& payload) {
    if (absl::ConsumePrefix(&url, kMetadataUrl)) metadata.emplace(std::string(url), std::string(payload));
  });
  return metadata;
}

}  // namespace seqpar
