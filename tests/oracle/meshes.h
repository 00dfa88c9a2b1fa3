// The test matrix: what it is made of (meshes, heads, masks), which of its cases are run, and how many were.
#ifndef SEQPAR_TESTS_ORACLE_MESHES_H_
#define SEQPAR_TESTS_ORACLE_MESHES_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/job/job.h"
#include "common/parallel/mesh.h"

namespace seqpar {

// SEQPAR_TEST_FULL: every case, at its full length (scripts/test --full).
bool RunsInFull();

// Every T x U x R of at most `ranks_max` ranks, with every inner ring of at least two ranks that divides R.
std::vector<Mesh> AllMeshes(int ranks_max);
// "t2u1r4i2", for the name of a test.
std::string MeshTestName(const Mesh& mesh);

std::vector<std::pair<int, int>> MatrixHeads();  // query and KV heads

inline constexpr int kMatrixMasks = 9;
// The index-th mask for a sequence of `tokens`; very short ones have fewer documents.
MaskSpec MatrixMask(int index, int64_t tokens);

// Indices into AllMeshes(8), MatrixHeads() and factors of `others` values each: every combination, or such
// that every pair of values occurs. Where the mesh has more ranks over the heads than there are, which is
// refused, is no case. Pairs are covered twice, with and without a ring: layouts and cores of the ring axis
// mean nothing where there is none.
std::vector<std::vector<int>> MatrixCases(const std::vector<int>& others, bool all);

// How many cases of a suite ran, by what they ran on, and how many took several runs to judge; printed by the
// last line of the suite.
class CaseCount {
 public:
  explicit CaseCount(std::string what) : what_(std::move(what)) {}
  void Add(const std::string& on, int runs) {
    ++cases_[on];
    pooled_ += runs > 1;
  }
  void Print() const;

 private:
  const std::string what_;
  std::map<std::string, int> cases_;
  int pooled_ = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_TESTS_ORACLE_MESHES_H_
