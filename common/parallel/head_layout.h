// Head layouts: which rank holds which query and KV heads. Pure values.
#ifndef SEQPAR_COMMON_PARALLEL_HEAD_LAYOUT_H_
#define SEQPAR_COMMON_PARALLEL_HEAD_LAYOUT_H_

#include <utility>
#include <vector>

#include "common/parallel/mesh.h"

namespace seqpar {

// Half-open ranges of global head indices. KV heads are those that the query heads use: head h uses h /
// group.
struct HeadRange {
  int q_begin = 0;
  int q_end = 0;
  int kv_begin = 0;
  int kv_end = 0;
  int q_heads() const { return q_end - q_begin; }
  int kv_heads() const { return kv_end - kv_begin; }
  friend bool operator==(const HeadRange&, const HeadRange&) = default;
};

// The KV heads that query heads [q_begin, q_end) use, `group` = H / Hk query heads a KV head.
HeadRange MakeHeadRange(int q_begin, int q_end, int group);

// Query heads [begin, end) over n parts, the first get one more. Parts may be empty where n exceeds the
// heads.
std::vector<HeadRange> SplitHeads(int q_begin, int q_end, int group, int n);

// Query heads over tensor, then ulysses. REQUIRES: heads % kv_heads == 0, tensor * ulysses <= heads.
class HeadLayout {
 public:
  HeadLayout() = default;
  HeadLayout(const Mesh& mesh, int heads, int kv_heads);
  // Heads whose projections tensor rank t computes.
  const HeadRange& OfTensor(int t) const { return by_tensor_[t]; }
  // Heads whose attention (tensor t, ulysses u) computes, a sub-range of OfTensor(t).
  const HeadRange& Of(int t, int u) const { return by_ulysses_[t * ulysses_ + u]; }
  int heads() const { return heads_; }
  int kv_heads() const { return kv_heads_; }
  int group() const { return heads_ / kv_heads_; }
  // Tensor ranks [first, last) that hold a copy of the projection rows of KV head `kv`.
  std::pair<int, int> TensorHoldersOf(int kv) const;

 private:
  int heads_ = 0, kv_heads_ = 1, ulysses_ = 1;
  std::vector<HeadRange> by_tensor_, by_ulysses_;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_PARALLEL_HEAD_LAYOUT_H_
