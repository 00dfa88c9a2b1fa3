#include "tests/oracle/meshes.h"

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "tests/oracle/pairwise.h"

namespace seqpar {

bool RunsInFull() { return std::getenv("SEQPAR_TEST_FULL") != nullptr; }

std::vector<Mesh> AllMeshes(int ranks_max) {
  std::vector<Mesh> meshes;
  for (int t = 1; t <= ranks_max; ++t) {
    for (int u = 1; t * u <= ranks_max; ++u) {
      for (int r = 1; t * u * r <= ranks_max; ++r) {
        for (int inner = 2; inner <= r; ++inner) {
          if (r % inner == 0) meshes.push_back({t, u, r, inner});
        }
        if (r == 1) meshes.push_back({t, u, r, 1});
      }
    }
  }
  return meshes;
}

std::string MeshTestName(const Mesh& mesh) {
  std::string name = absl::StrCat("t", mesh.tensor, "u", mesh.ulysses, "r", mesh.ring);
  if (mesh.inner != mesh.ring) absl::StrAppend(&name, "i", mesh.inner);
  return name;
}

std::vector<std::pair<int, int>> MatrixHeads() { return {{8, 8}, {8, 2}, {5, 5}, {7, 1}}; }

MaskSpec MatrixMask(int index, int64_t tokens) {
  std::vector<int64_t> documents;
  for (const int64_t length : {tokens / 4, int64_t{1}, tokens - tokens / 4 - 1 - tokens / 3, tokens / 3}) {
    if (length > 0) documents.push_back(length);
  }
  switch (index) {
    case 0:
      return {MaskKind::kFull};
    case 1:
      return {MaskKind::kCausal};
    case 2:
      return {MaskKind::kWindow, 7, 0};
    case 3:
      return {MaskKind::kWindow, 16, 16};
    case 4:
      return {MaskKind::kWindow, 0, 5};
    case 5:
      return {MaskKind::kWindow, -1, 3};
    case 6:
      return {MaskKind::kCausal, -1, -1, documents};
    case 7:
      return {MaskKind::kFull, -1, -1, documents};
    default:
      return {MaskKind::kWindow, 9, -1, documents};
  }
}

std::vector<std::vector<int>> MatrixCases(const std::vector<int>& others, bool all) {
  const std::vector<Mesh> meshes = AllMeshes(8);
  const std::vector<std::pair<int, int>> heads = MatrixHeads();
  std::vector<int> sizes = {static_cast<int>(meshes.size()), static_cast<int>(heads.size())};
  sizes.insert(sizes.end(), others.begin(), others.end());
  const auto refused = [&](size_t f, int a, size_t g, int b) {
    return f == 0 && g == 1 && meshes[a].tensor * meshes[a].ulysses > heads[b].first;
  };
  if (all) return AllCases(sizes, refused);
  std::vector<std::vector<int>> cases;
  for (const bool ring : {false, true}) {
    const std::vector<std::vector<int>> part = PairwiseCases(sizes, [&](size_t f, int a, size_t g, int b) {
      return (f == 0 && (meshes[a].ring > 1) != ring) || refused(f, a, g, b);
    });
    cases.insert(cases.end(), part.begin(), part.end());
  }
  return cases;
}

void CaseCount::Print() const {
  int total = 0;
  std::string by;
  for (const auto& [on, cases] : cases_) {
    total += cases;
    absl::StrAppend(&by, by.empty() ? "" : ", ", cases, " on ", on);
  }
  std::printf("[   CASES  ] %d %s, %d of them judged over several runs: %s\n", total, what_.c_str(), pooled_,
              by.c_str());
}

}  // namespace seqpar
