// Worlds of ranks over every communicator backend, for the conformance suite. A new backend is one more line
// in CommunicatorBackends(), in communicator_world.cc.
#ifndef SEQPAR_TESTS_CONFORMANCE_COMMUNICATOR_WORLD_H_
#define SEQPAR_TESTS_CONFORMANCE_COMMUNICATOR_WORLD_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"
#include "common/comm/communicator.h"
#include "common/device/device.h"

namespace seqpar {

// One rank: its device, streams, counter and the communicator of the world. Members go in reverse order.
struct RankWorld {
  std::shared_ptr<Device> device;
  TrafficCounter traffic;
  std::unique_ptr<Communicator> comm;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<Stream> second_stream;

  int rank() const { return comm->rank(); }
  int size() const { return comm->size(); }
};

using World = std::vector<std::unique_ptr<RankWorld>>;

struct CommunicatorBackend {
  std::string name;
  // UNAVAILABLE where this machine cannot have such a world: its tests are skipped, and say why.
  std::function<absl::StatusOr<World>(int size)> make;
  // Whether messages of sizes that disagree are noticed: NCCL sends no sizes.
  bool checks_sizes = true;
};

const std::vector<CommunicatorBackend>& CommunicatorBackends();

// Runs `body` for every rank at once, each in a thread of its own.
void RunRanks(const World& world, const std::function<void(RankWorld&)>& body);

// A vector in device memory.
template <typename T>
class OnDevice {
 public:
  OnDevice(RankWorld& rank, const std::vector<T>& values)
      : rank_(rank), size_(static_cast<int64_t>(values.size())) {
    // Never empty, so that an address exists.
    absl::StatusOr<Buffer> buffer = rank.device->Allocate(size_ * sizeof(T) + 1, "test");
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    buffer_ = std::move(buffer).value();
    rank.device->CopyFromHost(*rank.stream, values.data(), buffer_.data(), size_ * sizeof(T));
    EXPECT_TRUE(rank.stream->Synchronize().ok());
  }
  OnDevice(RankWorld& rank, int64_t size) : OnDevice(rank, std::vector<T>(size)) {}

  T* data() const { return static_cast<T*>(buffer_.data()); }
  int64_t size() const { return size_; }
  Span span(int64_t begin, int64_t end) const {
    return Span{data() + begin, (end - begin) * static_cast<int64_t>(sizeof(T))};
  }
  Span all() const { return span(0, size_); }
  // After everything enqueued on the rank's first stream.
  std::vector<T> Read() const {
    std::vector<T> values(size_);
    rank_.device->CopyToHost(*rank_.stream, data(), values.data(), size_ * sizeof(T));
    const absl::Status status = rank_.stream->Synchronize();
    EXPECT_TRUE(status.ok()) << status;
    return values;
  }

 private:
  RankWorld& rank_;
  const int64_t size_;
  Buffer buffer_;
};

// n consecutive integers from `first`.
std::vector<int32_t> Count(int64_t first, int64_t n);

// Parameterised over backend and world size.
class CommunicatorConformance : public testing::TestWithParam<std::tuple<int, int>> {
 protected:
  void SetUp() override;
  int size() const { return static_cast<int>(world_.size()); }
  const CommunicatorBackend& backend() const { return CommunicatorBackends()[std::get<0>(GetParam())]; }
  World world_;
};

std::string ConformanceName(const testing::TestParamInfo<std::tuple<int, int>>& info);

#define SEQPAR_INSTANTIATE_CONFORMANCE(first_size, last_size)                                        \
  INSTANTIATE_TEST_SUITE_P(                                                                          \
      Backends, CommunicatorConformance,                                                             \
      testing::Combine(testing::Range(0, static_cast<int>(::seqpar::CommunicatorBackends().size())), \
                       testing::Range(first_size, last_size + 1)),                                   \
      ConformanceName)

}  // namespace seqpar

#endif  // SEQPAR_TESTS_CONFORMANCE_COMMUNICATOR_WORLD_H_
