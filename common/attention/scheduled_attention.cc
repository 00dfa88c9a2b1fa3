#include "common/attention/scheduled_attention.h"

#include <utility>

#include "common/attention/scheduled_tiles.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/device/carve.h"

namespace seqpar {
namespace {

class State : public AttentionState {
 public:
  Buffer lse;
  Buffer kept_kv;  // the receive buffer, where the schedule keeps K/V for backward
};

class ScheduledAttention : public AttentionCore {
 public:
  ScheduledAttention(const RankStreams& streams, Communicator* group, const AttentionShape& shape,
                     const HeadRange& heads, std::vector<TokenShare> shares, const Mask& mask,
                     KvSchedule schedule, Operation operation)
      : streams_(streams),
        group_(group),
        shape_(shape),
        heads_(heads),
        tokens_(shares[schedule.rank]),
        mask_(mask),
        schedule_(std::move(schedule)),
        operation_(operation),
        tiles_(PlanTiles(shape_, heads_, tokens_, mask_, schedule_)),
        whole_(WholeTile()) {
    SEQPAR_CHECK(schedule_.ranks == 1 || (group_ != nullptr && group_->size() == schedule_.ranks));
  }

  const TokenShare& tokens() const override { return tokens_; }
  const HeadRange& heads() const override { return heads_; }

  absl::StatusOr<std::unique_ptr<AttentionState>> NewState() override {
    auto state = std::make_unique<State>();
    SEQPAR_RETURN_IF_ERROR(Allocate(rows() * heads_.q_heads() * 4, "log-sum-exp", &state->lse));
    if (schedule_.kv_kept) {
      SEQPAR_RETURN_IF_ERROR(Allocate(KvBytes(schedule_.buffer_keys), "kept K/V", &state->kept_kv));
    }
    return absl::StatusOr<std::unique_ptr<AttentionState>>(std::move(state));
  }

  int64_t ScratchBytes(Pass pass) const override {
    Scratch scratch;
    return Carve(pass, &scratch).bytes();
  }

  bool ReadsInputsAgain() const override { return true; }

  void Forward(const Matrix& q, const Matrix& kv, const Matrix& out, AttentionState* state,
               void* scratch) override {
    CheckShapes(q, kv);
    State& kept = static_cast<State&>(*state);
    Carve(Pass::kForward, &scratch_).Place(scratch);
    const Matrix sum = direct() ? out : scratch_.q_sum;
    const Matrix lse = LseOf(kept);
    if (whole_ != nullptr) {
      streams_.device->WholeAttentionForward(*streams_.compute, Fill(*whole_, q, kv, Matrix()), out, lse,
                                             sum);
      return;
    }
    bool first = true;
    RunSlots(Pass::kForward, kv, ReceivedKv(kept), Matrix(), [&](const PlannedTile& planned) {
      streams_.device->AttentionForward(*streams_.compute, Fill(planned, q, kv, ReceivedKv(kept)), sum, lse,
                                        first);
      first = false;
    });
    SEQPAR_CHECK(!first || rows() == 0);  // every query sees itself, which is at home
    if (!direct()) streams_.device->Copy(*streams_.compute, sum, out);
  }

  void Backward(const Matrix& q, const Matrix& kv, const Matrix& out, const Matrix& dout,
                AttentionState* state, const Matrix& dq, const Matrix& dkv, void* scratch) override {
    CheckShapes(q, kv);
    State& kept = static_cast<State&>(*state);
    Carve(Pass::kBackward, &scratch_).Place(scratch);
    Device& device = *streams_.device;
    Stream& compute = *streams_.compute;
    const Matrix dq_sum = direct() ? dq : scratch_.q_sum, home = direct() ? dkv : scratch_.home_grads;
    const Matrix& delta = scratch_.delta;
    device.AttentionDelta(compute, shape_.head_dim, dout, out, delta);
    if (whole_ != nullptr) {
      device.WholeAttentionBackward(compute, Fill(*whole_, q, kv, Matrix()), dout, LseOf(kept), delta,
                                    {dq, dkv}, {dq_sum, home});
      return;
    }
    device.Zero(compute, dq_sum.data, dq_sum.bytes());
    device.Zero(compute, home.data, home.bytes());
    RunSlots(Pass::kBackward, kv, ReceivedKv(kept), home, [&](const PlannedTile& planned) {
      const Matrix& sums = planned.at_home ? home : scratch_.grads;
      const Matrix dkeys = KeyRows(sums, planned.first_grad, planned.tile.keys);
      if (!planned.at_home) device.Zero(compute, dkeys.data, dkeys.bytes());
      const int64_t half = kv_cols() / 2;
      device.AttentionBackward(compute, Fill(planned, q, kv, ReceivedKv(kept)), dout, LseOf(kept), delta,
                               dq_sum, dkeys.Cols(0, half), dkeys.Cols(half, 2 * half));
    });
    if (!direct()) {  // when all tiles have read q, K, V and dout, which may lie there
      device.Copy(compute, dq_sum, dq);
      device.Copy(compute, home, dkv);
    }
  }

