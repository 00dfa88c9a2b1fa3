// Communication runs beside computation: what is enqueued, in which order, and what waits for what. No clock
// decides here; tests/bench/overlap_bench.cc measures.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/attention/scheduled_attention.h"
#include "common/base/status.h"
#include "common/comm/in_process.h"
#include "common/device/host_stream.h"
#include "common/job/job.h"
#include "gtest/gtest.h"
#include "tests/common/attention/kernel_hooks.h"
#include "tests/common/attention/recording.h"
#include "tests/support/time.h"

namespace seqpar {
namespace {

constexpr AttentionShape kShape{1, 2, 1, DType::kF32};
constexpr HeadRange kHeads{0, 1, 0, 1};
constexpr int64_t kColumns = 2;  // of q; K and V have as many each

struct Scene {
  LayoutKind layout = LayoutKind::kContiguous;
  MaskKind mask = MaskKind::kFull;
  CoreKind core = CoreKind::kRing;
  int ranks = 2;
  int inner = 2;
  Pass pass = Pass::kForward;

  std::string ToString() const {
    return absl::StrCat(LayoutName(layout), mask == MaskKind::kFull ? " full " : " causal ", CoreName(core),
                        " of ", ranks, ", inner ", inner, ", ", PassName(pass));
  }
};

// Enqueues one pass of `scene` for `rank`, and nothing of the other pass. The core lives as long as `run`.
absl::Status Enqueue(const Scene& scene, const RankStreams& streams, Communicator* group, int rank,
                     const std::function<absl::Status()>& run) {
  const int64_t tokens = 8 * scene.ranks;
  const TokenLayout layout(Mesh{1, 1, scene.ranks, scene.inner}, scene.layout, tokens);
  const Mask mask(scene.mask, tokens);
  std::vector<TokenShare> shares;
  for (int r = 0; r < scene.ranks; ++r) shares.push_back(layout.OfRing(r));
  const bool gather = scene.core == CoreKind::kGather;
  const int64_t rows = shares[rank].size();
  KvSchedule schedule =
      gather ? GatherSchedule(shares, mask, rank) : RingSchedule(shares, mask, rank, scene.inner);
  const std::unique_ptr<AttentionCore> core =
      MakeScheduledAttention(streams, group, kShape, kHeads, std::move(shares), mask, std::move(schedule),
                             gather ? Operation::kGather : Operation::kRing);
  SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<AttentionState> state, core->NewState());
  std::vector<float> q(rows * kColumns), kv(2 * q.size()), out(q.size()), dout(q.size()), dq(q.size()),
      dkv(kv.size());
  const auto matrix = [&](std::vector<float>& values, int64_t cols) {
    return Matrix(values.data(), DType::kF32, rows, cols);
  };
  const Matrix q_matrix = matrix(q, kColumns), kv_matrix = matrix(kv, 2 * kColumns);
  const Matrix out_matrix = matrix(out, kColumns);
  SEQPAR_ASSIGN_OR_RETURN(
      const Buffer scratch,
      streams.device->Allocate(std::max<int64_t>(1, core->ScratchBytes(scene.pass)), "scratch"));
  if (scene.pass == Pass::kForward) {
    core->Forward(q_matrix, kv_matrix, out_matrix, state.get(), scratch.data());
  } else {
    core->Backward(q_matrix, kv_matrix, out_matrix, matrix(dout, kColumns), state.get(), matrix(dq, kColumns),
                   matrix(dkv, 2 * kColumns), scratch.data());
  }
  return run();
}

// --- what is enqueued ---

std::vector<Span> RowsOf(const Matrix& m) { return {Span{m.data, m.rows * m.ld * SizeOf(m.dtype)}}; }

std::vector<RecordedOperation> Record(const Scene& scene, int rank) {
  Recording recording;
  HookedDevice device([&](const std::string&) { return recording.MakeStream(); },
                      [&](Stream& s, const AttentionTile& tile, const Matrix* dk) {
                        recording.Add(RecordedOperation::Kind::kTile, s, RowsOf(tile.k),
                                      dk == nullptr ? std::vector<Span>() : RowsOf(*dk));
                      });
  const auto compute = recording.MakeStream(), comm = recording.MakeStream();
  const auto group = recording.MakeCommunicator(rank, scene.ranks);
  const absl::Status status = Enqueue(scene, {&device, compute.get(), comm.get()}, group.get(), rank,
                                      [] { return absl::OkStatus(); });
  EXPECT_TRUE(status.ok()) << status;
  return recording.operations();
}

bool IsTile(const RecordedOperation& operation) { return operation.kind == RecordedOperation::Kind::kTile; }

// The exchange before operations[tile] that brought its keys; nothing where they are at home.
std::optional<size_t> Feeder(const std::vector<RecordedOperation>& operations, size_t tile) {
  for (size_t i = tile; i-- > 0;) {
    if (!IsTile(operations[i]) && Overlap(operations[i].writes, operations[tile].reads)) return i;
  }
  return std::nullopt;
}

// Number of tiles whose keys an exchange brought.
int ExpectOverlap(const std::vector<RecordedOperation>& operations) {
  int fed = 0;
  for (size_t i = 0; i < operations.size(); ++i) {
    const RecordedOperation& one = operations[i];
    if (!IsTile(one)) {
      // What is enqueued between this exchange and the next runs beside it.
      for (size_t j = i + 1; j < operations.size() && IsTile(operations[j]); ++j) {
        EXPECT_TRUE(Recording::Concurrent(one, operations[j])) << "exchange " << i << ", tile " << j;
      }
      // What it sends and somebody here computed is complete.
      for (size_t j = 0; j < i; ++j) {
        if (IsTile(operations[j]) && Overlap(operations[j].writes, one.reads)) {
          EXPECT_TRUE(Recording::Before(operations[j], one)) << "tile " << j << ", exchange " << i;
        }
      }
      continue;
    }
    const std::optional<size_t> feeder = Feeder(operations, i);
    if (!feeder) continue;
    ++fed;
    EXPECT_TRUE(Recording::Before(operations[*feeder], one)) << "exchange " << *feeder << ", tile " << i;
    // There is a tile that hides it.
    EXPECT_TRUE(*feeder + 1 < i && IsTile(operations[*feeder + 1])) << "exchange " << *feeder;
  }
  return fed;
}

TEST(OverlapTest, ExchangeOfTheNextStepIsPostedBeforeTheTileThatHidesIt) {
  for (const auto& [ranks, inner] : {std::pair(2, 2), {4, 4}, {5, 5}, {4, 2}, {6, 3}, {6, 2}}) {
    for (const LayoutKind layout : {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped}) {
      for (const MaskKind mask : {MaskKind::kFull, MaskKind::kCausal}) {
        for (const Pass pass : {Pass::kForward, Pass::kBackward}) {
          const Scene scene{layout, mask, CoreKind::kRing, ranks, inner, pass};
          for (int rank = 0; rank < ranks; ++rank) {
            SCOPED_TRACE(absl::StrCat(scene.ToString(), ", rank ", rank));
            const std::vector<RecordedOperation> operations = Record(scene, rank);
            EXPECT_FALSE(IsTile(operations[0]));
            const int fed = ExpectOverlap(operations);
            // In a causal mask of contiguous shares a rank attends those before it only.
            const bool whole = mask == MaskKind::kFull || layout != LayoutKind::kContiguous;
            EXPECT_GE(fed, whole ? ranks - 1 : rank);
            // Also the last gradients' way home.
            if (pass == Pass::kBackward && whole) {
              EXPECT_TRUE(IsTile(operations.back()));
            }
          }
        }
      }
    }
  }
}

TEST(OverlapTest, GatherIsPostedBeforeTheOwnTile) {
  for (const LayoutKind layout : {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped}) {
    for (const Pass pass : {Pass::kForward, Pass::kBackward}) {
      const Scene scene{layout, MaskKind::kFull, CoreKind::kGather, 4, 4, pass};
      for (int rank = 0; rank < scene.ranks; ++rank) {
        SCOPED_TRACE(absl::StrCat(scene.ToString(), ", rank ", rank));
        const std::vector<RecordedOperation> operations = Record(scene, rank);
        const int fed = ExpectOverlap(operations);
        if (pass == Pass::kBackward) {  // K and V were kept; gradients travel beside the last tile
          EXPECT_TRUE(IsTile(operations.back()));
          continue;
        }
        EXPECT_GE(fed, scene.ranks - 1);
        // All of it at once, beside the keys that are at home.
        for (size_t i = 0; i < operations.size(); ++i) {
          if (!IsTile(operations[i])) continue;
          EXPECT_EQ(Feeder(operations, i).value_or(0), 0u);
        }
        EXPECT_FALSE(IsTile(operations[0]));
        ASSERT_TRUE(IsTile(operations[1]));
        EXPECT_FALSE(Feeder(operations, 1).has_value());
      }
    }
  }
}

// --- what runs ---

// Lets a rank's exchange n complete only while its tile n runs, and tile n only when exchange n is complete:
// one after the other, in either order, ends in an error.
class Gate {
 public:
  explicit Gate(int steps) : steps_(steps) {}

