#include "common/parallel/mask.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace seqpar {
namespace {

// A query that sees `reach` keys to one side at most, summed over a document of n: sum of min(i, reach), i <
// n.
double SumOfReach(double n, double reach) {
  if (reach < 0 || reach >= n) return n * (n - 1) / 2;
  return reach * (reach + 1) / 2 + (n - 1 - reach) * reach;
}

// The part of a segment at positions [begin, end).
Segment Clip(const Segment& segment, int64_t begin, int64_t end) {
  Segment part = segment;
  if (part.begin < begin) part.begin += (begin - part.begin + part.stride - 1) / part.stride * part.stride;
  part.end = std::min(part.end, end);
  return part;
}

int64_t FloorDiv(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// Sum of clamp(u, 0, m) over all integers u < t.
int64_t SumOfClamped(int64_t t, int64_t m) {
  if (t <= 0) return 0;
  if (t <= m + 1) return t * (t - 1) / 2;
  return m * (m + 1) / 2 + (t - 1 - m) * m;
}

// Pairs (i, j), 0 <= i < queries and 0 <= j < keys, with j - i <= most.
int64_t PairsUpTo(int64_t most, int64_t queries, int64_t keys) {
  return SumOfClamped(most + 1 + queries, keys) - SumOfClamped(most + 1, keys);
}

// Calls visit(first, last, begin, end) for the queries of one segment in each document [begin, end): `part`
// is the segment's part in it, never empty.
template <typename Visit>
void ForEachDocument(const Mask& mask, const Segment& segment, const Visit& visit) {
  const std::vector<int64_t>& starts = mask.document_starts();
  auto next = starts.begin();
  for (int64_t p = segment.begin; p < segment.end;) {
    next = std::upper_bound(next, starts.end(), p);  // the end of p's document
    const Segment part = Clip(segment, p, *next);
    visit(part, *(next - 1), *next);
    p = part.PositionAt(part.size());
  }
}

// Attended pairs of two segments that lie in one document.
int64_t PairsOf(const Mask& mask, const Segment& queries, const Segment& keys) {
  const int64_t n = queries.size();
  const int64_t m = keys.size();
  const bool left_limited = mask.left() >= 0 && mask.left() < mask.tokens();
  const bool right_limited = mask.right() >= 0 && mask.right() < mask.tokens();
  if (queries.stride == keys.stride) {
    // With key j at c + j s and query i at a + i s, a bound on key - query is a bound on j - i.
    const int64_t apart = keys.begin - queries.begin;
    const int64_t stride = queries.stride;
    const int64_t most = right_limited ? PairsUpTo(FloorDiv(mask.right() - apart, stride), n, m) : n * m;
    const int64_t less = left_limited ? PairsUpTo(FloorDiv(-mask.left() - 1 - apart, stride), n, m) : 0;
    return most - less;
  }
  int64_t pairs = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t p = queries.PositionAt(i);
    const int64_t begin = left_limited ? p - mask.left() : keys.begin;
    const int64_t end = right_limited ? p + mask.right() + 1 : keys.end;
    pairs += Clip(keys, begin, end).size();
  }
  return pairs;
}

// Whether the keys that a segment's queries see in one document have no gap between them: a window as wide as
// the stride leaves none.
bool SeesWithoutGaps(const Mask& mask, int64_t stride) {
  return mask.left() < 0 || mask.right() < 0 || mask.left() >= stride || mask.right() >= stride ||
         mask.left() + mask.right() + 1 >= stride;
}

// Appends a range that begins no earlier than the ones before it.
void AppendMerged(std::vector<IndexRange>& ranges, int64_t begin, int64_t end) {
  if (begin == end) return;
  if (!ranges.empty() && begin <= ranges.back().end) {
    ranges.back().end = std::max(ranges.back().end, end);
  } else {
    ranges.push_back(IndexRange{.begin = begin, .end = end});
  }
}

}  // namespace

