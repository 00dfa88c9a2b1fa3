#include "worker/comm/ucx/ucx_transfers.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/failpoints.h"
#include "common/base/status.h"
#include "common/comm/spans.h"

namespace seqpar {
namespace {

constexpr int kSequenceBits = 24;
constexpr int kSenderBits = 16;
constexpr uint32_t kSequenceMask = (1u << kSequenceBits) - 1;
constexpr uint32_t kChannels = 1u << (64 - kSequenceBits - kSenderBits);
constexpr ucp_tag_t kWholeTag = ~ucp_tag_t{0};

ucp_tag_t MakeTag(uint32_t channel, int sender, uint32_t sequence) {
  return ucp_tag_t{channel} << (kSequenceBits + kSenderBits) |
         static_cast<ucp_tag_t>(sender) << kSequenceBits | (sequence & kSequenceMask);
}

// The spans as one, where they lie side by side; data is null where they do not.
Span Contiguous(const std::vector<Span>& spans) {
  Span whole;
  for (const Span& span : spans) {
    if (span.bytes == 0) continue;
    if (whole.bytes > 0 && static_cast<char*>(whole.data) + whole.bytes != span.data) return Span{};
    if (whole.bytes == 0) whole.data = span.data;
    whole.bytes += span.bytes;
  }
  return whole;
}

}  // namespace

UcxTransfers::UcxTransfers(UcxTransferState* state, uint32_t channel, const std::vector<Transfer>& sends,
                           const std::vector<Transfer>& recvs)
    : state_(state), channel_(channel) {
  SEQPAR_CHECK(channel < kChannels);
  const HandOverFailpoint point("executor.exchange");
  error_ = point.error();
  if (!error_.ok()) return;
  for (const Transfer& recv : recvs) Post(channel, recv, /*receives=*/true);
  for (const Transfer& send : sends) {
    if (point.drops_request()) {
      // It has its number all the same: what is sent later is not taken for it.
      ++state->sent[{channel, send.peer}];
    } else {
      Post(channel, send, /*receives=*/false);
    }
  }
}

void UcxTransfers::Post(uint32_t channel, const Transfer& transfer, bool receives) {
  SEQPAR_CHECK(transfer.peer != state_->world_rank);
  Operation& operation = operations_.emplace_back();
  operation.receives = receives;
  operation.transfer = &transfer;
  operation.bytes = transfer.bytes();
  Span memory = Contiguous(transfer.spans);
  if (memory.data == nullptr) {
    operation.bounce = state_->bounce.Take(operation.bytes);
    memory = Span{operation.bounce.data.get(), operation.bytes};
    if (!receives) CopySpans(transfer.spans, {memory});
  }

  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  param.memory_type = UCS_MEMORY_TYPE_HOST;
  auto& counters = receives ? state_->received : state_->sent;
  const uint32_t sequence = counters[{channel, transfer.peer}]++;
  const size_t bytes = static_cast<size_t>(operation.bytes);
  ucs_status_ptr_t request;
  if (receives) {
    // A receive that completes at once would not tell how much arrived.
    param.op_attr_mask |= UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
    request = ucp_tag_recv_nbx(state_->context->worker(), memory.data, bytes,
                               MakeTag(channel, transfer.peer, sequence), kWholeTag, &param);
  } else {
    request = ucp_tag_send_nbx(state_->context->peer(transfer.peer), memory.data, bytes,
                               MakeTag(channel, state_->world_rank, sequence), &param);
  }
  if (UCS_PTR_IS_PTR(request)) {
    operation.request = request;
    return;
  }
  const absl::Status status = Finish(operation, UCS_PTR_STATUS(request));
  if (error_.ok()) error_ = status;
}

absl::Status UcxTransfers::Poll() {
  for (Operation& operation : operations_) {
    if (!operation.pending) continue;
    const ucs_status_t status = operation.receives
                                    ? ucp_tag_recv_request_test(operation.request, &operation.info)
                                    : ucp_request_check_status(operation.request);
    if (status == UCS_INPROGRESS) continue;
    ucp_request_free(operation.request);
    const absl::Status finished = Finish(operation, status);
    if (error_.ok()) error_ = finished;
  }
  return error_;
}

absl::Status UcxTransfers::Finish(Operation& operation, ucs_status_t status) {
  operation.pending = false;
  const int peer = operation.transfer->peer;
  const int64_t arrived = static_cast<int64_t>(operation.info.length);
  const bool scatter = operation.receives && operation.bounce.data != nullptr && !cancelled_;
  if (scatter && status == UCS_OK && arrived == operation.bytes) {
    CopySpans({Span{operation.bounce.data.get(), operation.bytes}}, operation.transfer->spans);
  }
  state_->bounce.Return(std::move(operation.bounce));
  if (operation.receives &&
      (status == UCS_ERR_MESSAGE_TRUNCATED || (status == UCS_OK && arrived != operation.bytes))) {
    const std::string got = status == UCS_OK || arrived > operation.bytes ? absl::StrCat(arrived) : "more";
    return MakeError(absl::StatusCode::kInternal, reason::kInternal,
                     absl::StrCat("sizes disagree on edge ", peer, " -> ", state_->world_rank, ", channel ",
                                  channel_, ": expected ", operation.bytes, " bytes, got ", got));
  }
  if (status == UCS_OK) return absl::OkStatus();
  return UcxError(status, absl::StrCat(operation.receives ? "receiving from" : "sending to", " rank ", peer));
}

int UcxTransfers::waiting_for() const {
  for (const Operation& operation : operations_) {
    if (operation.pending) return operation.transfer->peer;
  }
  return -1;
}

bool UcxTransfers::sends() const {
  return std::any_of(operations_.begin(), operations_.end(),
                     [](const Operation& operation) { return operation.pending && !operation.receives; });
}

std::vector<int> UcxTransfers::peers() const {
  std::vector<int> peers;
  for (const Operation& operation : operations_) {
    if (operation.pending) peers.push_back(operation.transfer->peer);
  }
  return peers;
}

void UcxTransfers::Cancel() {
  cancelled_ = true;
  for (const Operation& operation : operations_) {
    // UCX 1.13 cannot take back a send.
    if (operation.pending && operation.receives)
      ucp_request_cancel(state_->context->worker(), operation.request);
  }
}

}  // namespace seqpar
