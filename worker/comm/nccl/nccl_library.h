// NCCL, opened at run time: no program of ours links it, so that a Python wheel's library serves as well.
#ifndef SEQPAR_WORKER_COMM_NCCL_NCCL_LIBRARY_H_
#define SEQPAR_WORKER_COMM_NCCL_NCCL_LIBRARY_H_

#include <nccl.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace seqpar {

// The calls that are made of it.
struct NcclLibrary {
  decltype(&ncclGetVersion) get_version;
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclCommInitRankConfig) comm_init_rank_config;
  decltype(&ncclCommSplit) comm_split;
  decltype(&ncclCommFinalize) comm_finalize;
  decltype(&ncclCommDestroy) comm_destroy;
  decltype(&ncclCommAbort) comm_abort;
  decltype(&ncclCommGetAsyncError) comm_get_async_error;
  decltype(&ncclCommCount) comm_count;
  decltype(&ncclCommUserRank) comm_user_rank;
  decltype(&ncclGetErrorString) get_error_string;
  decltype(&ncclGetLastError) get_last_error;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclGroupEnd) group_end;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) recv;

  int version = 0;  // as NCCL numbers it: 22809 is 2.28.9

  std::string VersionText() const;
  // INTERNAL with NCCL's own words; ncclRemoteError is UNAVAILABLE with reason PEER_LOST.
  absl::Status ToStatus(ncclResult_t result, const char* what) const;

  // Opens SEQPAR_NCCL_LIBRARY where that is set, else libnccl.so.2; once a process. UNAVAILABLE where it is
  // missing or older than 2.26, with the version that is needed. Thread-safe.
  static absl::StatusOr<const NcclLibrary*> Open();
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_COMM_NCCL_NCCL_LIBRARY_H_
