#include "common/layers/rank_groups.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace seqpar {

absl::StatusOr<RankGroups> RankGroups::Create(Communicator* world, const Mesh& mesh,
                                              const HeadLayout& heads) {
  SEQPAR_CHECK(world->size() == mesh.size());
  const MeshCoord at = mesh.CoordOf(world->rank());
  RankGroups groups;
  groups.world_ = world;
  const int rank = world->rank();
  if (mesh.tensor > 1) {
    SEQPAR_ASSIGN_OR_RETURN(groups.tensor_, world->Split(rank / mesh.tensor, rank, "tensor"));
  }
  if (mesh.ulysses > 1) {
    SEQPAR_ASSIGN_OR_RETURN(groups.ulysses_,
                            world->Split(at.ring * mesh.tensor + at.tensor, rank, "ulysses"));
  }
  if (mesh.ring > 1) {
    SEQPAR_ASSIGN_OR_RETURN(groups.ring_, world->Split(at.ulysses * mesh.tensor + at.tensor, rank, "ring"));
  }
  groups.same_as_everywhere_ = mesh.tensor == 1;
  if (mesh.tensor > 1 && mesh.ulysses * mesh.ring > 1) {
    SEQPAR_ASSIGN_OR_RETURN(groups.tensor_shard_, world->Split(at.tensor, rank, "tensor shard"));
  }
  groups.kv_heads_.resize(heads.kv_heads());
  for (int head = 0; head < heads.kv_heads(); ++head) {
    const auto [first, last] = heads.TensorHoldersOf(head);
    if (last - first <= 1) continue;
    const bool holds = at.tensor >= first && at.tensor < last;
    SEQPAR_ASSIGN_OR_RETURN(groups.kv_heads_[head],
                            world->Split(holds ? 0 : -1, rank, absl::StrCat("KV head ", head)));
  }
  return absl::StatusOr<RankGroups>(std::move(groups));
}

}  // namespace seqpar
