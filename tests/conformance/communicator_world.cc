#include "tests/conformance/communicator_world.h"

#include <numeric>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/comm/in_process.h"
#include "worker/comm/ucx/ucx_endpoint.h"
#include "worker/device/cpu/cpu_device.h"

namespace seqpar {
namespace {

using Endpoints = std::vector<std::shared_ptr<Endpoint>>;

// What every backend that supplies endpoints shares: ranks with a CPU device of one thread.
absl::StatusOr<World> OverEndpoints(const Endpoints& endpoints) {
  World world;
  for (const std::shared_ptr<Endpoint>& endpoint : endpoints) {
    auto rank = std::make_unique<RankWorld>();
    SEQPAR_ASSIGN_OR_RETURN(rank->device, MakeCpuDevice(CpuDeviceConfig{}));
    rank->comm = MakeExchangeCommunicator(endpoint, rank->device.get(), &rank->traffic);
    rank->stream = rank->device->CreateStream("first");
    rank->second_stream = rank->device->CreateStream("second");
    world.push_back(std::move(rank));
  }
  return world;
}

absl::StatusOr<World> OverUcx(int size, const std::string& transports) {
  std::vector<std::unique_ptr<UcxWorker>> workers(size);
  std::vector<std::string> blobs;
  for (std::unique_ptr<UcxWorker>& worker : workers) {
    SEQPAR_ASSIGN_OR_RETURN(worker, UcxWorker::Create(UcxConfig{"lo", transports}));
    blobs.push_back(worker->AddressBlob());
  }
  Endpoints endpoints(size);
  for (int rank = 0; rank < size; ++rank) {
    SEQPAR_ASSIGN_OR_RETURN(endpoints[rank], workers[rank]->Connect(rank, blobs));
  }
  return OverEndpoints(endpoints);
}

}  // namespace

const std::vector<CommunicatorBackend>& CommunicatorBackends() {
  static const auto* const backends = new std::vector<CommunicatorBackend>{
      {"in_process", [](int size) { return OverEndpoints(MakeInProcessWorld(size)); }},
      {"ucx_shared_memory", [](int size) { return OverUcx(size, "posix,cma,self"); }},
      {"ucx_tcp", [](int size) { return OverUcx(size, "tcp,self"); }},
  };
  return *backends;
}

void RunRanks(const World& world, const std::function<void(RankWorld&)>& body) {
  std::vector<std::thread> threads;
  for (const std::unique_ptr<RankWorld>& rank : world) threads.emplace_back([&] { body(*rank); });
  for (std::thread& thread : threads) thread.join();
}

std::vector<int32_t> Count(int64_t first, int64_t n) {
  std::vector<int32_t> values(n);
  std::iota(values.begin(), values.end(), static_cast<int32_t>(first));
  return values;
}

void CommunicatorConformance::SetUp() {
  const auto [backend, size] = GetParam();
  absl::StatusOr<World> world = CommunicatorBackends()[backend].make(size);
  ASSERT_TRUE(world.ok()) << world.status();
  world_ = std::move(world).value();
}

std::string ConformanceName(const testing::TestParamInfo<std::tuple<int, int>>& info) {
  return absl::StrCat(CommunicatorBackends()[std::get<0>(info.param)].name, "_", std::get<1>(info.param));
}

}  // namespace seqpar
