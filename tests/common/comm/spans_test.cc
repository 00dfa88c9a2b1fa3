#include "common/comm/spans.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <vector>

namespace seqpar {
namespace {

// Cuts [0, size) of `memory` at random places, with empty spans among them.
std::vector<Span> Cut(std::vector<char>& memory, std::mt19937& random) {
  std::vector<Span> spans;
  const auto size = static_cast<int64_t>(memory.size());
  for (int64_t at = 0; at < size;) {
    const int64_t n = std::min<int64_t>(size - at, random() % 5);
    spans.push_back(Span{memory.data() + at, n});
    at += n;
  }
  return spans;
}

TEST(SpansTest, CopiesHoweverTheSidesAreCut) {
  std::mt19937 random(1);
  for (int size = 0; size < 60; ++size) {
    std::vector<char> from(size), to(size, 'x');
    std::iota(from.begin(), from.end(), 'a');
    const std::vector<Span> source = Cut(from, random), target = Cut(to, random);
    EXPECT_EQ(TotalBytes(source), size);
    CopySpans(source, target);
    EXPECT_EQ(to, from);
  }
}

TEST(SpansTest, LeavesWhatIsInPlace) {
  std::vector<char> memory = {'a', 'b', 'c', 'd'};
  CopySpans({Span{memory.data(), 4}}, {Span{memory.data(), 1}, Span{memory.data() + 1, 3}});
  EXPECT_EQ(memory, (std::vector<char>{'a', 'b', 'c', 'd'}));
}

}  // namespace
}  // namespace seqpar
