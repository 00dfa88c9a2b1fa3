// Masks as data: a query at position p may see the keys [lo(p), hi(p)). Pure values.
#ifndef SEQPAR_COMMON_PARALLEL_MASK_H_
#define SEQPAR_COMMON_PARALLEL_MASK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/parallel/token_layout.h"

namespace seqpar {

enum class MaskKind { kFull, kCausal, kWindow };

// Documents are lengths that sum to the sequence; the base mask holds inside each and nothing is seen across.
// Window (left, right): a query at p sees p - left .. p + right, both included; -1 is unlimited.
class Mask {
 public:
  Mask() = default;
  // REQUIRES: documents empty or positive lengths that sum to `tokens`; left, right >= -1 (used by kWindow
  // only).
  Mask(MaskKind kind, int64_t tokens, int64_t left = -1, int64_t right = -1,
       const std::vector<int64_t>& documents = {});

  // The first key that p sees, and one past the last; clipped to the document. lo <= p < hi for every mask
  // that can be made from kFull and kCausal; for windows with left, right >= -1 also (both ends include p).
  int64_t Lo(int64_t p) const;
  int64_t Hi(int64_t p) const;
  // Attended (query, key) pairs of the whole sequence.
  double Pairs() const;
  int64_t tokens() const { return tokens_; }
  MaskKind kind() const { return kind_; }
  // Keys seen to either side, below tokens(); -1 where the document is the only limit: causal is (-1, 0).
  int64_t left() const { return left_; }
  int64_t right() const { return right_; }
  const std::vector<int64_t>& document_starts() const { return starts_; }  // ascending, ends with tokens()
  std::string ToString() const;

 private:
  MaskKind kind_ = MaskKind::kFull;
  int64_t tokens_ = 0, left_ = -1, right_ = -1;
  std::vector<int64_t> starts_;
};

enum class Overlap { kEmpty, kPartial, kFull };

// For each query of a share the keys that it sees in a list of keys, as half-open index ranges: because key
// positions ascend, what a query sees of any share is one index range. lo and hi never descend from one query
// to the next.
struct KeyRanges {
  std::vector<int32_t> lo, hi;  // one a query; lo == hi where it sees none
  double pairs = 0;             // sum of hi - lo
  Overlap overlap = Overlap::kEmpty;
};
KeyRanges ComputeKeyRanges(const Mask& mask, const TokenShare& queries, const TokenShare& keys);

// The same sum without the vectors, in closed form where the mask allows: cheap enough for the planner at
// millions of tokens (O(segments * documents), not O(tokens), for stride 1; for strided shares O(tokens /
// ring) is allowed).
double AttendedPairs(const Mask& mask, const TokenShare& queries, const TokenShare& keys);

struct IndexRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  friend bool operator==(const IndexRange&, const IndexRange&) = default;
};
// The keys of `keys` that at least one query attends: ascending, disjoint, non-adjacent index ranges.
std::vector<IndexRange> AttendedKeys(const Mask& mask, const TokenShare& queries, const TokenShare& keys);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_PARALLEL_MASK_H_
