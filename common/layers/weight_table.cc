#include "common/layers/weight_table.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

// The part of [0, n) of the index-th of `parts`; the first get one more.
IndexRange EvenPart(int64_t n, int parts, int index) {
  const int64_t each = n / parts, longer = n % parts;
  const int64_t begin = index * each + std::min<int64_t>(index, longer);
  return {begin, begin + each + (index < longer ? 1 : 0)};
}

// Memory keeps weights with the same copies together, and k beside v, gate beside up.
constexpr WeightId kMemoryOrder[] = {
    WeightId::kInputNorm, WeightId::kInputNormBias, WeightId::kPostNorm, WeightId::kPostNormBias,
    WeightId::kOBias,     WeightId::kDownBias,      WeightId::kQ,        WeightId::kQBias,
    WeightId::kO,         WeightId::kGate,          WeightId::kUp,       WeightId::kGateBias,
    WeightId::kUpBias,    WeightId::kDown,          WeightId::kK,        WeightId::kV,
    WeightId::kKBias,     WeightId::kVBias,
};

}  // namespace

WeightTable::WeightTable(const ModelConfig& config, const Mesh& mesh, const HeadLayout& heads, int rank)
    : offsets_(kWeightIds, -1) {
  const MeshCoord at = mesh.CoordOf(rank);
  const HeadRange& mine = heads.OfTensor(at.tensor);
  const int64_t dim = config.head_dim, hidden = config.hidden_size, f = config.intermediate_size;
  const int64_t q_width = config.heads * dim, kv_width = config.kv_heads * dim;
  const IndexRange one{0, 1}, all{0, hidden};
  const IndexRange q_rows{mine.q_begin * dim, mine.q_end * dim},
      kv_rows{mine.kv_begin * dim, mine.kv_end * dim};
  intermediate_ = config.mlp == MlpKind::kNone ? IndexRange{} : EvenPart(f, mesh.tensor, at.tensor);

  // The first of the ranks that hold a row writes it.
  const bool first_of_shard = at.ulysses == 0 && at.ring == 0;
  const auto if_first = [&](IndexRange rows) {
    return first_of_shard ? rows : IndexRange{rows.begin, rows.begin};
  };
  IndexRange kv_written = kv_rows;
  for (int head = mine.kv_begin; head < mine.kv_end && heads.TensorHoldersOf(head).first < at.tensor;
       ++head) {
    kv_written.begin += dim;
  }
  const auto whole = [&](WeightId id, const char* suffix) {
    AddSlice(id, suffix, {hidden}, all, one, WeightCopies::kEverywhere, rank == 0 ? all : IndexRange{});
  };
  const auto by_rows = [&](WeightId id, const char* suffix, int64_t out, IndexRange rows) {
    AddSlice(id, suffix, {out, hidden}, rows, all, WeightCopies::kTensorShard, if_first(rows));
  };
  const auto vector_by_rows = [&](WeightId id, const char* suffix, int64_t out, IndexRange rows) {
    AddSlice(id, suffix, {out}, rows, one, WeightCopies::kTensorShard, if_first(rows));
  };
  const auto kv = [&](WeightId id, const char* suffix, WeightId bias_id, const char* bias_suffix) {
    AddSlice(id, suffix, {kv_width, hidden}, kv_rows, all, WeightCopies::kKvHeads, if_first(kv_written));
    if (!config.qkv_bias) return;
    AddSlice(bias_id, bias_suffix, {kv_width}, kv_rows, one, WeightCopies::kKvHeads, if_first(kv_written));
  };
  const auto by_cols = [&](WeightId id, const char* suffix, int64_t in, IndexRange cols) {
    AddSlice(id, suffix, {hidden, in}, all, cols, WeightCopies::kTensorShard, if_first(all));
  };

  if (config.norm != NormKind::kNone) whole(WeightId::kInputNorm, "input_layernorm.weight");
  if (config.norm == NormKind::kLayerNorm) whole(WeightId::kInputNormBias, "input_layernorm.bias");
  by_rows(WeightId::kQ, "self_attn.q_proj.weight", q_width, q_rows);
  if (config.qkv_bias) vector_by_rows(WeightId::kQBias, "self_attn.q_proj.bias", q_width, q_rows);
  kv(WeightId::kK, "self_attn.k_proj.weight", WeightId::kKBias, "self_attn.k_proj.bias");
  kv(WeightId::kV, "self_attn.v_proj.weight", WeightId::kVBias, "self_attn.v_proj.bias");
  by_cols(WeightId::kO, "self_attn.o_proj.weight", q_width, q_rows);
  if (config.attention_out_bias) whole(WeightId::kOBias, "self_attn.o_proj.bias");
  if (config.mlp != MlpKind::kNone) {
    if (config.norm != NormKind::kNone) whole(WeightId::kPostNorm, "post_attention_layernorm.weight");
    if (config.norm == NormKind::kLayerNorm) whole(WeightId::kPostNormBias, "post_attention_layernorm.bias");
    if (config.mlp == MlpKind::kSwiglu) {
      by_rows(WeightId::kGate, "mlp.gate_proj.weight", f, intermediate_);
      if (config.mlp_bias) vector_by_rows(WeightId::kGateBias, "mlp.gate_proj.bias", f, intermediate_);
    }
    by_rows(WeightId::kUp, "mlp.up_proj.weight", f, intermediate_);
    if (config.mlp_bias) vector_by_rows(WeightId::kUpBias, "mlp.up_proj.bias", f, intermediate_);
    by_cols(WeightId::kDown, "mlp.down_proj.weight", f, intermediate_);
    if (config.mlp_bias) whole(WeightId::kDownBias, "mlp.down_proj.bias");
  }
  PlaceInMemory(config.head_dim);
}

