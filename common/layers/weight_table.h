// What a rank holds of a layer's weights, as a table: for every weight its name and whole shape, this rank's
// slice, who holds copies of it, and where it lies in the rank's memory. Executors load and write slices by
// it, gradients are reduced by it, planners count memory by it.
//
// Sharding over tensor (Megatron): q_proj, k_proj, v_proj, gate_proj, up_proj and their biases by rows
// (heads, and the even split of the intermediate size, the first get one more), o_proj and down_proj by
// columns; norms, o_proj.bias and down_proj.bias are whole everywhere. A KV head that the query heads of
// several tensor ranks use is copied to each.
#ifndef SEQPAR_COMMON_LAYERS_WEIGHT_TABLE_H_
#define SEQPAR_COMMON_LAYERS_WEIGHT_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "common/job/job.h"
#include "common/layers/rank_groups.h"
#include "common/parallel/head_layout.h"
#include "common/parallel/mask.h"
#include "common/parallel/mesh.h"

namespace seqpar {

enum class WeightId {
  kInputNorm,
  kInputNormBias,
  kQ,
  kQBias,
  kK,
  kKBias,
  kV,
  kVBias,
  kO,
  kOBias,
  kPostNorm,
  kPostNormBias,
  kGate,
  kGateBias,
  kUp,
  kUpBias,
  kDown,
  kDownBias,
};
inline constexpr int kWeightIds = 18;

// Which ranks hold the same values: all; those of the same tensor coordinate; or by KV head, the ranks of its
// tensor holders.
enum class WeightCopies { kEverywhere, kTensorShard, kKvHeads };

struct WeightSlice {
  WeightId id = WeightId::kInputNorm;
  std::string suffix;          // "self_attn.q_proj.weight"
  std::vector<int64_t> shape;  // of the whole tensor: [out, in] or [n]
  IndexRange rows, cols;       // this rank's slice of it; a vector has one column
  WeightCopies copies = WeightCopies::kEverywhere;
  // Rows of the whole tensor whose gradient this rank writes, so that each is written once; may be empty. In
  // rows.
  IndexRange written_rows;
  bool vector() const { return shape.size() == 1; }
};

class WeightTable {
 public:
  WeightTable(const ModelConfig& config, const Mesh& mesh, const HeadLayout& heads, int rank);

  // In the order of the layer's weights in files.
  const std::vector<WeightSlice>& slices() const { return slices_; }
  // Null where the configuration has no such weight.
  const WeightSlice* Find(WeightId id) const;
  const WeightSlice* Find(const std::string& suffix) const;
  // Of all slices of one layer.
  int64_t elements() const { return elements_; }
  // First element of a slice in the rank's memory. k_proj is followed by v_proj and gate_proj by up_proj,
  // biases too, so that each pair is one matrix; weights with the same copies lie together.
  int64_t OffsetOf(WeightId id) const { return offsets_[static_cast<int>(id)]; }

  // A stretch of gradients and whom it is summed with.
  struct Reduction {
    int64_t begin = 0;
    int64_t count = 0;
    WeightCopies copies = WeightCopies::kEverywhere;
    int kv_head = -1;  // kKvHeads only
  };
  // In the order of memory, which is the same on all ranks of each group.
  const std::vector<Reduction>& reductions() const { return reductions_; }

  // This rank's part of the intermediate size.
  const IndexRange& intermediate() const { return intermediate_; }

 private:
  void AddSlice(WeightId id, const char* suffix, std::vector<int64_t> shape, IndexRange rows, IndexRange cols,
                WeightCopies copies, IndexRange written_rows);
  void PlaceInMemory(int head_dim);

  std::vector<WeightSlice> slices_;
  int64_t elements_ = 0;
  std::vector<int64_t> offsets_;
  std::vector<Reduction> reductions_;
  IndexRange intermediate_;
};

// One layer's slices in device memory: weights in the storage type or gradients in float32.
class WeightSet {
 public:
  // `table` outlives the set. Contents undefined.
  static absl::StatusOr<WeightSet> Create(const WeightTable* table, Device* device, DType dtype,
                                          const char* what);

  bool Has(WeightId id) const { return table_->Find(id) != nullptr; }
  // [rows, cols] of the slice, vectors [1, n]; an empty matrix where there is no such weight.
  Matrix Get(WeightId id) const;
  Matrix Get(const std::string& suffix) const;
  // Two slices that follow each other as one: rows stacked, vectors joined.
  Matrix Pair(WeightId first, WeightId second) const;
  float* Floats(WeightId id) const;  // null where there is no such weight
  // The whole, [1, elements].
  Matrix All() const;
  const WeightTable& table() const { return *table_; }

 private:
  const WeightTable* table_ = nullptr;
  DType dtype_ = DType::kF32;
  Buffer buffer_;
};

// Sums gradients over the ranks that hold the same weights with other tokens, in a fixed order, on the comm
// stream; compute waits for it. Counted under Operation::kWeightGradients: 2 (g - 1) / g of the elements, for
// each group.
void ReduceWeightGradients(const WeightSet& gradients, const RankGroups& groups, Stream& compute,
                           Stream& comm);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_LAYERS_WEIGHT_TABLE_H_
