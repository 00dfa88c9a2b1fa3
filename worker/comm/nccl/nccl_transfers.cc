#include "worker/comm/nccl/nccl_transfers.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/device/cuda/cuda_status.h"
#include "worker/device/cuda/kernels.h"

namespace seqpar {
namespace {

std::vector<cuda::Piece> PiecesOf(const std::vector<Span>& spans) {
  std::vector<cuda::Piece> pieces;
  for (const Span& span : spans) {
    if (span.bytes > 0) pieces.push_back({static_cast<char*>(span.data), span.bytes});
  }
  return pieces;
}

absl::Status CopyPieces(cudaStream_t stream, const std::vector<cuda::Piece>& from,
                        const std::vector<cuda::Piece>& to) {
  return cuda::ToStatus(cuda::CopyPieces(stream, from.data(), static_cast<int>(from.size()), to.data(),
                                         static_cast<int>(to.size())),
                        "copy the pieces of a message");
}

// Stream-ordered memory: free again when what was enqueued before its destruction has happened.
class StreamScratch {
 public:
  explicit StreamScratch(cudaStream_t stream) : stream_(stream) {}
  ~StreamScratch() {
    for (void* each : all_) cudaFreeAsync(each, stream_);
  }
  absl::StatusOr<char*> Take(int64_t bytes) {
    void* data = nullptr;
    SEQPAR_CUDA_RETURN_IF_ERROR(cudaMallocAsync(&data, bytes, stream_),
                                "room for a message of several pieces");
    all_.push_back(data);
    return static_cast<char*>(data);
  }

 private:
  const cudaStream_t stream_;
  std::vector<void*> all_;
};

// As NCCL takes it.
struct Message {
  int peer;
  char* data;
  int64_t bytes;
};

absl::Status Send(const NcclGroup& group, cudaStream_t stream, const char* verb,
                  const std::vector<Message>& outgoing, const std::vector<Message>& incoming) {
  if (outgoing.empty() && incoming.empty()) return absl::OkStatus();
  const NcclLibrary& nccl = group.family->nccl();
  SEQPAR_RETURN_IF_ERROR(nccl.ToStatus(nccl.group_start(), verb));
  ncclResult_t result = ncclSuccess;
  const auto note = [&result](ncclResult_t next) {
    if (result == ncclSuccess && next != ncclInProgress) result = next;
  };
  for (const Message& m : outgoing) note(nccl.send(m.data, m.bytes, ncclInt8, m.peer, group.comm, stream));
  for (const Message& m : incoming) note(nccl.recv(m.data, m.bytes, ncclInt8, m.peer, group.comm, stream));
  const ncclResult_t ended = nccl.group_end();
  const std::string what =
      absl::StrCat(verb, " in group ", group.name, " (rank ", group.rank, " of ", group.size, ")");
  return group.family->Settle(group.comm, result == ncclSuccess ? ended : result, what.c_str());
}

}  // namespace

absl::Status EnqueueCopy(cudaStream_t stream, const std::vector<Span>& from, const std::vector<Span>& to) {
  const std::vector<cuda::Piece> pieces = PiecesOf(from);
  return pieces.empty() ? absl::OkStatus() : CopyPieces(stream, pieces, PiecesOf(to));
}

absl::Status EnqueueTransfers(const NcclGroup& group, cudaStream_t stream, const char* verb,
                              const Messages& messages) {
  const auto is_peer = [&group](int rank) { return rank >= 0 && rank < group.size && rank != group.rank; };
  StreamScratch scratch(stream);
  std::vector<Message> outgoing, incoming;
  for (const Transfer& send : messages.sends) {
    SEQPAR_CHECK(is_peer(send.peer));
    const std::vector<cuda::Piece> pieces = PiecesOf(send.spans);
    if (pieces.empty()) continue;
    char* data = pieces[0].data;
    if (pieces.size() > 1) {
      SEQPAR_ASSIGN_OR_RETURN(data, scratch.Take(send.bytes()));
      SEQPAR_RETURN_IF_ERROR(CopyPieces(stream, pieces, {{data, send.bytes()}}));
    }
    outgoing.push_back({send.peer, data, send.bytes()});
  }
  std::vector<std::pair<Message, std::vector<cuda::Piece>>> to_unpack;
  for (const Transfer& recv : messages.recvs) {
    SEQPAR_CHECK(is_peer(recv.peer));
    std::vector<cuda::Piece> pieces = PiecesOf(recv.spans);
    if (pieces.empty()) continue;
    Message message{recv.peer, pieces[0].data, recv.bytes()};
    if (pieces.size() > 1) {
      SEQPAR_ASSIGN_OR_RETURN(message.data, scratch.Take(message.bytes));
      to_unpack.emplace_back(message, std::move(pieces));
    }
    incoming.push_back(message);
  }
  SEQPAR_RETURN_IF_ERROR(Send(group, stream, verb, outgoing, incoming));
  for (const auto& [message, pieces] : to_unpack) {
    SEQPAR_RETURN_IF_ERROR(CopyPieces(stream, {{message.data, message.bytes}}, pieces));
  }
  return absl::OkStatus();
}

}  // namespace seqpar
