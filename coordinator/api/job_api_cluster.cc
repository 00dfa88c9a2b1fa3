// The part of JobApi that is about nodes and the store.
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "coordinator/api/answers.h"
#include "coordinator/api/job_api.h"
#include "coordinator/api/page_token.h"

namespace seqpar {
namespace {

constexpr char kNodesQuery[] = "nodes";

bool IsFileName(const std::string& name) {
  constexpr size_t kNameMax = 100;
  for (const char c : name) {
    if (!absl::ascii_isalnum(c) && c != '-' && c != '_' && c != '.') return false;
  }
  return !name.empty() && name.size() <= kNameMax && name[0] != '.';
}

}  // namespace

absl::StatusOr<v1::ListNodesResponse> JobApi::ListNodes(const Caller& caller,
                                                        const v1::ListNodesRequest& request) {
  SEQPAR_ASSIGN_OR_RETURN(const int page_size, PageSizeOf(request.page_size()));
  std::string after;  // by name
  if (!request.page_token().empty()) {
    SEQPAR_ASSIGN_OR_RETURN(after, ReadPageToken(request.page_token(), kNodesQuery));
  }
  v1::ListNodesResponse response;
  for (v1::Node& node : engine_->Nodes(TenantOf(caller))) {
    if (node.name() <= after) continue;
    if (response.nodes_size() == page_size) {
      response.set_next_page_token(MakePageToken(response.nodes(page_size - 1).name(), kNodesQuery));
      break;
    }
    *response.add_nodes() = std::move(node);
  }
  return response;
}

absl::StatusOr<v1::Node> JobApi::GetNode(const Caller& caller, const v1::GetNodeRequest& request) {
  for (v1::Node& node : engine_->Nodes(TenantOf(caller))) {
    if (node.name() == request.name()) return std::move(node);
  }
  return NotFound("node", request.name());
}

absl::StatusOr<v1::Node> JobApi::DrainNode(const Caller& caller, const v1::DrainNodeRequest& request) {
  absl::StatusOr<v1::Node> node = engine_->Drain(request.name(), request.undo());
  SEQPAR_RETURN_IF_ERROR(engine_->Health());
  return node;
}

absl::StatusOr<v1::BackupStoreResponse> JobApi::BackupStore(const Caller&,
                                                            const v1::BackupStoreRequest& request) {
  std::string name = request.name();
  if (name.empty()) {
    name = absl::FormatTime("jobs-%Y%m%dT%H%M%E3SZ.sqlite", absl::FromUnixMicros(clock_->WallMicros()),
                            absl::UTCTimeZone());
  }
  if (!IsFileName(name)) {
    return InvalidInput(
        reason::kInvalidArgument,
        {{"name",
          "is no file name of at most 100 letters, digits, '-', '_' and '.', which does not begin "
          "with '.'",
          ""}});
  }
  const std::filesystem::path folder = std::filesystem::absolute(state_dir_) / "backups";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return MakeError(absl::StatusCode::kInternal, reason::kStorage,
                     absl::StrCat("cannot create ", folder.string(), ": ", error.message()));
  }
  v1::BackupStoreResponse response;
  response.set_file((folder / name).string());
  SEQPAR_RETURN_IF_ERROR(store_->Backup(response.file()));
  response.set_bytes(static_cast<int64_t>(std::filesystem::file_size(folder / name, error)));
  LogInfo("job store backed up", {{"file", response.file()}, {"bytes", response.bytes()}});
  return response;
}

}  // namespace seqpar
