// What takes long to make for a shape, made once and kept by it: bounded, counted, timed. Pure, no CUDA.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_MADE_SHAPES_H_
#define SEQPAR_WORKER_DEVICE_CUDA_MADE_SHAPES_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>

namespace seqpar::cuda {

// Used from one thread, the counts read from any. A value may say that there is nothing for the shape: that
// takes as long to find out, and is kept and counted like any other.
template <typename Shape, typename Value>
class MadeShapes {
 public:
  struct Limits {
    size_t kept = 1024;            // past it what was not asked for the longest goes
    int64_t made_ahead_max = 0;    // in all
    double ahead_seconds_max = 0;  // begun after it: none
  };
  using Make = std::function<Value(const Shape&)>;
  using Seconds = std::function<double()>;  // a clock that only goes forward
  MadeShapes(const Limits& limits, Make make, Seconds now)
      : limits_(limits), make_(std::move(make)), now_(std::move(now)) {}

  // By a call that needs it at once. Valid until the next call.
  const Value& Get(const Shape& shape) { return *Find(shape, &late_); }
  // Before a call needs it. Null where it would have to be made and the limits on that are reached. Valid
  // until the next call.
  const Value* GetAhead(const Shape& shape) {
    const bool over = ahead_.count >= limits_.made_ahead_max || ahead_.seconds >= limits_.ahead_seconds_max;
    if (over && entries_.count(shape) == 0) return nullptr;
    return Find(shape, &ahead_);
  }

  int64_t made_ahead() const { return ahead_.count; }
  int64_t made_late() const { return late_.count; }
  double ahead_seconds() const { return ahead_.seconds; }
  double late_seconds() const { return late_.seconds; }

 private:
  struct Made {
    std::atomic<int64_t> count{0};
    std::atomic<double> seconds{0};
  };
  struct Entry {
    Value value;
    int64_t asked;
  };

  const Value* Find(const Shape& shape, Made* made) {
    auto found = entries_.find(shape);
    if (found == entries_.end()) {
      if (entries_.size() >= limits_.kept) DropOne();
      const double begin = now_();
      found = entries_.emplace(shape, Entry{make_(shape), 0}).first;
      made->seconds = made->seconds + now_() - begin;
      ++made->count;
    }
    found->second.asked = ++asked_;
    return &found->second.value;
  }
  void DropOne() {
    auto oldest = entries_.begin();
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      if (it->second.asked < oldest->second.asked) oldest = it;
    }
    entries_.erase(oldest);
  }

  const Limits limits_;
  const Make make_;
  const Seconds now_;
  std::map<Shape, Entry> entries_;
  int64_t asked_ = 0;
  Made ahead_, late_;
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_MADE_SHAPES_H_
