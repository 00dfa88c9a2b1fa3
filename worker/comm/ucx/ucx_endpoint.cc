#include "worker/comm/ucx/ucx_endpoint.h"

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/comm/ucx/ucx_context.h"
#include "worker/comm/ucx/ucx_engine.h"

namespace seqpar {

absl::StatusOr<std::unique_ptr<UcxWorker>> UcxWorker::Create(const UcxConfig& config) {
  SEQPAR_ASSIGN_OR_RETURN(std::shared_ptr<UcxContext> context, UcxContext::Create(config));
  return std::unique_ptr<UcxWorker>(new UcxWorker(std::move(context)));
}

UcxWorker::UcxWorker(std::shared_ptr<UcxContext> context) : context_(std::move(context)) {}
UcxWorker::~UcxWorker() = default;

std::string UcxWorker::AddressBlob() const { return context_->address().Serialize(); }

std::string UcxWorker::Describe() const { return context_->Describe(); }

absl::StatusOr<std::shared_ptr<Endpoint>> UcxWorker::Connect(int world_rank,
                                                             const std::vector<std::string>& blobs) {
  if (connected_) return absl::FailedPreconditionError("the worker is connected already");
  if (world_rank < 0 || world_rank >= static_cast<int>(blobs.size()) || blobs.size() > kUcxWorldSizeMax) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", world_rank, " of ", blobs.size(), " addresses"));
  }
  std::vector<PeerAddress> peers;
  for (size_t rank = 0; rank < blobs.size(); ++rank) {
    absl::StatusOr<PeerAddress> peer = PeerAddress::Parse(blobs[rank]);
    if (!peer.ok()) return Annotate(peer.status(), absl::StrCat("rank ", rank));
    peers.push_back(std::move(peer).value());
  }
  connected_ = true;
  SEQPAR_RETURN_IF_ERROR(context_->Connect(world_rank, peers));
  return MakeUcxEndpoint(context_, world_rank, peers);
}

}  // namespace seqpar
