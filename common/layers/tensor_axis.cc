#include "common/layers/tensor_axis.h"

#include <utility>

#include "common/base/check.h"

namespace seqpar {

TensorAxis::TensorAxis(const LayerPlan& plan, const RankStreams& streams, Communicator* group)
    : streams_(streams),
      group_(group),
      dtype_(plan.dtype),
      hidden_(plan.config.hidden_size),
      backward_(plan.backward) {
  for (const int rank : plan.mesh().TensorGroup(plan.rank)) {
    rows_.push_back(plan.tokens.OfRank(rank).size() * plan.batch);
    group_rows_ += rows_.back();
  }
  own_rows_ = rows_[plan.at().tensor];
  SEQPAR_CHECK((group == nullptr ? 1 : group->size()) == static_cast<int>(rows_.size()));
}

void TensorAxis::AddScratch(Carver* carver) {
  if (group_ == nullptr) return;
  carver->Add(&input_, dtype_, group_rows_, hidden_);
  carver->Add(&partial_, dtype_, group_rows_, hidden_);
  if (backward_) carver->Add(&gradient_, dtype_, group_rows_, hidden_);
}

Matrix TensorAxis::Gather(Place place, TrafficKey key, const Matrix& own) {
  SEQPAR_CHECK(own.rows == own_rows_ && own.cols == hidden_ && own.contiguous());
  if (group_ == nullptr) return own;
  const Matrix all = place == Place::kInput ? input_ : gradient_;
  std::vector<int64_t> bytes;
  for (const int64_t rows : rows_) bytes.push_back(rows * hidden_ * SizeOf(dtype_));
  streams_.comm->Wait(streams_.compute->Record());
  group_->AllGather(*streams_.comm, key, own.data, bytes, all.data);
  streams_.compute->Wait(streams_.comm->Record());
  return all;
}

Matrix TensorAxis::PartialOf(const Matrix& own) const { return group_ == nullptr ? own : partial_; }

void TensorAxis::Scatter(TrafficKey key, const Matrix& own) {
  if (group_ == nullptr) return;
  streams_.comm->Wait(streams_.compute->Record());
  group_->ReduceScatter(*streams_.comm, key, PartialOf(own), rows_, own);
  streams_.compute->Wait(streams_.comm->Record());
}

}  // namespace seqpar
