#include "common/attention/ulysses_attention.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/status.h"
#include "common/device/carve.h"

namespace seqpar {
namespace {

// The inner core's side of the trade, which backward reads again.
class State : public AttentionState {
 public:
  Buffer q, kv, out;
  std::unique_ptr<AttentionState> inner;
};

class UlyssesAttention : public AttentionCore {
 public:
  UlyssesAttention(const RankStreams& streams, Communicator* group, const AttentionShape& shape,
                   const HeadRange& outer, std::vector<HeadRange> by_rank, std::vector<TokenShare> shares,
                   bool inspect, std::unique_ptr<AttentionCore> inner)
      : streams_(streams),
        group_(group),
        shape_(shape),
        heads_(outer),
        by_rank_(std::move(by_rank)),
        tokens_(shares[group->rank()]),
        apart_(inspect || shape.dtype == DType::kF32),
        inner_(std::move(inner)) {
    SEQPAR_CHECK(inner_->heads() == by_rank_[group_->rank()]);
    first_row_.push_back(0);
    packed_.push_back(0);
    for (size_t i = 0; i < shares.size(); ++i) {
      first_row_.push_back(first_row_.back() + shares[i].size() * shape_.batch);
      packed_.push_back(packed_.back() + (Mine(i) ? 0 : rows() * (QCols(by_rank_[i]) + KvCols(by_rank_[i]))));
    }
    SEQPAR_CHECK(first_row_.back() == inner_->tokens().size() * shape_.batch);
  }

  const TokenShare& tokens() const override { return tokens_; }
  const HeadRange& heads() const override { return heads_; }

  int64_t ScratchBytes(Pass pass) const override {
    Gradients gradients;
    return CarveGradients(pass, &gradients).bytes() +
           std::max(packed_.back() * SizeOf(shape_.dtype), inner_->ScratchBytes(pass));
  }

  absl::StatusOr<std::unique_ptr<AttentionState>> NewState() override {
    auto state = std::make_unique<State>();
    SEQPAR_RETURN_IF_ERROR(Allocate(inner_rows() * QCols(inner_->heads()), "ulysses q", &state->q));
    SEQPAR_RETURN_IF_ERROR(Allocate(inner_rows() * KvCols(inner_->heads()), "ulysses K/V", &state->kv));
    SEQPAR_RETURN_IF_ERROR(Allocate(inner_rows() * QCols(inner_->heads()), "ulysses output", &state->out));
    SEQPAR_ASSIGN_OR_RETURN(state->inner, inner_->NewState());
    return absl::StatusOr<std::unique_ptr<AttentionState>>(std::move(state));
  }

  bool ReadsInputsAgain() const override { return false; }

  void Forward(const Matrix& q, const Matrix& kv, const Matrix& out, AttentionState* state,
               void* scratch) override {
    CheckShapes(q, kv);
    Place(Pass::kForward, scratch);
    State& kept = static_cast<State&>(*state);
    const Matrix inner_q = InnerQ(kept.q), inner_kv = InnerKv(kept.kv), inner_out = InnerQ(kept.out);
    TokensToHeads(Pass::kForward, q, &kv, inner_q, &inner_kv);
    inner_->Forward(inner_q, inner_kv, inner_out, kept.inner.get(), shared_);
    HeadsToTokens(Pass::kForward, inner_out, nullptr);
    UnpackQ(inner_out, out);
  }

  void Backward(const Matrix& q, const Matrix& kv, const Matrix& out, const Matrix& dout,
                AttentionState* state, const Matrix& dq, const Matrix& dkv, void* scratch) override {
    CheckShapes(q, kv);
    Place(Pass::kBackward, scratch);
    State& kept = static_cast<State&>(*state);
    const Matrix inner_q = InnerQ(kept.q), inner_kv = InnerKv(kept.kv);
    const Matrix inner_dq = apart_ ? gradients_.dq : inner_q, inner_dkv = apart_ ? gradients_.dkv : inner_kv;
    TokensToHeads(Pass::kBackward, dout, nullptr, gradients_.dout, nullptr);
    inner_->Backward(inner_q, inner_kv, InnerQ(kept.out), gradients_.dout, kept.inner.get(), inner_dq,
                     inner_dkv, shared_);
    HeadsToTokens(Pass::kBackward, inner_dq, &inner_dkv);
    UnpackQ(inner_dq, dq);
    SumKv(inner_dkv, dkv);
  }

  AttentionView Innermost(const AttentionView& outer, const AttentionState& state) const override {
    const State& kept = static_cast<const State&>(state);
    AttentionView view;
    view.backward = outer.backward;
    view.q = InnerQ(kept.q);
    view.kv = InnerKv(kept.kv);
    view.out = InnerQ(kept.out);
    if (view.backward) {
      view.dout = gradients_.dout;
      view.dq = gradients_.dq;
      view.dkv = gradients_.dkv;
    }
    return inner_->Innermost(view, *kept.inner);
  }

