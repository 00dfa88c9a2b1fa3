#include "coordinator/planner/ring_cost.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <functional>

#include "common/parallel/kv_schedule.h"

namespace seqpar {
namespace {

constexpr int kExactRing = 32;
// Striped shares meet every document: beyond so many (rank, document) pairs they are counted by residues.
constexpr int64_t kCountedStripes = 4096;

// Sum of min(a + i s, most) for 0 <= i < n.
double SumOfLimited(double a, double s, double n, double most) {
  if (n <= 0) return 0;
  const double below = a > most ? 0 : std::min(n, std::floor((most - a) / s) + 1);
  return below * a + s * below * (below - 1) / 2 + (n - below) * most;
}

// Keys that the queries of a segment see in the whole sequence. AttendedPairs counts them one by one where
// strides differ, which is too slow here for striped layouts of millions of tokens.
double SeenPairs(const Mask& mask, const Segment& segment) {
  const std::vector<int64_t>& starts = mask.document_starts();
  const double step = static_cast<double>(segment.stride);
  double pairs = 0;
  auto next = std::upper_bound(starts.begin(), starts.end(), segment.begin);
  int64_t first = segment.begin;
  for (; next != starts.end() && first < segment.end; ++next) {
    const Segment part{.begin = first, .end = std::min(segment.end, *next), .stride = segment.stride};
    if (part.size() == 0) continue;
    const double n = static_cast<double>(part.size());
    const double length = static_cast<double>(*next - *(next - 1));
    const double before = static_cast<double>(part.begin - *(next - 1));
    const double after = length - 1 - (before + (n - 1) * step);  // of the last query
    const double left = mask.left() < 0 ? length : static_cast<double>(mask.left());
    const double right = mask.right() < 0 ? length : static_cast<double>(mask.right());
    pairs += n + SumOfLimited(before, step, n, left) + SumOfLimited(after, step, n, right);
    first = part.PositionAt(part.size());
  }
  return pairs;
}

double SeenPairs(const Mask& mask, const TokenShare& share) {
  double pairs = 0;
  for (const Segment& segment : share.segments()) pairs += SeenPairs(mask, segment);
  return pairs;
}

std::vector<int> SampledRanks(int ring) {
  std::vector<int> ranks;
  if (ring > kExactRing) return {0, ring / 2 - 1, ring / 2, ring - 1};
  for (int r = 0; r < ring; ++r) ranks.push_back(r);
  return ranks;
}

void AddTo(KvFlow* flow, bool near, int64_t keys) {
  if (keys == 0) return;
  (near ? flow->near_keys : flow->far_keys) += keys;
  ++(near ? flow->near_messages : flow->far_messages);
}

void AddMessages(KvFlow* flow, const std::vector<KvMessage>& messages, int rank,
                 const std::vector<int>& nodes) {
  for (const KvMessage& message : messages) AddTo(flow, nodes[message.peer] == nodes[rank], message.keys);
}

RingLoad LoadOfSchedule(const KvSchedule& schedule, const std::vector<int>& nodes) {
  RingLoad load;
  load.rank = schedule.rank;
  for (const KvSlot& slot : schedule.slots) {
    AddMessages(&load.forward, slot.send_kv, schedule.rank, nodes);
    AddMessages(&load.backward_grad, slot.send_grad, schedule.rank, nodes);
  }
  if (!schedule.kv_kept) load.backward_kv = load.forward;
  load.buffer_keys = schedule.buffer_keys;
  load.grad_keys = schedule.grad_keys;
  load.grad_recv_keys = schedule.grad_recv_keys;
  return load;
}

int64_t CountKeys(const std::vector<IndexRange>& ranges) {
  int64_t keys = 0;
  for (const IndexRange& range : ranges) keys += range.size();
  return keys;
}

// Which keys of an owner's share a reader attends.
class Attendance {
 public:
  Attendance(const Mask& mask, LayoutKind layout, const std::vector<TokenShare>& shares)
      : mask_(mask), shares_(shares), ring_(static_cast<int64_t>(shares.size())) {
    // A window narrower than the stride leaves gaps between the keys that a share sees.
    const bool gaps = mask.left() >= 0 && mask.right() >= 0 && mask.left() + mask.right() + 1 < ring_;
    const int64_t documents = static_cast<int64_t>(mask.document_starts().size()) - 1;
    by_residue_ = layout == LayoutKind::kStriped && (gaps || documents * ring_ > kCountedStripes);
  }

  // Keys of single tokens, as gather fetches them. By residues, the ends of documents are not seen.
  int64_t Keys(int reader, int owner) const {
    if (by_residue_) return Reaches(reader, owner) ? shares_[owner].size() : 0;
    return CountKeys(AttendedKeys(mask_, shares_[reader], shares_[owner]));
  }