Mask::Mask(MaskKind kind, int64_t tokens, int64_t left, int64_t right, const std::vector<int64_t>& documents)
    : kind_(kind), tokens_(tokens) {
  if (kind == MaskKind::kCausal) right_ = 0;
  if (kind == MaskKind::kWindow) {
    SEQPAR_CHECK(left >= -1 && right >= -1);
    // A side that reaches past the sequence has no limit but its document: nobody adds up what has no end.
    left_ = left < tokens ? left : -1;
    right_ = right < tokens ? right : -1;
  }
  starts_.push_back(0);
  for (int64_t length : documents) {
    SEQPAR_CHECK(length > 0);
    starts_.push_back(starts_.back() + length);
  }
  if (documents.empty()) starts_.push_back(tokens);
  SEQPAR_CHECK(starts_.back() == tokens);
}

int64_t Mask::Lo(int64_t p) const {
  SEQPAR_CHECK(p >= 0 && p < tokens_);
  const int64_t start = *(std::upper_bound(starts_.begin(), starts_.end(), p) - 1);
  return left_ < 0 || left_ >= p - start ? start : p - left_;
}

int64_t Mask::Hi(int64_t p) const {
  SEQPAR_CHECK(p >= 0 && p < tokens_);
  const int64_t end = *std::upper_bound(starts_.begin(), starts_.end(), p);
  return right_ < 0 || right_ >= end - p - 1 ? end : p + right_ + 1;
}

double Mask::Pairs() const {
  double pairs = 0;
  for (size_t i = 0; i + 1 < starts_.size(); ++i) {
    const double n = static_cast<double>(starts_[i + 1] - starts_[i]);
    pairs += n + SumOfReach(n, static_cast<double>(left_)) + SumOfReach(n, static_cast<double>(right_));
  }
  return pairs;
}

std::string Mask::ToString() const {
  std::string text;
  switch (kind_) {
    case MaskKind::kFull:
      text = "full";
      break;
    case MaskKind::kCausal:
      text = "causal";
      break;
    case MaskKind::kWindow:
      text = "window (" + std::to_string(left_) + ", " + std::to_string(right_) + ")";
      break;
  }
  if (starts_.size() > 2) text += ", " + std::to_string(starts_.size() - 1) + " documents";
  return text;
}

KeyRanges ComputeKeyRanges(const Mask& mask, const TokenShare& queries, const TokenShare& keys) {
  KeyRanges ranges;
  ranges.lo.reserve(queries.size());
  ranges.hi.reserve(queries.size());
  for (const Segment& segment : queries.segments()) {
    for (int64_t i = 0; i < segment.size(); ++i) {
      const int64_t p = segment.PositionAt(i);
      const int64_t lo = keys.LowerBound(mask.Lo(p));
      const int64_t hi = keys.LowerBound(mask.Hi(p));
      ranges.lo.push_back(static_cast<int32_t>(lo));
      ranges.hi.push_back(static_cast<int32_t>(hi));
      ranges.pairs += static_cast<double>(hi - lo);
    }
  }
  const double all = static_cast<double>(queries.size()) * static_cast<double>(keys.size());
  if (ranges.pairs > 0) ranges.overlap = ranges.pairs == all ? Overlap::kFull : Overlap::kPartial;
  return ranges;
}

double AttendedPairs(const Mask& mask, const TokenShare& queries, const TokenShare& keys) {
  int64_t pairs = 0;
  for (const Segment& segment : queries.segments()) {
    ForEachDocument(mask, segment, [&](const Segment& part, int64_t begin, int64_t end) {
      for (const Segment& key_segment : keys.segments()) {
        const Segment seen = Clip(key_segment, begin, end);
        if (seen.size() == 0) continue;
        pairs += PairsOf(mask, part, seen);
      }
    });
  }
  return static_cast<double>(pairs);
}

std::vector<IndexRange> AttendedKeys(const Mask& mask, const TokenShare& queries, const TokenShare& keys) {
  std::vector<IndexRange> ranges;
  for (const Segment& segment : queries.segments()) {
    ForEachDocument(mask, segment, [&](const Segment& part, int64_t, int64_t) {
      const int64_t last = part.size() - 1;
      if (SeesWithoutGaps(mask, part.stride)) {
        AppendMerged(ranges, keys.LowerBound(mask.Lo(part.begin)),
                     keys.LowerBound(mask.Hi(part.PositionAt(last))));
        return;
      }
      for (int64_t i = 0; i <= last; ++i) {
        const int64_t p = part.PositionAt(i);
        AppendMerged(ranges, keys.LowerBound(mask.Lo(p)), keys.LowerBound(mask.Hi(p)));
      }
    });
  }
  return ranges;
}

}  // namespace seqpar