 private:
  int64_t rows() const { return tokens_.size() * shape_.batch; }
  int64_t inner_rows() const { return first_row_.back(); }
  int64_t QCols(const HeadRange& h) const { return int64_t{h.q_heads()} * shape_.head_dim; }
  int64_t KvCols(const HeadRange& h) const { return int64_t{2} * h.kv_heads() * shape_.head_dim; }
  bool Mine(size_t i) const { return static_cast<int>(i) == group_->rank(); }
  Matrix InnerQ(const Buffer& b) const {
    return Matrix(b.data(), shape_.dtype, inner_rows(), QCols(inner_->heads()));
  }
  Matrix InnerKv(const Buffer& b) const {
    return Matrix(b.data(), shape_.dtype, inner_rows(), KvCols(inner_->heads()));
  }
  Matrix RowsOf(const Matrix& inner, size_t i) const { return inner.Rows(first_row_[i], first_row_[i + 1]); }

  // Own tokens with the heads of peer i: a block of q's, then a block of K's and V's.
  Matrix PackedQ(size_t i) const {
    char* data = static_cast<char*>(shared_) + packed_[i] * SizeOf(shape_.dtype);
    return Matrix(data, shape_.dtype, rows(), QCols(by_rank_[i]));
  }
  Matrix PackedKv(size_t i) const {
    const Matrix q = PackedQ(i);
    return Matrix(static_cast<char*>(q.data) + q.bytes(), shape_.dtype, rows(), KvCols(by_rank_[i]));
  }

  absl::Status Allocate(int64_t elements, const char* what, Buffer* buffer) {
    if (elements == 0) return absl::OkStatus();
    SEQPAR_ASSIGN_OR_RETURN(*buffer, streams_.device->Allocate(elements * SizeOf(shape_.dtype), what));
    return absl::OkStatus();
  }

  // Of the inner core's side, in backward.
  struct Gradients {
    Matrix dout, dq, dkv;
  };

  Carver CarveGradients(Pass pass, Gradients* gradients) const {
    Carver carver;
    *gradients = Gradients();
    if (pass == Pass::kForward) return carver;
    const int64_t q_cols = QCols(inner_->heads());
    carver.Add(&gradients->dout, shape_.dtype, inner_rows(), q_cols);
    if (!apart_) return carver;
    carver.Add(&gradients->dq, shape_.dtype, inner_rows(), q_cols);
    carver.Add(&gradients->dkv, shape_.dtype, inner_rows(), KvCols(inner_->heads()));
    return carver;
  }

  // Packed rows come before the inner call and after it, in the same place as its scratch.
  void Place(Pass pass, void* scratch) {
    const Carver carver = CarveGradients(pass, &gradients_);
    carver.Place(scratch);
    shared_ = static_cast<char*>(scratch) + carver.bytes();
  }

  void CheckShapes(const Matrix& q, const Matrix& kv) const {
    SEQPAR_CHECK(q.rows == rows() && q.cols == QCols(heads_) && q.dtype == shape_.dtype);
    SEQPAR_CHECK(kv.rows == rows() && kv.cols == KvCols(heads_) && kv.dtype == shape_.dtype);
  }

  void Copy(const Matrix& from, const Matrix& to) {
    if (!from.empty()) streams_.device->Copy(*streams_.compute, from, to);
  }

  Matrix QColumns(const Matrix& m, const HeadRange& h) const {
    return m.Cols(int64_t{h.q_begin - heads_.q_begin} * shape_.head_dim,
                  int64_t{h.q_end - heads_.q_begin} * shape_.head_dim);
  }
  // KV heads [begin, end) of the K half (0) or the V half (1) of a matrix that holds the KV heads of
  // `holder`.
  Matrix KvColumns(const Matrix& m, const HeadRange& holder, int half, int begin, int end) const {
    const int first = half * holder.kv_heads() - holder.kv_begin;
    return m.Cols(int64_t{first + begin} * shape_.head_dim, int64_t{first + end} * shape_.head_dim);
  }

  static void AppendSpan(const Matrix& m, std::vector<Span>* spans) {
    if (m.bytes() > 0) spans->push_back({m.data, m.bytes()});
  }

  void Exchange(Pass pass, std::vector<std::vector<Span>> sends, std::vector<std::vector<Span>> receives) {
    streams_.comm->Wait(streams_.compute->Record());
    group_->AllToAll(*streams_.comm, {Operation::kUlysses, pass}, std::move(sends), std::move(receives));
    streams_.compute->Wait(streams_.comm->Record());
  }

