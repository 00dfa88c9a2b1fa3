#include "common/parallel/token_layout.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace seqpar {
namespace {

int64_t LastOf(const Segment& segment) { return segment.PositionAt(segment.size() - 1); }

// The index-th of n contiguous parts of [0, size): the first size % n are one longer.
int64_t PartBegin(int64_t size, int64_t n, int64_t index) {
  return size / n * index + std::min(index, size % n);
}

TokenShare Join(const std::vector<TokenShare>& shares, size_t first, size_t count) {
  std::vector<Segment> segments;
  for (size_t i = first; i < first + count; ++i) {
    segments.insert(segments.end(), shares[i].segments().begin(), shares[i].segments().end());
  }
  return TokenShare(segments);
}

}  // namespace

bool TokenShare::Ascends(const std::vector<Segment>& segments) {
  int64_t last = -1;
  for (const Segment& segment : segments) {
    if (segment.stride < 1) return false;
    if (segment.end <= segment.begin) continue;
    if (segment.begin <= last) return false;
    last = LastOf(segment);
  }
  return true;
}

TokenShare::TokenShare(const std::vector<Segment>& segments) {
  SEQPAR_CHECK(Ascends(segments));
  for (const Segment& segment : segments) {
    const int64_t size = segment.size();
    if (size == 0) continue;
    size_ += size;
    const int64_t end = LastOf(segment) + 1;
    if (!segments_.empty() && segments_.back().stride == segment.stride &&
        segment.begin - LastOf(segments_.back()) == segment.stride) {
      segments_.back().end = end;
    } else {
      segments_.push_back(Segment{.begin = segment.begin, .end = end, .stride = segment.stride});
    }
  }
}

int64_t TokenShare::PositionAt(int64_t index) const {
  SEQPAR_CHECK(index >= 0 && index < size_);
  size_t i = 0;
  for (; index >= segments_[i].size(); ++i) index -= segments_[i].size();
  return segments_[i].PositionAt(index);
}

int64_t TokenShare::LowerBound(int64_t position) const {
  int64_t below = 0;
  for (const Segment& segment : segments_) {
    if (position <= segment.begin) break;
    const Segment part{
        .begin = segment.begin, .end = std::min(position, segment.end), .stride = segment.stride};
    below += part.size();
  }
  return below;
}

TokenShare TokenShare::Slice(int64_t begin, int64_t end) const {
  SEQPAR_CHECK(begin >= 0 && begin <= end && end <= size_);
  std::vector<Segment> parts;
  int64_t start = 0;  // index of the segment's first token
  for (const Segment& segment : segments_) {
    const int64_t from = std::max<int64_t>(begin - start, 0);
    const int64_t to = std::min(end - start, segment.size());
    if (from < to) {
      parts.push_back(Segment{.begin = segment.PositionAt(from),
                              .end = segment.PositionAt(to - 1) + 1,
                              .stride = segment.stride});
    }
    start += segment.size();
  }
  return TokenShare(parts);
}

std::vector<TokenShare> TokenShare::Split(int n) const {
  SEQPAR_CHECK(n >= 1);
  std::vector<TokenShare> parts;
  parts.reserve(n);
  for (int i = 0; i < n; ++i) parts.push_back(Slice(PartBegin(size_, n, i), PartBegin(size_, n, i + 1)));
  return parts;
}

// The positions of one stride fall into classes by their remainder, and each segment is a stretch of one
// class. As many positions as there are places, none past the end and none twice: then none is missing.
std::string WhyNotExactlyOnce(std::vector<Segment> segments) {
  segments.erase(
      std::remove_if(segments.begin(), segments.end(), [](const Segment& s) { return s.size() == 0; }),
      segments.end());
  if (segments.empty()) return "";
  int64_t n = 0;
  for (const Segment& segment : segments) {
    if (segment.stride != segments[0].stride) {
      return absl::StrCat("strides ", segments[0].stride, " and ", segment.stride, " together");
    }
    n += segment.size();
  }
  for (const Segment& segment : segments) {
    if (LastOf(segment) >= n) return absl::StrCat("position ", LastOf(segment), " is not among them");
  }
  const int64_t stride = std::min(segments[0].stride, n);  // a longer one makes no other classes
  std::sort(segments.begin(), segments.end(), [stride](const Segment& a, const Segment& b) {
    return std::make_pair(a.begin % stride, a.begin) < std::make_pair(b.begin % stride, b.begin);
  });
  int64_t next = 0;  // of a class that is whole: past the end
  for (const Segment& segment : segments) {
    const bool goes_on = segment.begin % stride == next % stride;
    if (next >= n && !goes_on) next = next % stride + 1;
    if (segment.begin < next) return absl::StrCat("position ", segment.begin, " comes twice");
    if (segment.begin > next) return absl::StrCat("position ", next, " is missing");
    next = LastOf(segment) + stride;
  }
  return "";
}

const char* LayoutName(LayoutKind kind) {
  switch (kind) {
    case LayoutKind::kContiguous:
      return "contiguous";
    case LayoutKind::kZigzag:
      return "zigzag";
    case LayoutKind::kStriped:
      return "striped";
  }
  SEQPAR_CHECK(false);
}

std::vector<TokenShare> RingShares(LayoutKind kind, int64_t n, int ring) {
  SEQPAR_CHECK(n >= 0 && ring >= 1);
  auto chunk = [n](int64_t chunks, int64_t index) {
    return Segment{.begin = PartBegin(n, chunks, index), .end = PartBegin(n, chunks, index + 1)};
  };
  std::vector<TokenShare> shares;
  for (int r = 0; r < ring; ++r) {
    switch (kind) {
      case LayoutKind::kContiguous:
        shares.emplace_back(std::vector<Segment>{chunk(ring, r)});
        break;
      case LayoutKind::kZigzag:
        shares.emplace_back(std::vector<Segment>{chunk(2 * ring, r), chunk(2 * ring, 2 * ring - 1 - r)});
        break;
      case LayoutKind::kStriped:
        shares.emplace_back(std::vector<Segment>{Segment{.begin = r, .end = n, .stride = ring}});
        break;
    }
  }
  return shares;
}

TokenLayout::TokenLayout(const Mesh& mesh, LayoutKind kind, int64_t tokens) : mesh_(mesh), tokens_(tokens) {
  by_ring_ = RingShares(kind, tokens, mesh.ring);
  for (const TokenShare& ring : by_ring_) {
    for (TokenShare& ulysses : ring.Split(mesh.ulysses)) {
      for (TokenShare& tensor : ulysses.Split(mesh.tensor)) by_rank_.push_back(std::move(tensor));
      by_ulysses_.push_back(std::move(ulysses));
    }
  }
}

TokenLayout::TokenLayout(const Mesh& mesh, std::vector<TokenShare> by_rank)
    : mesh_(mesh), by_rank_(std::move(by_rank)) {
  SEQPAR_CHECK(static_cast<int>(by_rank_.size()) == mesh.size());
  for (const TokenShare& share : by_rank_) tokens_ += share.size();
  for (int i = 0; i < mesh.ring * mesh.ulysses; ++i) {
    by_ulysses_.push_back(Join(by_rank_, static_cast<size_t>(i) * mesh.tensor, mesh.tensor));
  }
  for (int r = 0; r < mesh.ring; ++r) {
    by_ring_.push_back(Join(by_ulysses_, static_cast<size_t>(r) * mesh.ulysses, mesh.ulysses));
  }
}

}  // namespace seqpar
