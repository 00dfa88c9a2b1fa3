// The mesh of a gang: named axes and where a rank stands on them.
#ifndef SEQPAR_COMMON_PARALLEL_MESH_H_
#define SEQPAR_COMMON_PARALLEL_MESH_H_

#include <string>
#include <vector>

namespace seqpar {

struct MeshCoord {
  int tensor = 0;
  int ulysses = 0;
  int ring = 0;
  friend bool operator==(const MeshCoord&, const MeshCoord&) = default;
};

// P = tensor * ulysses * ring ranks. rank = (ring * U + ulysses) * T + tensor: tensor neighbours are closest.
// `inner` divides ring: a double ring is `ring / inner` nodes of `inner` ranks, ring = outer * inner +
// position; inner == ring is the plain ring.
struct Mesh {
  int tensor = 1;
  int ulysses = 1;
  int ring = 1;
  int inner = 1;

  int size() const { return tensor * ulysses * ring; }
  MeshCoord CoordOf(int rank) const;
  int RankOf(const MeshCoord& c) const { return (c.ring * ulysses + c.ulysses) * tensor + c.tensor; }
  // World ranks of the group that `rank` belongs to along one axis, in the order of that axis.
  std::vector<int> TensorGroup(int rank) const;
  std::vector<int> UlyssesGroup(int rank) const;
  std::vector<int> RingGroup(int rank) const;
  // "T2 x U2 x R4", axes of 1 left out ("1" where all are); a double ring adds "(inner 2)".
  std::string ToString() const;
  friend bool operator==(const Mesh&, const Mesh&) = default;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_PARALLEL_MESH_H_