  // Keys of whole segments, as a ring passes them.
  int64_t SegmentKeys(int reader, int owner) const {
    if (by_residue_) return Keys(reader, owner);
    int64_t keys = 0;
    for (const Segment& segment : shares_[owner].segments()) {
      const TokenShare part({segment});
      if (AttendedPairs(mask_, shares_[reader], part) > 0) keys += part.size();
    }
    return keys;
  }

  bool by_residue() const { return by_residue_; }

 private:
  // Whether a position that belongs to the owner is within the window of one that belongs to the reader.
  bool Reaches(int reader, int owner) const {
    if (mask_.left() < 0 || mask_.right() < 0) return true;
    const int64_t ahead = (owner - reader + ring_) % ring_;
    return ahead <= mask_.right() || ring_ - ahead <= mask_.left();
  }

  const Mask& mask_;
  const std::vector<TokenShare>& shares_;
  const int64_t ring_;
  bool by_residue_ = false;
};

// What GatherSchedule makes, counted without making it: every reader gets the keys that it attends, keeps
// them, and sends their gradients back, which all arrive at once.
RingLoad GatherLoad(const Attendance& attendance, int rank, const std::vector<int>& nodes) {
  RingLoad load;
  load.rank = rank;
  for (int peer = 0; peer < static_cast<int>(nodes.size()); ++peer) {
    if (peer == rank) continue;
    const bool near = nodes[peer] == nodes[rank];
    const int64_t sent = attendance.Keys(peer, rank), received = attendance.Keys(rank, peer);
    AddTo(&load.forward, near, sent);
    AddTo(&load.backward_grad, near, received);
    load.buffer_keys += received;
    load.grad_recv_keys += sent;
  }
  load.grad_keys = load.buffer_keys;
  return load;
}

// A rank of a ring from what it receives. In a plain ring all of it comes from the rank before, in a double
// ring a part of every node's share comes from the node before, and the slowest hop is what counts.
RingLoad RingLoadByReceipts(const Attendance& attendance, const std::vector<TokenShare>& shares, int rank,
                            int inner, const std::vector<int>& nodes) {
  const int ring = static_cast<int>(shares.size());
  RingLoad load;
  load.rank = rank;
  int64_t received = 0, messages = 0, longest = 0;
  for (int peer = 0; peer < ring; ++peer) {
    longest = std::max(longest, shares[peer].size());
    if (peer == rank) continue;
    const int64_t keys = attendance.SegmentKeys(rank, peer);
    received += keys;
    messages += keys > 0;
  }
  const auto flow = [&](double far) {
    KvFlow f;
    f.far_keys = static_cast<int64_t>(static_cast<double>(received) * far);
    f.near_keys = received - f.far_keys;
    f.far_messages = static_cast<int64_t>(static_cast<double>(messages) * far);
    f.near_messages = messages - f.far_messages;
    return f;
  };
  const bool crosses = nodes.front() != nodes.back(), plain = inner == ring;
  const int whole_turns = ring / inner;
  const double turns = whole_turns;
  load.forward = load.backward_kv = flow(!crosses ? 0 : plain ? 1 : (turns - 1) / (ring - 1));
  load.backward_grad = flow(!crosses ? 0 : plain ? 1 : turns / ring);
  load.buffer_keys = std::min(received, (plain ? 2 : 3) * longest);
  load.grad_keys = load.grad_recv_keys = std::min(received, 2 * longest);
  return load;
}

std::vector<int> FullestRanks(const RingCost& cost) {
  const auto holds = [&](const RingLoad& load) {
    return std::array<int64_t, 4>{cost.tokens[load.rank], load.buffer_keys, load.grad_keys,
                                  load.grad_recv_keys};
  };
  std::vector<const RingLoad*> fullest;
  for (const RingLoad& load : cost.loads) {
    const auto has_as_much = [&](const RingLoad* a, const RingLoad* b) {
      const auto left = holds(*a), right = holds(*b);
      return std::equal(left.begin(), left.end(), right.begin(), std::greater_equal<int64_t>());
    };
    if (std::any_of(fullest.begin(), fullest.end(), [&](auto* kept) { return has_as_much(kept, &load); }))
      continue;
    fullest.erase(
        std::remove_if(fullest.begin(), fullest.end(), [&](auto* kept) { return has_as_much(&load, kept); }),
        fullest.end());
    fullest.push_back(&load);
  }
  std::vector<int> ranks;
  for (const RingLoad* load : fullest) ranks.push_back(load->rank);
  return ranks;
}

void AddLoads(const Mask& mask, LayoutKind layout, CoreKind core, int inner, const std::vector<int>& nodes,
              const std::vector<TokenShare>& shares, RingCost* cost) {
  const int ring = static_cast<int>(nodes.size());
  if (ring == 1) {
    cost->loads.push_back(RingLoad());
    return;
  }
  const Attendance attendance(mask, layout, shares);
  if (core == CoreKind::kRing && ring <= kExactRing && !attendance.by_residue()) {
    for (const KvSchedule& schedule : RingSchedules(shares, mask, inner)) {
      cost->loads.push_back(LoadOfSchedule(schedule, nodes));
    }
    return;
  }
  for (int rank : SampledRanks(ring)) {
    cost->loads.push_back(core == CoreKind::kGather
                              ? GatherLoad(attendance, rank, nodes)
                              : RingLoadByReceipts(attendance, shares, rank, inner, nodes));
  }
}

// The ends of p's key range that lie inside the segment's keys: a causal query has one on the diagonal.
int EdgesOf(const Mask& mask, int64_t p, const Segment& keys) {
  const auto index_of = [&](int64_t position) {  // of the first key at or after it
    return std::clamp<int64_t>((position - keys.begin + keys.stride - 1) / keys.stride, 0, keys.size());
  };
  const int64_t lo = mask.Lo(p) <= keys.begin ? 0 : index_of(mask.Lo(p));
  const int64_t hi = mask.Hi(p) <= keys.begin ? 0 : index_of(mask.Hi(p));
  return lo >= hi ? 0 : (lo > 0) + (hi < keys.size());
}

// A call for each segment of keys that the reader attends, with all of its queries.
void CountCalls(const Mask& mask, const Attendance& attendance, const std::vector<TokenShare>& shares,
                int reader, RingCost* cost) {
  constexpr int64_t kSampled = 24;
  const TokenShare& mine = shares[reader];
  const int64_t sampled = std::min(kSampled, mine.size());
  if (sampled == 0) return;
  const double queries = static_cast<double>(mine.size());
  for (int owner = 0; owner < static_cast<int>(shares.size()); ++owner) {
    if (owner != reader && attendance.Keys(reader, owner) == 0) continue;
    for (const Segment& keys : shares[owner].segments()) {
      int64_t edges = 0;
      bool seen = false;
      for (int64_t i = 0; i < sampled; ++i) {
        const int64_t p = mine.PositionAt((2 * i + 1) * mine.size() / (2 * sampled));
        edges += EdgesOf(mask, p, keys);
        seen = seen || (mask.Lo(p) < keys.end && mask.Hi(p) > keys.begin);
      }
      if (!seen) continue;
      cost->edges += queries * static_cast<double>(edges) / static_cast<double>(sampled);
      cost->query_rows += queries;
      cost->key_rows += static_cast<double>(keys.size());
    }
  }
}

}  // namespace

const RingLoad& RingCost::LoadOf(int ring_rank) const {
  const RingLoad* nearest = &loads.front();
  for (const RingLoad& load : loads) {
    if (std::abs(load.rank - ring_rank) < std::abs(nearest->rank - ring_rank)) nearest = &load;
  }
  return *nearest;
}

RingCost MakeRingCost(const Mask& mask, LayoutKind layout, CoreKind core, int inner,
                      const std::vector<int>& nodes, bool count_calls) {
  const int ring = static_cast<int>(nodes.size());
  const std::vector<TokenShare> shares = RingShares(layout, mask.tokens(), ring);
  RingCost cost;
  for (const TokenShare& share : shares) {
    cost.tokens.push_back(share.size());
    cost.pairs.push_back(SeenPairs(mask, share));
  }
  const auto busiest = std::max_element(cost.pairs.begin(), cost.pairs.end());
  cost.busiest_pairs = *busiest;
  for (const double pairs : cost.pairs) cost.mean_pairs += pairs / ring;
  const TokenShare& its_share = shares[busiest - cost.pairs.begin()];
  cost.own_pairs = ring == 1 ? cost.busiest_pairs : AttendedPairs(mask, its_share, its_share);
  if (ring > 1) {
    cost.late_pairs =
        AttendedPairs(mask, its_share, its_share.Slice(LateKeysOf(its_share), its_share.size()));
  }
  AddLoads(mask, layout, core, inner, nodes, shares, &cost);
  cost.fullest = FullestRanks(cost);
  if (count_calls) {
    const int reader = static_cast<int>(busiest - cost.pairs.begin());
    CountCalls(mask, Attendance(mask, layout, shares), shares, reader, &cost);
  }
  return cost;
}

}  // namespace seqpar