  AttentionView Innermost(const AttentionView& outer, const AttentionState& state) const override {
    AttentionView view = outer;
    view.tokens = tokens_;
    view.heads = heads_;
    view.lse = LseOf(static_cast<const State&>(state));
    return view;
  }

 private:
  // What a call computes in; float32 but for K/V.
  struct Scratch {
    Matrix received;        // K/V of other ranks, where the state does not keep them
    Matrix q_sum;           // of the output or of dQ, where storage has 16 bits
    Matrix home_grads;      // dK/dV of the rank's own keys, where storage has 16 bits
    Matrix delta;           // [rows, q heads]
    Matrix grads, arrived;  // travelling dK/dV, and what came for them
  };

  // `scratch` is where the Carver places to.
  Carver Carve(Pass pass, Scratch* scratch) const {
    Carver carver;
    const auto keys = [&](Matrix* m, DType dtype, int64_t count) {
      carver.Add(m, dtype, count * shape_.batch, kv_cols());
    };
    *scratch = Scratch();
    if (!schedule_.kv_kept) keys(&scratch->received, shape_.dtype, schedule_.buffer_keys);
    if (!direct()) carver.Add(&scratch->q_sum, DType::kF32, rows(), q_cols());
    if (pass == Pass::kForward) return carver;
    if (!direct()) carver.Add(&scratch->home_grads, DType::kF32, rows(), kv_cols());
    carver.Add(&scratch->delta, DType::kF32, rows(), heads_.q_heads());
    keys(&scratch->grads, DType::kF32, schedule_.grad_keys);
    keys(&scratch->arrived, DType::kF32, schedule_.grad_recv_keys);
    return carver;
  }

  // Sums are where the results are.
  bool direct() const { return shape_.dtype == DType::kF32; }
  int64_t rows() const { return tokens_.size() * shape_.batch; }
  int64_t q_cols() const { return int64_t{heads_.q_heads()} * shape_.head_dim; }
  int64_t kv_cols() const { return int64_t{2} * heads_.kv_heads() * shape_.head_dim; }
  int64_t KvBytes(int64_t keys) const { return keys * shape_.batch * kv_cols() * SizeOf(shape_.dtype); }
  bool AtHome(const KvPiece& piece) const { return piece.home == schedule_.rank; }

  // The one tile that a rank alone has where it holds anything, of all its keys; null where there are others.
  const PlannedTile* WholeTile() const {
    if (schedule_.ranks > 1 || rows() == 0) return nullptr;
    const PlannedTile* whole = nullptr;
    for (const Pass pass : {Pass::kForward, Pass::kBackward}) {
      std::vector<const PlannedTile*> tiles;
      for (const std::vector<PlannedTile>& slot : tiles_.Of(pass)) {
        for (const PlannedTile& tile : slot) tiles.push_back(&tile);
      }
      if (tiles.size() != 1 || tiles[0]->tile.keys != tokens_.size()) return nullptr;
      whole = tiles[0];
    }
    return whole;
  }

  absl::Status Allocate(int64_t bytes, const char* what, Buffer* buffer) {
    if (bytes == 0) return absl::OkStatus();
    SEQPAR_ASSIGN_OR_RETURN(*buffer, streams_.device->Allocate(bytes, what));
    return absl::OkStatus();
  }

  void CheckShapes(const Matrix& q, const Matrix& kv) const {
    SEQPAR_CHECK(q.rows == rows() && q.cols == q_cols() && q.dtype == shape_.dtype && q.contiguous());
    SEQPAR_CHECK(kv.rows == rows() && kv.cols == kv_cols() && kv.dtype == shape_.dtype && kv.contiguous());
  }

  Matrix LseOf(const State& state) const {
    return Matrix(state.lse.data(), DType::kF32, rows(), heads_.q_heads());
  }
  Matrix ReceivedKv(const State& state) const {
    if (!schedule_.kv_kept) return scratch_.received;
    return Matrix(state.kept_kv.data(), shape_.dtype, schedule_.buffer_keys * shape_.batch, kv_cols());
  }
  Matrix KeyRows(const Matrix& m, int64_t first, int64_t keys) const {
    return m.Rows(first * shape_.batch, (first + keys) * shape_.batch);
  }

  AttentionTile Fill(const PlannedTile& planned, const Matrix& q, const Matrix& kv,
                     const Matrix& received) const {
    AttentionTile tile = planned.tile;
    const Matrix keys = KeyRows(planned.at_home ? kv : received, planned.first_key, tile.keys);
    const int64_t half = kv_cols() / 2;
    tile.q = q;
    tile.k = keys.Cols(0, half);
    tile.v = keys.Cols(half, 2 * half);
    return tile;
  }

