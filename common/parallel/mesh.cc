#include "common/parallel/mesh.h"

namespace seqpar {

MeshCoord Mesh::CoordOf(int rank) const {
  return MeshCoord{
      .tensor = rank % tensor, .ulysses = rank / tensor % ulysses, .ring = rank / (tensor * ulysses)};
}

std::vector<int> Mesh::TensorGroup(int rank) const {
  MeshCoord at = CoordOf(rank);
  std::vector<int> group;
  for (at.tensor = 0; at.tensor < tensor; ++at.tensor) group.push_back(RankOf(at));
  return group;
}

std::vector<int> Mesh::UlyssesGroup(int rank) const {
  MeshCoord at = CoordOf(rank);
  std::vector<int> group;
  for (at.ulysses = 0; at.ulysses < ulysses; ++at.ulysses) group.push_back(RankOf(at));
  return group;
}

std::vector<int> Mesh::RingGroup(int rank) const {
  MeshCoord at = CoordOf(rank);
  std::vector<int> group;
  for (at.ring = 0; at.ring < ring; ++at.ring) group.push_back(RankOf(at));
  return group;
}

std::string Mesh::ToString() const {
  std::string text;
  auto add = [&text](const char* axis, int degree) {
    if (degree == 1) return;
    if (!text.empty()) text += " x ";
    text += axis + std::to_string(degree);
  };
  add("T", tensor);
  add("U", ulysses);
  add("R", ring);
  if (text.empty()) return "1";
  // Inner rings of one rank are the plain ring too.
  if (inner > 1 && inner < ring) text += " (inner " + std::to_string(inner) + ")";
  return text;
}

}  // namespace seqpar
