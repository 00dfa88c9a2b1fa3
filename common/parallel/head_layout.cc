#include "common/parallel/head_layout.h"

#include "common/base/check.h"

namespace seqpar {

HeadRange MakeHeadRange(int q_begin, int q_end, int group) {
  HeadRange range{.q_begin = q_begin, .q_end = q_end, .kv_begin = q_begin / group, .kv_end = q_begin / group};
  if (q_begin < q_end) range.kv_end = (q_end - 1) / group + 1;
  return range;
}

std::vector<HeadRange> SplitHeads(int q_begin, int q_end, int group, int n) {
  const int each = (q_end - q_begin) / n;
  const int longer = (q_end - q_begin) % n;
  std::vector<HeadRange> parts;
  int begin = q_begin;
  for (int i = 0; i < n; ++i) {
    const int end = begin + each + (i < longer ? 1 : 0);
    parts.push_back(MakeHeadRange(begin, end, group));
    begin = end;
  }
  return parts;
}

HeadLayout::HeadLayout(const Mesh& mesh, int heads, int kv_heads)
    : heads_(heads), kv_heads_(kv_heads), ulysses_(mesh.ulysses) {
  SEQPAR_CHECK(kv_heads >= 1 && heads % kv_heads == 0);
  SEQPAR_CHECK(mesh.tensor * mesh.ulysses <= heads);
  by_tensor_ = SplitHeads(0, heads, group(), mesh.tensor);
  for (const HeadRange& part : by_tensor_) {
    for (const HeadRange& range : SplitHeads(part.q_begin, part.q_end, group(), mesh.ulysses)) {
      by_ulysses_.push_back(range);
    }
  }
}

std::pair<int, int> HeadLayout::TensorHoldersOf(int kv) const {
  const int tensor = static_cast<int>(by_tensor_.size());
  int first = 0;
  while (first < tensor && by_tensor_[first].kv_end <= kv) ++first;
  int last = first;
  while (last < tensor && by_tensor_[last].kv_begin <= kv) ++last;
  return {first, last};
}

}  // namespace seqpar
