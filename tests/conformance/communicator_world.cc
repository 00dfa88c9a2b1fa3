#include "tests/conformance/communicator_world.h"

#include <chrono>
#include <numeric>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/comm/in_process.h"
#include "tests/support/time.h"
#include "worker/backend/backend.h"
#include "worker/backend/cuda_plugin.h"
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

// A GPU a rank, in one process.
absl::StatusOr<World> OverNccl(int size) {
  SEQPAR_ASSIGN_OR_RETURN(const CudaPlugin* plugin, OpenCudaPlugin());
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<GpuInfo> gpus, plugin->list());
  if (static_cast<int>(gpus.size()) < size) {
    return absl::UnavailableError(absl::StrCat(size, " GPUs are needed, there are ", gpus.size()));
  }
  World world;
  std::vector<std::shared_ptr<RankBackend>> backends;
  std::vector<std::string> blobs;
  for (int rank = 0; rank < size; ++rank) {
    BackendConfig config;
    config.kind = "cuda";
    config.ordinal = rank;
    SEQPAR_ASSIGN_OR_RETURN(std::shared_ptr<RankBackend> backend, MakeRankBackend(config));
    SEQPAR_ASSIGN_OR_RETURN(std::string blob, backend->Blob(rank));
    blobs.push_back(std::move(blob));
    world.push_back(std::make_unique<RankWorld>());
    world.back()->device = std::shared_ptr<Device>(backend, backend->device());
    backends.push_back(std::move(backend));
  }
  std::vector<absl::Status> statuses(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      RankWorld& r = *world[rank];
      auto comm = backends[rank]->Connect(rank, blobs, TestSeconds(30), &r.traffic);
      statuses[rank] = comm.status();
      if (!comm.ok()) return;
      r.comm = std::move(comm).value();
      r.stream = r.device->CreateStream("first");
      r.second_stream = r.device->CreateStream("second");
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) SEQPAR_RETURN_IF_ERROR(status);
  return world;
}

}  // namespace

const std::vector<CommunicatorBackend>& CommunicatorBackends() {
  static const auto* const backends = new std::vector<CommunicatorBackend>{
      {"in_process", [](int size) { return OverEndpoints(MakeInProcessWorld(size)); }},
      {"ucx_shared_memory", [](int size) { return OverUcx(size, "posix,cma,self"); }},
      {"ucx_tcp", [](int size) { return OverUcx(size, "tcp,self"); }},
      {"nccl", OverNccl, false},
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
  absl::StatusOr<World> world = backend().make(std::get<1>(GetParam()));
  if (absl::IsUnavailable(world.status())) GTEST_SKIP() << world.status();
  ASSERT_TRUE(world.ok()) << world.status();
  world_ = std::move(world).value();
}

std::string ConformanceName(const testing::TestParamInfo<std::tuple<int, int>>& info) {
  return absl::StrCat(CommunicatorBackends()[std::get<0>(info.param)].name, "_", std::get<1>(info.param));
}

}  // namespace seqpar
