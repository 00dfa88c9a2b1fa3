#include "common/tensor/seeded.h"

#include <cmath>

#include "common/base/check.h"

namespace seqpar {
namespace {

// Multipliers and Weyl increments of Philox4x32, from the paper.
constexpr uint32_t kMultiplier0 = 0xD2511F53;
constexpr uint32_t kMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kWeyl0 = 0x9E3779B9;
constexpr uint32_t kWeyl1 = 0xBB67AE85;
constexpr int kRounds = 10;

constexpr uint32_t Low(uint64_t v) { return static_cast<uint32_t>(v); }
constexpr uint32_t High(uint64_t v) { return static_cast<uint32_t>(v >> 32); }

// Each value of the sequence once, as it is computed, rounded to T by the assignment alone.
template <typename T>
void Fill(uint64_t seed, const std::string& name, double variance, int64_t begin, int64_t n, T* out) {
  SEQPAR_CHECK(begin >= 0 && n >= 0 && variance >= 0);
  const double bound = std::sqrt(3 * variance);
  const uint64_t hash = Fnv1a64(name);
  const uint32_t key[2] = {Low(seed), High(seed)};
  const int64_t end = begin + n;
  for (int64_t index = begin; index < end;) {
    const uint64_t block = static_cast<uint64_t>(index) / 4;
    const uint32_t counter[4] = {Low(block), High(block), Low(hash), High(hash)};
    uint32_t words[4];
    Philox4x32(counter, key, words);
    do {
      const double fraction = (words[index % 4] >> 8) * 0x1p-24;
      *out++ = static_cast<T>((2 * fraction - 1) * bound);
      ++index;
    } while (index % 4 != 0 && index < end);
  }
}

}  // namespace

void Philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product0 = uint64_t{kMultiplier0} * c0;
    const uint64_t product1 = uint64_t{kMultiplier1} * c2;
    c0 = High(product1) ^ c1 ^ k0;
    c1 = Low(product1);
    c2 = High(product0) ^ c3 ^ k1;
    c3 = Low(product0);
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

uint64_t Fnv1a64(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (char c : text) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3;
  }
  return hash;
}

void SeededUniform(uint64_t seed, const std::string& name, double variance, int64_t begin, int64_t n,
                   float* out) {
  Fill(seed, name, variance, begin, n, out);
}

void SeededUniform(uint64_t seed, const std::string& name, double variance, int64_t begin, int64_t n,
                   double* out) {
  Fill(seed, name, variance, begin, n, out);
}

}  // namespace seqpar