void WeightTable::AddSlice(WeightId id, const char* suffix, std::vector<int64_t> shape, IndexRange rows,
                           IndexRange cols, WeightCopies copies, IndexRange written_rows) {
  slices_.push_back({id, suffix, std::move(shape), rows, cols, copies, written_rows});
}

const WeightSlice* WeightTable::Find(WeightId id) const {
  for (const WeightSlice& slice : slices_) {
    if (slice.id == id) return &slice;
  }
  return nullptr;
}

const WeightSlice* WeightTable::Find(const std::string& suffix) const {
  for (const WeightSlice& slice : slices_) {
    if (slice.suffix == suffix) return &slice;
  }
  return nullptr;
}

// Neighbours with the same copies are reduced together; KV heads one by one, as each may have holders of its
// own.
void WeightTable::PlaceInMemory(int head_dim) {
  for (const WeightId id : kMemoryOrder) {
    const WeightSlice* slice = Find(id);
    if (slice == nullptr) continue;
    offsets_[static_cast<int>(id)] = elements_;
    if (slice->copies == WeightCopies::kKvHeads) {
      const int64_t count = head_dim * slice->cols.size();
      for (int64_t row = slice->rows.begin; row < slice->rows.end; row += head_dim) {
        reductions_.push_back({elements_, count, slice->copies, static_cast<int>(row / head_dim)});
        elements_ += count;
      }
      continue;
    }
    const int64_t count = slice->rows.size() * slice->cols.size();
    if (reductions_.empty() || reductions_.back().copies != slice->copies) {
      reductions_.push_back({elements_, 0, slice->copies, -1});
    }
    reductions_.back().count += count;
    elements_ += count;
  }
}

absl::StatusOr<WeightSet> WeightSet::Create(const WeightTable* table, Device* device, DType dtype,
                                            const char* what) {
  WeightSet set;
  set.table_ = table;
  set.dtype_ = dtype;
  SEQPAR_ASSIGN_OR_RETURN(set.buffer_, device->Allocate(table->elements() * SizeOf(dtype), what));
  return absl::StatusOr<WeightSet>(std::move(set));
}

Matrix WeightSet::Get(WeightId id) const {
  const WeightSlice* slice = table_->Find(id);
  if (slice == nullptr) return Matrix(nullptr, dtype_, 0, 0);
  void* data = static_cast<char*>(buffer_.data()) + table_->OffsetOf(id) * SizeOf(dtype_);
  return slice->vector() ? Matrix(data, dtype_, 1, slice->rows.size())
                         : Matrix(data, dtype_, slice->rows.size(), slice->cols.size());
}

Matrix WeightSet::Get(const std::string& suffix) const {
  const WeightSlice* slice = table_->Find(suffix);
  return slice == nullptr ? Matrix(nullptr, dtype_, 0, 0) : Get(slice->id);
}

Matrix WeightSet::Pair(WeightId first, WeightId second) const {
  const Matrix a = Get(first), b = Get(second);
  SEQPAR_CHECK(table_->OffsetOf(second) == table_->OffsetOf(first) + a.rows * a.cols);
  return table_->Find(first)->vector() ? Matrix(a.data, dtype_, 1, a.cols + b.cols)
                                       : Matrix(a.data, dtype_, a.rows + b.rows, a.cols);
}

float* WeightSet::Floats(WeightId id) const {
  SEQPAR_CHECK(dtype_ == DType::kF32);
  return static_cast<float*>(Get(id).data);
}

Matrix WeightSet::All() const { return Matrix(buffer_.data(), dtype_, 1, table_->elements()); }

void ReduceWeightGradients(const WeightSet& gradients, const RankGroups& groups, Stream& compute,
                           Stream& comm) {
  const auto group_of = [&](const WeightTable::Reduction& reduction) {
    switch (reduction.copies) {
      case WeightCopies::kEverywhere:
        return groups.everywhere();
      case WeightCopies::kTensorShard:
        return groups.tensor_shard();
      case WeightCopies::kKvHeads:
        break;
    }
    return groups.kv_head(reduction.kv_head);
  };
  comm.Wait(compute.Record());
  const std::vector<WeightTable::Reduction>& reductions = gradients.table().reductions();
  float* data = static_cast<float*>(gradients.All().data);
  for (size_t i = 0; i < reductions.size();) {
    // Stretches that follow each other in the same group travel together, but for copied KV heads: between
    // those of one rank there may be others on its peers.
    Communicator* const group = group_of(reductions[i]);
    const bool together = group == groups.everywhere() || group == groups.tensor_shard();
    const int64_t begin = reductions[i].begin;
    int64_t count = reductions[i++].count;
    for (; together && i < reductions.size() && group_of(reductions[i]) == group; ++i)
      count += reductions[i].count;
    if (group != nullptr) {
      group->AllReduce(comm, {Operation::kWeightGradients, Pass::kBackward}, data + begin, count);
    }
  }
  compute.Wait(comm.Record());
}

}  // namespace seqpar
