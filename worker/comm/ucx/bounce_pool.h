// Contiguous memory for messages that are cut in several spans; kept for the next ones of that size.
#ifndef SEQPAR_WORKER_COMM_UCX_BOUNCE_POOL_H_
#define SEQPAR_WORKER_COMM_UCX_BOUNCE_POOL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <utility>

namespace seqpar {

// One thread at a time.
class BouncePool {
 public:
  struct Block {
    std::unique_ptr<char[]> data;
    int64_t bytes = 0;
  };

  // At least `bytes` long: the smallest free block that is, else a new one in place of the largest that is
  // not.
  Block Take(int64_t bytes) {
    auto found = free_.lower_bound(bytes);
    if (found == free_.end()) {
      if (!free_.empty()) free_.erase(std::prev(free_.end()));
      return Block{std::make_unique_for_overwrite<char[]>(bytes), bytes};
    }
    Block block{std::move(found->second), found->first};
    free_.erase(found);
    return block;
  }
  void Return(Block block) {
    if (block.data != nullptr) free_.emplace(block.bytes, std::move(block.data));
  }

 private:
  std::multimap<int64_t, std::unique_ptr<char[]>> free_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_COMM_UCX_BOUNCE_POOL_H_
