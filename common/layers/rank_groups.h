// The groups of one rank in a mesh, split from the world in a fixed order, once, before any work.
#ifndef SEQPAR_COMMON_LAYERS_RANK_GROUPS_H_
#define SEQPAR_COMMON_LAYERS_RANK_GROUPS_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/comm/communicator.h"
#include "common/parallel/head_layout.h"
#include "common/parallel/mesh.h"

namespace seqpar {

// Owns the communicators it made; `world` is the caller's and outlives it. Groups of one rank are null.
class RankGroups {
 public:
  // Called by every rank of `world`, which has mesh.size() ranks; blocks. Order of the splits: tensor,
  // ulysses, ring, token copies, then one for each copied KV head, ascending.
  static absl::StatusOr<RankGroups> Create(Communicator* world, const Mesh& mesh, const HeadLayout& heads);

  Communicator* world() const { return world_; }
  Communicator* tensor() const { return tensor_.get(); }
  Communicator* ulysses() const { return ulysses_.get(); }
  Communicator* ring() const { return ring_.get(); }

  // --- ranks that hold the same weights with other tokens: what weight gradients are summed over ---
  // Everything that is not sharded over tensor: all ranks.
  Communicator* everywhere() const { return world_->size() > 1 ? world_ : nullptr; }
  // What is sharded over tensor: the ranks of the same tensor coordinate (U x R).
  Communicator* tensor_shard() const { return same_as_everywhere_ ? everywhere() : tensor_shard_.get(); }
  // A KV head: the ranks of its tensor holders. REQUIRES: this rank is one of them.
  Communicator* kv_head(int head) const { return kv_heads_[head] ? kv_heads_[head].get() : tensor_shard(); }

 private:
  Communicator* world_ = nullptr;
  bool same_as_everywhere_ = false;
  std::unique_ptr<Communicator> tensor_, ulysses_, ring_, tensor_shard_;
  std::vector<std::unique_ptr<Communicator>> kv_heads_;  // null where only one tensor rank holds the head
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_LAYERS_RANK_GROUPS_H_
