#include "tests/bench/attention_ranks.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <functional>
#include <thread>
#include <utility>

#include "common/base/check.h"
#include "common/comm/in_process.h"
#include "common/layers/rank_groups.h"
#include "common/tensor/seeded.h"
#include "worker/comm/ucx/ucx_endpoint.h"
#include "worker/device/cpu/cpu_device.h"

namespace seqpar {
namespace {

using Clock = std::chrono::steady_clock;

std::vector<std::shared_ptr<Endpoint>> MakeEndpoints(const AttentionRanksOptions& options) {
  const int size = options.mesh.size();
  if (options.ucx.empty()) return MakeInProcessWorld(size, options.bytes_per_second);
  std::vector<std::unique_ptr<UcxWorker>> workers;
  std::vector<std::string> blobs;
  for (int rank = 0; rank < size; ++rank) {
    workers.push_back(UcxWorker::Create(UcxConfig{"lo", options.ucx}).value());
    blobs.push_back(workers.back()->AddressBlob());
  }
  std::vector<std::shared_ptr<Endpoint>> endpoints;
  for (int rank = 0; rank < size; ++rank) endpoints.push_back(workers[rank]->Connect(rank, blobs).value());
  return endpoints;
}

void OnEveryRank(size_t ranks, const std::function<void(size_t)>& body) {
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < ranks; ++rank) threads.emplace_back([&body, rank] { body(rank); });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

// Members go in reverse order.
struct AttentionRanks::Rank {
  Rank(const AttentionRanksOptions& options, int rank, const std::shared_ptr<Endpoint>& endpoint)
      : device(MakeCpuDevice({options.threads, 0, "auto"}).value()),
        compute(device->CreateStream("compute")),
        comm(device->CreateStream("comm")),
        world(MakeExchangeCommunicator(endpoint, device.get(), nullptr)) {
    const HeadLayout heads(options.mesh, options.heads, options.heads);
    groups = RankGroups::Create(world.get(), options.mesh, heads).value();
    const AttentionShape shape{1, options.head_dim, heads.group(), DType::kF32};
    const AttentionPlan plan{StrategyKind::kHybrid,
                             options.core,
                             TokenLayout(options.mesh, options.layout, options.tokens),
                             heads,
                             Mask(options.mask, options.tokens),
                             shape,
                             rank};
    Stream* const comm_stream = options.one_stream ? compute.get() : comm.get();
    core = MakeAttention(plan, {device.get(), compute.get(), comm_stream}, {groups.ulysses(), groups.ring()})
               .value();
    state = core->NewState().value();
    const Pass largest = options.backward ? Pass::kBackward : Pass::kForward;
    scratch = device->Allocate(std::max<int64_t>(1, core->ScratchBytes(largest)), "scratch").value();
    const int64_t rows = core->tokens().size();
    const int64_t cols = int64_t{core->heads().q_heads()} * options.head_dim;
    for (Matrix* m : {&q, &out, &dout, &dq}) *m = NewMatrix(rows, cols);
    for (Matrix* m : {&kv, &dkv}) *m = NewMatrix(rows, 2 * cols);
  }

  Matrix NewMatrix(int64_t rows, int64_t cols) {
    memory.push_back(device->Allocate(rows * cols * 4, "bench").value());
    const Matrix m(memory.back().data(), DType::kF32, rows, cols);
    SeededUniform(1, std::to_string(memory.size()), 1.0, 0, rows * cols, static_cast<float*>(m.data));
    return m;
  }

  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> compute, comm;
  std::unique_ptr<Communicator> world;
  RankGroups groups;
  std::unique_ptr<AttentionCore> core;
  std::unique_ptr<AttentionState> state;
  Buffer scratch;
  std::vector<Buffer> memory;
  Matrix q, kv, out, dout, dq, dkv;
};

AttentionRanks::AttentionRanks(const AttentionRanksOptions& options)
    : options_(options), ranks_(options.mesh.size()) {
  const auto endpoints = MakeEndpoints(options_);
  OnEveryRank(ranks_.size(), [&](size_t rank) {
    ranks_[rank] = std::make_unique<Rank>(options_, static_cast<int>(rank), endpoints[rank]);
  });
}

AttentionRanks::~AttentionRanks() = default;

AttentionTimes AttentionRanks::Run() {
  std::barrier<> ready(static_cast<std::ptrdiff_t>(ranks_.size()));
  std::vector<Clock::time_point> begin(ranks_.size()), end(ranks_.size());
  std::vector<StreamTimes> times(ranks_.size());
  OnEveryRank(ranks_.size(), [&](size_t rank) {
    Rank& r = *ranks_[rank];
    const StreamTimes before = r.compute->times();
    ready.arrive_and_wait();
    begin[rank] = Clock::now();
    r.core->Forward(r.q, r.kv, r.out, r.state.get(), r.scratch.data());
    if (options_.backward) {
      r.core->Backward(r.q, r.kv, r.out, r.dout, r.state.get(), r.dq, r.dkv, r.scratch.data());
    }
    SEQPAR_CHECK(r.compute->Synchronize().ok() && r.comm->Synchronize().ok());
    end[rank] = Clock::now();
    const StreamTimes after = r.compute->times();
    times[rank] = {after.busy_seconds - before.busy_seconds, after.wait_seconds - before.wait_seconds};
  });
  AttentionTimes result;
  result.seconds = std::chrono::duration<double>(*std::max_element(end.begin(), end.end()) -
                                                 *std::min_element(begin.begin(), begin.end()))
                       .count();
  for (const StreamTimes& t : times) {
    result.kernel_seconds += t.busy_seconds / static_cast<double>(times.size());
    result.wait_seconds += t.wait_seconds / static_cast<double>(times.size());
  }
  return result;
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

}  // namespace seqpar
