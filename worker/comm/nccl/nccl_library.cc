#include "worker/comm/nccl/nccl_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr int kVersionMin = 22600;

std::string TextOf(int version) {
  return absl::StrCat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

absl::Status Missing(const std::string& what) {
  return MakeError(absl::StatusCode::kUnavailable, reason::kInternal,
                   absl::StrCat("NCCL ", TextOf(kVersionMin), " or newer is needed: ", what,
                                " (SEQPAR_NCCL_LIBRARY names another file)"));
}

absl::StatusOr<const NcclLibrary*> OpenOnce() {
  const char* override_path = std::getenv("SEQPAR_NCCL_LIBRARY");
  const char* path = override_path != nullptr && *override_path != '\0' ? override_path : "libnccl.so.2";
  // Never closed: its threads may outlive every communicator.
  void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return Missing(dlerror());
  auto library = std::make_unique<NcclLibrary>();
  std::string absent;
  const auto find = [&](auto* call, const char* name) {
    *call = reinterpret_cast<std::remove_reference_t<decltype(*call)>>(dlsym(handle, name));
    if (*call == nullptr) absl::StrAppend(&absent, absent.empty() ? "" : ", ", name);
  };
  find(&library->get_version, "ncclGetVersion");
  find(&library->get_unique_id, "ncclGetUniqueId");
  find(&library->comm_init_rank_config, "ncclCommInitRankConfig");
  find(&library->comm_split, "ncclCommSplit");
  find(&library->comm_finalize, "ncclCommFinalize");
  find(&library->comm_destroy, "ncclCommDestroy");
  find(&library->comm_abort, "ncclCommAbort");
  find(&library->comm_get_async_error, "ncclCommGetAsyncError");
  find(&library->comm_count, "ncclCommCount");
  find(&library->comm_user_rank, "ncclCommUserRank");
  find(&library->get_error_string, "ncclGetErrorString");
  find(&library->get_last_error, "ncclGetLastError");
  find(&library->group_start, "ncclGroupStart");
  find(&library->group_end, "ncclGroupEnd");
  find(&library->send, "ncclSend");
  find(&library->recv, "ncclRecv");
  if (!absent.empty()) return Missing(absl::StrCat(path, " lacks ", absent));
  if (library->get_version(&library->version) != ncclSuccess || library->version < kVersionMin) {
    return Missing(absl::StrCat(path, " is ", TextOf(library->version)));
  }
  return library.release();  // for the life of the process
}

}  // namespace

absl::StatusOr<const NcclLibrary*> NcclLibrary::Open() {
  static const auto* const opened = new absl::StatusOr<const NcclLibrary*>(OpenOnce());
  return *opened;
}

std::string NcclLibrary::VersionText() const { return TextOf(version); }

absl::Status NcclLibrary::ToStatus(ncclResult_t result, const char* what) const {
  if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
  const char* details = get_last_error(nullptr);
  const std::string text =
      absl::StrCat("NCCL: ", what, ": ", get_error_string(result),
                   details != nullptr && *details != '\0' ? ": " : "", details != nullptr ? details : "");
  if (result == ncclRemoteError) return MakeError(absl::StatusCode::kUnavailable, reason::kPeerLost, text);
  return MakeError(absl::StatusCode::kInternal, reason::kInternal, text);
}

}  // namespace seqpar
