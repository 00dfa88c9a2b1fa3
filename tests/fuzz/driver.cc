// Runs a fuzz target where libFuzzer is not built in: all of its corpus, and for some seconds what becomes of
// it when it is changed at random. It measures no coverage; `scripts/test --fuzz` builds the same targets
// with libFuzzer, which does.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "tests/fuzz/mutate.h"

extern "C" {
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
__attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t size_max,
                                                     unsigned seed);
__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());
}

namespace {

constexpr size_t kInputBytesMax = 1 << 17;
constexpr size_t kPoolMax = 512;
constexpr unsigned kSecondsOneInputMax = 20;  // times SEQPAR_TEST_TIME_FACTOR
constexpr rlim_t kMemoryBytesMax = rlim_t{6} << 30;

constexpr char kUsage[] =
    "usage: fuzz_NAME [--seconds S] [--seed N|random] [CORPUS FILE or FOLDER]...\n"
    "\n"
    "Runs every input of the corpus, then for S seconds (default 0) inputs made of them by random changes, "
    "from seed N,\n"
    "which is printed (default: SEQPAR_FUZZ_SEED, or 1: a change is not judged by what it did not bring; "
    "random: "
    "another one\n"
    "each time). An input that ends the process, or takes longer than 20 s, is written\n"
    "to crash-input in the working folder: mend what it shows, and add it to the corpus.\n"
    "\n"
    "example: build/tests/fuzz_job_file --seconds 60 --seed random tests/fuzz/corpus/job_file\n";

// What runs now, for the handler of its crash.
const uint8_t* g_data = nullptr;
size_t g_size = 0;
volatile sig_atomic_t g_saved = 0;

void SaveInput() {
  if (g_data == nullptr || g_saved != 0) return;
  g_saved = 1;
  const int file = open("crash-input", O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
  if (file < 0) return;
  const ssize_t written = write(file, g_data, g_size);
  close(file);
  constexpr char kSaid[] = "\nfuzz: the input that did it is in crash-input\n";
  if (written >= 0 && write(STDERR_FILENO, kSaid, sizeof(kSaid) - 1) < 0) return;
}

void OnSignal(int signal) {
  SaveInput();
  std::signal(signal, SIG_DFL);
  raise(signal);
}

void Run(const std::string& input) {
  g_data = reinterpret_cast<const uint8_t*>(input.data());
  g_size = input.size();
  const char* factor = std::getenv("SEQPAR_TEST_TIME_FACTOR");
  alarm(kSecondsOneInputMax * static_cast<unsigned>(factor == nullptr ? 1 : std::atoi(factor)));
  LLVMFuzzerTestOneInput(g_data, g_size);
  alarm(0);
  g_data = nullptr;
}

// A number, or "random": any.
uint32_t SeedOf(const std::string& text) {
  if (text == "random") return std::random_device()();
  char* end = nullptr;
  const unsigned long long seed = std::strtoull(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || text[0] == '-' || seed > std::numeric_limits<uint32_t>::max()) {
    std::fprintf(stderr, "fuzz: seed '%s' is neither random nor a number from 0 to %u\n", text.c_str(),
                 std::numeric_limits<uint32_t>::max());
    std::exit(2);
  }
  return static_cast<uint32_t>(seed);
}

std::string Changed(const std::string& input, uint32_t seed) {
  if (LLVMFuzzerCustomMutator == nullptr) return seqpar::MutateBytes(seed, input, kInputBytesMax);
  std::vector<uint8_t> buffer(kInputBytesMax);
  const size_t size = std::min(input.size(), buffer.size());
  std::memcpy(buffer.data(), input.data(), size);
  const size_t changed = LLVMFuzzerCustomMutator(buffer.data(), size, buffer.size(), seed);
  return {reinterpret_cast<const char*>(buffer.data()), changed};
}

std::vector<std::string> ReadCorpus(const std::vector<std::string>& paths) {
  std::vector<std::filesystem::path> files;
  for (const std::string& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      files.emplace_back(path);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(path)) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> inputs;
  for (const std::filesystem::path& file : files) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream) {
      std::fprintf(stderr, "fuzz: cannot read %s\n", file.c_str());
      std::exit(2);
    }
    inputs.push_back((std::ostringstream() << stream.rdbuf()).str());
  }
  return inputs;
}

void PrepareForCrashes() {
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM}) std::signal(signal, OnSignal);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  const rlimit memory = {kMemoryBytesMax,
                         kMemoryBytesMax};  // an input that asks for all of it must not get it
  setrlimit(RLIMIT_AS, &memory);
#else
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(SaveInput);
#endif
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 0;
  const char* set = std::getenv("SEQPAR_FUZZ_SEED");
  std::string seed_text = set == nullptr ? "1" : set;
  std::vector<std::string> paths;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool has_value = i + 1 < argc;
    if (word == "--seconds" && has_value) {
      seconds = std::atof(argv[++i]);
    } else if (word == "--seed" && has_value) {
      seed_text = argv[++i];
    } else if (word == "-h" || word == "--help" || word[0] == '-') {
      std::fputs(kUsage, word == "-h" || word == "--help" ? stdout : stderr);
      return word == "-h" || word == "--help" ? 0 : 2;
    } else {
      paths.push_back(word);
    }
  }
  const uint32_t seed = SeedOf(seed_text);
  std::vector<std::string> pool = ReadCorpus(paths);
  if (pool.empty()) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  PrepareForCrashes();
  for (const std::string& input : pool) Run(input);
  const size_t corpus = pool.size();
  std::printf("fuzz: %zu inputs of the corpus pass; seed %u\n", corpus, seed);
  std::fflush(stdout);
  std::mt19937 random(seed);
  const auto below = [&random](size_t end) {
    return std::uniform_int_distribution<size_t>(0, end - 1)(random);
  };
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  int64_t runs = 0;
  for (; std::chrono::steady_clock::now() < end; ++runs) {
    std::string changed = Changed(pool[below(pool.size())], static_cast<uint32_t>(random()));
    Run(changed);
    // Changes on top of changes; the corpus itself stays.
    if (pool.size() < corpus + kPoolMax) {
      pool.push_back(std::move(changed));
    } else {
      pool[corpus + below(kPoolMax)] = std::move(changed);
    }
  }
  std::printf("fuzz: %lld changed inputs pass\n", static_cast<long long>(runs));
  return 0;
}
