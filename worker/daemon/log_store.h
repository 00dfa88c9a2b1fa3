// The last of what each executor printed.
#ifndef SEQPAR_WORKER_DAEMON_LOG_STORE_H_
#define SEQPAR_WORKER_DAEMON_LOG_STORE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace seqpar {

// The executor of one rank of one attempt.
struct RankKey {
  std::string job;
  int32_t attempt = 0;
  int32_t rank = 0;
  friend bool operator==(const RankKey&, const RankKey&) = default;
  friend auto operator<=>(const RankKey&, const RankKey&) = default;
};

// The last kTailBytes of each rank, for the attempts that run here and, of the others, those among the last
// `attempts_kept` that began. Not thread-safe.
class LogStore {
 public:
  static constexpr size_t kTailBytes = 64 * 1024;

  explicit LogStore(size_t attempts_kept) : attempts_kept_(attempts_kept) {}

  // `device` is where the rank runs ("node/0"). Forgets the oldest attempts past the limit.
  void Begin(const RankKey& key, const std::string& device);
  // It runs no more: its attempt may be forgotten. Nothing for one that did not begin.
  void End(const RankKey& key);
  // Appends to a rank that began; bytes for one that was forgotten are dropped.
  void Append(const RankKey& key, const char* data, size_t bytes);

  struct Tail {
    RankKey key;
    std::string device;
    std::string text;  // valid UTF-8: what is not becomes '?'
  };
  // By attempt, then rank.
  std::vector<Tail> Find(const std::string& job, std::optional<int32_t> attempt,
                         std::optional<int32_t> rank) const;

 private:
  struct Entry {
    std::string device;
    std::string text;
    bool running = false;
  };
  void ForgetOld();

  const size_t attempts_kept_;
  std::deque<std::pair<std::string, int32_t>> attempts_;  // oldest first
  std::map<RankKey, Entry> entries_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_LOG_STORE_H_