  absl::Status Tile() {
    const int step = tiles_.fetch_add(1);
    return Reach(&begun_, step, &exchanged_, "the exchange beside tile ");
  }
  absl::Status Exchanged() {
    const int step = exchanges_.fetch_add(1);
    if (step >= steps_) return absl::OkStatus();  // the last slot's, which is empty forward
    return Reach(&exchanged_, step, &begun_, "the tile beside exchange ");
  }
  int tiles() const { return tiles_; }
  int exchanges() const { return exchanges_; }

 private:
  absl::Status Reach(int* own, int step, const int* other, const char* missing) {
    std::unique_lock<std::mutex> lock(mutex_);
    *own = step + 1;
    changed_.notify_all();
    if (changed_.wait_for(lock, TestSeconds(60), [&] { return *other > step; })) {
      return absl::OkStatus();
    }
    return absl::DeadlineExceededError(absl::StrCat(missing, step, " does not come"));
  }

  const int steps_;
  std::atomic<int> tiles_{0}, exchanges_{0};
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  int begun_ = 0, exchanged_ = 0;
};

class GatedEndpoint : public Endpoint {
 public:
  GatedEndpoint(std::shared_ptr<Endpoint> endpoint, Gate* gate)
      : endpoint_(std::move(endpoint)), gate_(gate) {}
  int world_rank() const override { return endpoint_->world_rank(); }
  int world_size() const override { return endpoint_->world_size(); }
  absl::Status Exchange(uint32_t channel, const std::vector<Transfer>& sends,
                        const std::vector<Transfer>& recvs, std::atomic<int>* waiting_for) override {
    SEQPAR_RETURN_IF_ERROR(endpoint_->Exchange(channel, sends, recvs, waiting_for));
    return gate_->Exchanged();
  }
  void Abort(const absl::Status& why) override { endpoint_->Abort(why); }