  // Own rows are packed for each peer, or copied to their place where the peer is this rank. kv may be null.
  void TokensToHeads(Pass pass, const Matrix& q, const Matrix* kv, const Matrix& inner_q,
                     const Matrix* inner_kv) {
    std::vector<std::vector<Span>> sends(by_rank_.size()), receives(by_rank_.size());
    for (size_t i = 0; i < by_rank_.size(); ++i) {
      const HeadRange& h = by_rank_[i];
      const Matrix to_q = Mine(i) ? RowsOf(inner_q, i) : PackedQ(i);
      Copy(QColumns(q, h), to_q);
      if (!Mine(i)) {
        AppendSpan(to_q, &sends[i]);
        AppendSpan(RowsOf(inner_q, i), &receives[i]);
      }
      if (kv == nullptr) continue;
      const Matrix to_kv = Mine(i) ? RowsOf(*inner_kv, i) : PackedKv(i);
      for (int half = 0; half < 2; ++half) {
        Copy(KvColumns(*kv, heads_, half, h.kv_begin, h.kv_end),
             KvColumns(to_kv, h, half, h.kv_begin, h.kv_end));
      }
      if (!Mine(i)) {
        AppendSpan(to_kv, &sends[i]);
        AppendSpan(RowsOf(*inner_kv, i), &receives[i]);
      }
    }
    Exchange(pass, std::move(sends), std::move(receives));
  }

  // Each peer's rows of the inner matrices arrive in the packed blocks of that peer. inner_kv may be null.
  void HeadsToTokens(Pass pass, const Matrix& inner_q, const Matrix* inner_kv) {
    std::vector<std::vector<Span>> sends(by_rank_.size()), receives(by_rank_.size());
    for (size_t i = 0; i < by_rank_.size(); ++i) {
      if (Mine(i)) continue;
      AppendSpan(RowsOf(inner_q, i), &sends[i]);
      AppendSpan(PackedQ(i), &receives[i]);
      if (inner_kv == nullptr) continue;
      AppendSpan(RowsOf(*inner_kv, i), &sends[i]);
      AppendSpan(PackedKv(i), &receives[i]);
    }
    Exchange(pass, std::move(sends), std::move(receives));
  }

  void UnpackQ(const Matrix& inner_q, const Matrix& q) {
    for (size_t i = 0; i < by_rank_.size(); ++i) {
      Copy(Mine(i) ? RowsOf(inner_q, i) : PackedQ(i), QColumns(q, by_rank_[i]));
    }
  }

  // dK/dV of each KV head: the sum over the ranks that used it, in rank order.
  void SumKv(const Matrix& inner_dkv, const Matrix& dkv) {
    for (int head = heads_.kv_begin; head < heads_.kv_end; ++head) {
      for (int half = 0; half < 2; ++half) {
        std::vector<Matrix> terms;
        for (size_t i = 0; i < by_rank_.size(); ++i) {
          if (head < by_rank_[i].kv_begin || head >= by_rank_[i].kv_end) continue;
          const Matrix block = Mine(i) ? RowsOf(inner_dkv, i) : PackedKv(i);
          terms.push_back(KvColumns(block, by_rank_[i], half, head, head + 1));
        }
        const Matrix to = KvColumns(dkv, heads_, half, head, head + 1);
        if (terms.size() == 1) {
          Copy(terms[0], to);
        } else if (!to.empty()) {
          streams_.device->SumInOrder(*streams_.compute, terms, to);
        }
      }
    }
  }

  const RankStreams streams_;
  Communicator* const group_;
  const AttentionShape shape_;
  const HeadRange heads_;
  const std::vector<HeadRange> by_rank_;
  const TokenShare tokens_;
  const bool apart_;  // gradients from q, K and V
  const std::unique_ptr<AttentionCore> inner_;
  std::vector<int64_t> first_row_;  // of rank i's tokens in the inner matrices; one more at the end
  std::vector<int64_t> packed_;     // first element of peer i's block; one more at the end

  // Of the call.
  Gradients gradients_;
  void* shared_ = nullptr;  // what goes to peers, the inner core's scratch, what comes back from peers
};

}  // namespace

std::unique_ptr<AttentionCore> MakeUlyssesAttention(const RankStreams& streams, Communicator* group,
                                                    const AttentionShape& shape, const HeadRange& outer,
                                                    std::vector<HeadRange> by_rank,
                                                    std::vector<TokenShare> shares, bool inspect,
                                                    std::unique_ptr<AttentionCore> inner) {
  return std::make_unique<UlyssesAttention>(streams, group, shape, outer, std::move(by_rank),
                                            std::move(shares), inspect, std::move(inner));
}

}  // namespace seqpar
