// One exchange as a group of NCCL's sends and receives. NCCL sends contiguous memory: a message of several
// spans is packed into scratch at one end and unpacked at the other, whichever has them.
#ifndef SEQPAR_WORKER_COMM_NCCL_NCCL_TRANSFERS_H_
#define SEQPAR_WORKER_COMM_NCCL_NCCL_TRANSFERS_H_

#include <cuda_runtime_api.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/comm/collective_layout.h"
#include "worker/comm/nccl/nccl_family.h"

namespace seqpar {

// A communicator, and who this rank is in it.
struct NcclGroup {
  std::shared_ptr<NcclFamily> family;
  ncclComm_t comm = nullptr;
  int rank = 0, size = 1;
  std::string name;
};

// Copies `from` to `to`, of the same length in all: nothing where that is nothing.
absl::Status EnqueueCopy(cudaStream_t stream, const std::vector<Span>& from, const std::vector<Span>& to);

// Enqueues all of `messages` at once; those of no bytes are not sent. `verb` is for errors. By the owner of
// the family, like every call of NCCL.
absl::Status EnqueueTransfers(const NcclGroup& group, cudaStream_t stream, const char* verb,
                              const Messages& messages);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_COMM_NCCL_NCCL_TRANSFERS_H_