  // `home_grads` is used in backward only.
  template <typename RunTile>
  void RunSlots(Pass pass, const Matrix& kv, const Matrix& received, const Matrix& home_grads,
                RunTile run_tile) {
    Stream& compute = *streams_.compute;
    Stream& comm = *streams_.comm;
    const bool backward = pass == Pass::kBackward;
    Event computed = compute.Record();
    for (size_t s = 0; s < schedule_.slots.size(); ++s) {
      const KvSlot& slot = schedule_.slots[s];
      Event exchanged;
      if (schedule_.ranks > 1) {
        comm.Wait(computed);
        std::vector<Transfer> sends, receives;
        if (!backward || !schedule_.kv_kept) {
          AppendKv(slot.send_kv, kv, received, &sends);
          AppendKv(slot.recv_kv, kv, received, &receives);
        }
        if (backward) {
          AppendGrads(slot, &sends, &receives);
        }
        group_->SendRecv(comm, {operation_, pass}, std::move(sends), std::move(receives));
        exchanged = comm.Record();
      }
      for (const PlannedTile& planned : tiles_.Of(pass)[s]) run_tile(planned);
      compute.Wait(exchanged);
      if (backward) AddArrived(slot, home_grads);
      computed = compute.Record();
    }
  }

  // K/V of the messages' pieces: a span for each block of memory that they lie in.
  void AppendKv(const std::vector<KvMessage>& messages, const Matrix& kv, const Matrix& received,
                std::vector<Transfer>* transfers) const {
    for (const KvMessage& message : messages) {
      Transfer transfer{message.peer, {}};
      for (int index : message.pieces) {
        const KvPiece& piece = schedule_.pieces[index];
        if (AtHome(piece)) {
          for (const IndexRange& range : piece.ranges) {
            AppendSpan(KeyRows(kv, range.begin, range.size()), &transfer);
          }
        } else {
          AppendSpan(KeyRows(received, piece.buffer_offset, piece.size), &transfer);
        }
      }
      transfers->push_back(std::move(transfer));
    }
  }

  void AppendGrads(const KvSlot& slot, std::vector<Transfer>* sends, std::vector<Transfer>* receives) const {
    const Matrix &grads = scratch_.grads, &arrived = scratch_.arrived;
    for (const KvMessage& message : slot.send_grad) {
      Transfer transfer{message.peer, {}};
      for (int index : message.pieces) {
        const KvPiece& piece = schedule_.pieces[index];
        AppendSpan(KeyRows(grads, piece.grad_offset, piece.size), &transfer);
      }
      sends->push_back(std::move(transfer));
    }
    for (const KvMessage& message : slot.recv_grad) {
      Transfer transfer{message.peer, {}};
      for (size_t i = 0; i < message.pieces.size(); ++i) {
        AppendSpan(KeyRows(arrived, message.offsets[i], schedule_.pieces[message.pieces[i]].size), &transfer);
      }
      receives->push_back(std::move(transfer));
    }
  }

  static void AppendSpan(const Matrix& m, Transfer* transfer) {
    if (m.bytes() > 0) transfer->spans.push_back({m.data, m.bytes()});
  }

  // To a travelling sum, what came for it in this slot or before; to the rank's own, what came in this slot.
  void AddArrived(const KvSlot& slot, const Matrix& home_grads) {
    const Matrix &grads = scratch_.grads, &arrived = scratch_.arrived;
    const auto add = [&](const Matrix& from, const Matrix& to) {
      streams_.device->Add(*streams_.compute, to, from, to);
    };
    for (int index : slot.work) {
      const KvPiece& piece = schedule_.pieces[index];
      if (AtHome(piece) || piece.grad_recv_offset < 0) continue;
      add(KeyRows(arrived, piece.grad_recv_offset, piece.size),
          KeyRows(grads, piece.grad_offset, piece.size));
    }
    for (const KvMessage& message : slot.recv_grad) {
      for (size_t i = 0; i < message.pieces.size(); ++i) {
        const KvPiece& piece = schedule_.pieces[message.pieces[i]];
        int64_t offset = message.offsets[i];
        if (!AtHome(piece)) continue;
        for (const IndexRange& range : piece.ranges) {
          add(KeyRows(arrived, offset, range.size()), KeyRows(home_grads, range.begin, range.size()));
          offset += range.size();
        }
      }
    }
  }

  const RankStreams streams_;
  Communicator* const group_;
  const AttentionShape shape_;
  const HeadRange heads_;
  const TokenShare tokens_;
  const Mask mask_;
  const KvSchedule schedule_;
  const Operation operation_;
  const PlannedTiles tiles_;
  const PlannedTile* const whole_;
  Scratch scratch_;  // of the call
};

}  // namespace

std::unique_ptr<AttentionCore> MakeScheduledAttention(const RankStreams& streams, Communicator* group,
                                                      const AttentionShape& shape, const HeadRange& heads,
                                                      std::vector<TokenShare> shares, const Mask& mask,
                                                      KvSchedule schedule, Operation operation) {
  return std::make_unique<ScheduledAttention>(streams, group, shape, heads, std::move(shares), mask,
                                              std::move(schedule), operation);
}

}  // namespace seqpar
