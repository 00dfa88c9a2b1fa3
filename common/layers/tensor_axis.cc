#include "common/layers/tensor_axis.h"

#include <utility>

#include "common/base/check.h"
#include "common/base/status.h"

namespace seqpar {

absl::StatusOr<TensorAxis> TensorAxis::Create(const LayerPlan& plan, const RankStreams& streams,
                                              Communicator* group) {
  TensorAxis axis;
  axis.streams_ = streams;
  axis.group_ = group;
  axis.dtype_ = plan.dtype;
  axis.hidden_ = plan.config.hidden_size;
  for (const int rank : plan.mesh().TensorGroup(plan.rank)) {
    axis.rows_.push_back(plan.tokens.OfRank(rank).size() * plan.batch);
    axis.group_rows_ += axis.rows_.back();
  }
  axis.own_rows_ = axis.rows_[plan.at().tensor];
  SEQPAR_CHECK((group == nullptr ? 1 : group->size()) == static_cast<int>(axis.rows_.size()));
  if (group == nullptr || axis.group_rows_ == 0) return absl::StatusOr<TensorAxis>(std::move(axis));
  const int64_t bytes = axis.group_rows_ * axis.hidden_ * SizeOf(plan.dtype);
  SEQPAR_ASSIGN_OR_RETURN(axis.input_, streams.device->Allocate(bytes, "gathered input"));
  SEQPAR_ASSIGN_OR_RETURN(axis.partial_, streams.device->Allocate(bytes, "partial output"));
  if (plan.backward) {
    SEQPAR_ASSIGN_OR_RETURN(axis.gradient_, streams.device->Allocate(bytes, "gathered gradient"));
  }
  return absl::StatusOr<TensorAxis>(std::move(axis));
}

Matrix TensorAxis::Gather(Place place, TrafficKey key, const Matrix& own) {
  SEQPAR_CHECK(own.rows == own_rows_ && own.cols == hidden_ && own.contiguous());
  if (group_ == nullptr) return own;
  const Matrix all(place == Place::kInput ? input_.data() : gradient_.data(), dtype_, group_rows_, hidden_);
  std::vector<int64_t> bytes;
  for (const int64_t rows : rows_) bytes.push_back(rows * hidden_ * SizeOf(dtype_));
  streams_.comm->Wait(streams_.compute->Record());
  group_->AllGather(*streams_.comm, key, own.data, bytes, all.data);
  streams_.compute->Wait(streams_.comm->Record());
  return all;
}

Matrix TensorAxis::PartialOf(const Matrix& own) const {
  return group_ == nullptr ? own : Matrix(partial_.data(), dtype_, group_rows_, hidden_);
}

void TensorAxis::Scatter(TrafficKey key, const Matrix& own) {
  if (group_ == nullptr) return;
  streams_.comm->Wait(streams_.compute->Record());
  group_->ReduceScatter(*streams_.comm, key, PartialOf(own), rows_, own);
  streams_.compute->Wait(streams_.comm->Record());
}

}  // namespace seqpar
