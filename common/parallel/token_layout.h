// Token layouts: which rank holds which global positions. Pure values.
#ifndef SEQPAR_COMMON_PARALLEL_TOKEN_LAYOUT_H_
#define SEQPAR_COMMON_PARALLEL_TOKEN_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/parallel/mesh.h"

namespace seqpar {

// Global positions begin, begin + stride, ... below end. Half-open; empty where begin >= end. Canonical form:
// end - begin need not be a multiple of the stride.
struct Segment {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t stride = 1;
  int64_t size() const { return end <= begin ? 0 : (end - begin - 1) / stride + 1; }
  int64_t PositionAt(int64_t index) const { return begin + index * stride; }
  friend bool operator==(const Segment&, const Segment&) = default;
};

// An ordered list of segments whose positions ascend strictly: a rank's tokens, or a group's. Segments that
// go on where the one before ends with the same stride are joined (a segment of one token keeps its stride),
// ends are one past the last token, and empty segments are dropped: a share that was cut and put together
// again is the same value.
class TokenShare {
 public:
  TokenShare() = default;
  // REQUIRES: Ascends(segments).
  explicit TokenShare(const std::vector<Segment>& segments);
  // Whether segments may form a share: strides of at least 1, positions not negative and strictly ascending.
  // For those who read segments from outside.
  static bool Ascends(const std::vector<Segment>& segments);

  const std::vector<Segment>& segments() const { return segments_; }
  int64_t size() const { return size_; }
  // The position of the index-th token, 0 <= index < size().
  int64_t PositionAt(int64_t index) const;
  // The number of tokens whose position is below `position`: the index where it is or would be. O(segments).
  int64_t LowerBound(int64_t position) const;
  // Tokens [begin, end) by index, as a share of its own.
  TokenShare Slice(int64_t begin, int64_t end) const;
  // Contiguous pieces in the share's own order; the first size() % n pieces have one token more.
  std::vector<TokenShare> Split(int n) const;
  friend bool operator==(const TokenShare& a, const TokenShare& b) { return a.segments_ == b.segments_; }

 private:
  std::vector<Segment> segments_;
  int64_t size_ = 0;
};

// "" where `segments` together are every position of [0, n) exactly once, n being how many they have; else
// why not: a position that is missing or comes twice, or two strides, which no layout has beside each other.
// O(s log s) for s segments, whatever their sizes. REQUIRES: strides of at least 1, positions not negative.
std::string WhyNotExactlyOnce(std::vector<Segment> segments);

enum class LayoutKind { kContiguous, kZigzag, kStriped };
const char* LayoutName(LayoutKind kind);  // "contiguous", "zigzag", "striped"

// The tokens [0, n) cut over `ring` ranks. Contiguous: the first n % ring shares have one more. Zigzag: 2
// ring chunks, the first n % (2 ring) one longer, rank r holds chunks r and 2 ring - 1 - r. Striped: p
// belongs to p % ring.
std::vector<TokenShare> RingShares(LayoutKind kind, int64_t n, int ring);

// What every rank of a mesh holds: ring shares by layout, each split over ulysses, then tensor (formulas.md,
// "Who holds what").
class TokenLayout {
 public:
  TokenLayout() = default;
  TokenLayout(const Mesh& mesh, LayoutKind kind, int64_t tokens);
  // From explicit shares, one a rank (as a plan carries them): the union over tensor, then ulysses, must be
  // ascending within each ring share, which the constructor from a kind guarantees.
  TokenLayout(const Mesh& mesh, std::vector<TokenShare> by_rank);

  const TokenShare& OfRank(int rank) const { return by_rank_[rank]; }
  // Union over the tensor group: the tokens that rank's (ring, ulysses) coordinate computes attention
  // projections for.
  const TokenShare& OfTensorGroup(int ring, int ulysses) const {
    return by_ulysses_[ring * mesh_.ulysses + ulysses];
  }
  // Union over tensor and ulysses: the share of one ring rank.
  const TokenShare& OfRing(int ring) const { return by_ring_[ring]; }
  int64_t tokens() const { return tokens_; }
  const Mesh& mesh() const { return mesh_; }

 private:
  Mesh mesh_;
  int64_t tokens_ = 0;
  std::vector<TokenShare> by_rank_, by_ulysses_, by_ring_;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_PARALLEL_TOKEN_LAYOUT_H_