 private:
  const std::shared_ptr<Endpoint> endpoint_;
  Gate* const gate_;
};

absl::Status RunGated(const Scene& scene, const std::shared_ptr<Endpoint>& endpoint, Gate* gate) {
  HookedDevice device(MakeHostStream, [&](Stream& s, const AttentionTile&, const Matrix*) {
    s.HostFunction([gate] { return gate->Tile(); });
  });
  const auto compute = MakeHostStream("compute"), comm = MakeHostStream("comm");
  const auto world =
      MakeExchangeCommunicator(std::make_shared<GatedEndpoint>(endpoint, gate), &device, nullptr);
  return Enqueue(scene, {&device, compute.get(), comm.get()}, world.get(), endpoint->world_rank(), [&] {
    const absl::Status computed = compute->Synchronize();
    if (!computed.ok()) world->Abort(computed);
    const absl::Status exchanged = comm->Synchronize();
    return computed.ok() ? exchanged : computed;
  });
}

TEST(OverlapTest, ExchangeOfTheNextStepCompletesWhileTheTileRuns) {
  for (const auto& [ranks, inner] : {std::pair(2, 2), {4, 4}, {4, 2}}) {
    for (const Pass pass : {Pass::kForward, Pass::kBackward}) {
      // A tile and an exchange in every step; backward, one more of both, when the last gradients go home.
      const Scene scene{LayoutKind::kContiguous, MaskKind::kFull, CoreKind::kRing, ranks, inner, pass};
      SCOPED_TRACE(scene.ToString());
      const auto endpoints = MakeInProcessWorld(ranks);
      std::vector<std::unique_ptr<Gate>> gates;
      std::vector<absl::Status> statuses(ranks);
      std::vector<std::thread> threads;
      const int steps = pass == Pass::kForward ? ranks : ranks + 1;
      for (int rank = 0; rank < ranks; ++rank) gates.push_back(std::make_unique<Gate>(steps));
      for (int rank = 0; rank < ranks; ++rank) {
        threads.emplace_back(
            [&, rank] { statuses[rank] = RunGated(scene, endpoints[rank], gates[rank].get()); });
      }
      for (std::thread& thread : threads) thread.join();
      for (int rank = 0; rank < ranks; ++rank) {
        EXPECT_TRUE(statuses[rank].ok()) << "rank " << rank << ": " << statuses[rank];
        EXPECT_EQ(gates[rank]->tiles(), steps);
        EXPECT_GE(gates[rank]->exchanges(), steps);
      }
    }
  }
}

}  // namespace
}  // namespace seqpar
