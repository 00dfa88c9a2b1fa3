#include "tests/oracle/pairwise.h"

#include <cstddef>
#include <random>
#include <utility>

#include "common/base/check.h"

namespace seqpar {
namespace {

class Cover {
 public:
  Cover(const std::vector<int>& sizes, const Excluded& excluded) : sizes_(sizes), excluded_(excluded) {
    for (const int size : sizes_) {
      first_.push_back(values_);
      values_ += size;
    }
    open_.assign(values_ * values_, false);
    for (size_t f = 0; f < sizes_.size(); ++f) {
      for (size_t g = f + 1; g < sizes_.size(); ++g) {
        for (int a = 0; a < sizes_[f]; ++a) {
          for (int b = 0; b < sizes_[g]; ++b) open_[At(f, a, g, b)] = !IsExcluded(f, a, g, b);
        }
      }
    }
  }

  bool NextCase(std::vector<int>* values) {
    values->assign(sizes_.size(), -1);
    if (!TakeFirstOpenPair(values)) return false;
    for (size_t f = 0; f < sizes_.size(); ++f) {
      if ((*values)[f] >= 0) continue;
      int best = 0, best_gain = -1;
      const int start = static_cast<int>(random_() % sizes_[f]);
      for (int a = 0; a < sizes_[f]; ++a) {
        // Ties go by chance, so that values which cover nothing new are spread too.
        const int value = (a + start) % sizes_[f];
        if (!Fits(*values, f, value)) continue;
        const int gain = Gain(*values, f, value);
        if (gain > best_gain) {
          best = value;
          best_gain = gain;
        }
      }
      SEQPAR_CHECK(best_gain >= 0);
      (*values)[f] = best;
    }
    for (size_t f = 0; f < sizes_.size(); ++f) {
      for (size_t g = f + 1; g < sizes_.size(); ++g) open_[At(f, (*values)[f], g, (*values)[g])] = false;
    }
    return true;
  }

 private:
  // REQUIRES: f < g.
  size_t At(size_t f, int a, size_t g, int b) const { return (first_[f] + a) * values_ + first_[g] + b; }

  bool IsExcluded(size_t f, int a, size_t g, int b) const { return excluded_ && excluded_(f, a, g, b); }

  bool Fits(const std::vector<int>& values, size_t f, int value) const {
    for (size_t g = 0; g < sizes_.size(); ++g) {
      if (g == f || values[g] < 0) continue;
      if (f < g ? IsExcluded(f, value, g, values[g]) : IsExcluded(g, values[g], f, value)) return false;
    }
    return true;
  }

  bool TakeFirstOpenPair(std::vector<int>* values) const {
    for (size_t f = 0; f < sizes_.size(); ++f) {
      for (size_t g = f + 1; g < sizes_.size(); ++g) {
        for (int a = 0; a < sizes_[f]; ++a) {
          for (int b = 0; b < sizes_[g]; ++b) {
            if (!open_[At(f, a, g, b)]) continue;
            (*values)[f] = a;
            (*values)[g] = b;
            return true;
          }
        }
      }
    }
    return false;
  }

  int Gain(const std::vector<int>& values, size_t f, int value) const {
    int gain = 0;
    for (size_t g = 0; g < sizes_.size(); ++g) {
      if (g == f || values[g] < 0) continue;
      gain += f < g ? open_[At(f, value, g, values[g])] : open_[At(g, values[g], f, value)];
    }
    return gain;
  }

  const std::vector<int> sizes_;
  const Excluded excluded_;
  std::vector<size_t> first_;
  size_t values_ = 0;
  std::minstd_rand random_{1};
  std::vector<bool> open_;
};

}  // namespace

std::vector<std::vector<int>> PairwiseCases(const std::vector<int>& sizes, const Excluded& excluded) {
  Cover cover(sizes, excluded);
  std::vector<std::vector<int>> cases;
  for (std::vector<int> values; cover.NextCase(&values);) cases.push_back(values);
  return cases;
}

std::vector<std::vector<int>> AllCases(const std::vector<int>& sizes, const Excluded& excluded) {
  std::vector<std::vector<int>> cases = {{}};
  for (const int size : sizes) {
    std::vector<std::vector<int>> longer;
    for (const std::vector<int>& prefix : cases) {
      const auto fits = [&](int value) {
        for (size_t f = 0; excluded && f < prefix.size(); ++f) {
          if (excluded(f, prefix[f], prefix.size(), value)) return false;
        }
        return true;
      };
      for (int value = 0; value < size; ++value) {
        if (!fits(value)) continue;
        longer.push_back(prefix);
        longer.back().push_back(value);
      }
    }
    cases = std::move(longer);
  }
  return cases;
}

}  // namespace seqpar
