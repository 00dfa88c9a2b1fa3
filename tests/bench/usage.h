// What benches say of their arguments: --help, and what is wrong with a number or a flag. Those with more
// than a few words use CLI11.
#ifndef SEQPAR_TESTS_BENCH_USAGE_H_
#define SEQPAR_TESTS_BENCH_USAGE_H_

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace seqpar {

// The words after the program's name. Prints `usage` and ends with 0 where one of them is --help or -h, and
// ends with 2 where one begins like a flag and is not among `flags`.
inline std::vector<std::string> BenchWords(int argc, char** argv, const char* usage,
                                           const std::vector<std::string>& flags = {}) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  for (const std::string& word : words) {
    if (word == "--help" || word == "-h") {
      std::fputs(usage, stdout);
      std::exit(0);
    }
    if (word.rfind("--", 0) == 0 && std::find(flags.begin(), flags.end(), word) == flags.end()) {
      std::fprintf(stderr, "no flag is called '%s'\n%s", word.c_str(), usage);
      std::exit(2);
    }
  }
  return words;
}

// The whole number that is `words[i]`, `otherwise` where there are fewer words. Ends the program with 2, and
// says the nearest, where the word is none or below `least`.
inline int64_t BenchNumber(const std::vector<std::string>& words, size_t i, const char* name,
                           int64_t otherwise, int64_t least = 1) {
  if (i >= words.size()) return otherwise;
  char* end = nullptr;
  const long long value = std::strtoll(words[i].c_str(), &end, 10);
  if (!words[i].empty() && *end == '\0' && value >= least) return value;
  std::fprintf(stderr, "%s: is '%s'; must be a whole number of at least %lld; nearest: %lld (--help)\n", name,
               words[i].c_str(), static_cast<long long>(least), static_cast<long long>(least));
  std::exit(2);
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_BENCH_USAGE_H_
