#include "common/parallel/kv_schedule.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "common/base/check.h"

namespace seqpar {
namespace {

// One rank's use of a piece: K/V arrive from `from` in slot `arrives` and are worked on in slot `works`.
struct Stop {
  int rank = 0;
  int works = 0;
  int from = 0;
  int arrives = 0;
};

// A piece's way through the group: the ranks that need it, in order of use. Gradients take the same way one
// slot behind the work, from stop to stop and from the last one home.
struct Travel {
  int home = 0;
  bool home_works = true;  // in slot 0
  std::vector<IndexRange> ranges;
  TokenShare keys;
  std::vector<Stop> stops;
};

// The slot in which the gradient of a piece leaves a stop.
int GradSlot(const Stop& stop) { return stop.works + 1; }

// A stretch of a buffer that is in use from the beginning of slot `first` to the end of slot `last`.
struct Block {
  int first = 0;
  int last = 0;
  int64_t size = 0;
  int64_t offset = 0;
};

// Gives each block the lowest place that no block in use at the same time has, in the order given (ascending
// by first), as if every size were a multiple of `unit`. Returns the size of the buffer.
int64_t FirstFit(std::vector<Block>& blocks, int64_t unit) {
  auto rounded = [unit](const Block& block) { return (block.size + unit - 1) / unit * unit; };
  int64_t total = 0;
  std::vector<const Block*> in_use;  // ascending by offset
  for (Block& block : blocks) {
    std::erase_if(in_use, [&block](const Block* other) { return other->last < block.first; });
    int64_t offset = 0;
    auto before = in_use.begin();
    for (; before != in_use.end() && (*before)->offset < offset + rounded(block); ++before) {
      offset = std::max(offset, (*before)->offset + rounded(**before));
    }
    block.offset = offset;
    in_use.insert(before, &block);
    total = std::max(total, offset + block.size);
  }
  return total;
}

// The places of pieces in one buffer. Pieces that come and go in the same slots lie side by side in the order
// in which they were added, so that the pieces of a message are one stretch of memory.
class Places {
 public:
  // `offset` is set by Assign; it must stay valid until then. REQUIRES: `first` never descends.
  void Add(int first, int last, int64_t size, int64_t* offset) {
    size_t index = 0;
    while (index < blocks_.size() && (blocks_[index].first != first || blocks_[index].last != last)) ++index;
    if (index == blocks_.size()) blocks_.push_back(Block{.first = first, .last = last});
    places_.push_back(Place{.block = index, .within = blocks_[index].size, .offset = offset});
    blocks_[index].size += size;
  }

  // Returns the size of the buffer. Equal places for all blocks are the better choice where each slot brings
  // about as much as the next (sizes that differ by a token would not fit each other's gaps), tight packing
  // elsewhere.
  int64_t Assign() {
    int64_t largest = 1;
    for (const Block& block : blocks_) largest = std::max(largest, block.size);
    std::vector<Block> equal = blocks_;
    const int64_t equal_total = FirstFit(equal, largest);
    int64_t total = FirstFit(blocks_, 1);
    if (equal_total < total) {
      blocks_ = std::move(equal);
      total = equal_total;
    }
    for (const Place& place : places_) *place.offset = blocks_[place.block].offset + place.within;
    return total;
  }

 private:
  struct Place {
    size_t block = 0;
    int64_t within = 0;
    int64_t* offset = nullptr;
  };
  std::vector<Block> blocks_;
  std::vector<Place> places_;
};

// Turns the travels that concern one rank into its schedule.
class Builder {
 public:
  Builder(const TokenShare& own, int rank, int ranks, int slots, bool kv_kept) : own_(own), slots_(slots) {
    schedule_.rank = rank;
    schedule_.ranks = ranks;
    schedule_.kv_kept = kv_kept;
    schedule_.slots.resize(slots);
  }

  // Pieces of a message and work of a slot come in the order of the calls, which must be the same on every
  // rank for the pieces that two ranks exchange.
  void Add(const Travel& travel) {
    const int rank = schedule_.rank;
    const bool concerned =
        travel.home == rank || std::any_of(travel.stops.begin(), travel.stops.end(),
                                           [rank](const Stop& s) { return s.rank == rank; });
    if (!concerned) return;
    const int piece = static_cast<int>(schedule_.pieces.size());
    schedule_.pieces.push_back(KvPiece{
        .home = travel.home, .ranges = travel.ranges, .keys = travel.keys, .size = travel.keys.size()});
    last_use_.push_back(0);
    if (travel.home == rank && travel.home_works) schedule_.slots[0].work.push_back(piece);
    for (size_t i = 0; i < travel.stops.size(); ++i) {
      const Stop& stop = travel.stops[i];
      const int next = i + 1 < travel.stops.size() ? travel.stops[i + 1].rank : travel.home;
      if (stop.from == rank) AddTo(slots_[stop.arrives].send_kv, stop.rank, piece);
      if (next == rank) AddTo(slots_[GradSlot(stop)].recv_grad, stop.rank, piece);
      if (stop.rank != rank) continue;
      AddTo(slots_[stop.arrives].recv_kv, stop.from, piece);
      schedule_.slots[stop.works].work.push_back(piece);
      last_use_[piece] = stop.works;
      AddTo(slots_[GradSlot(stop)].send_grad, next, piece);
    }
  }

  KvSchedule Build() {
    for (size_t s = 0; s < slots_.size(); ++s) {
      schedule_.slots[s].send_kv = InOrder(slots_[s].send_kv);
      schedule_.slots[s].recv_kv = InOrder(slots_[s].recv_kv);
      schedule_.slots[s].send_grad = InOrder(slots_[s].send_grad);
      schedule_.slots[s].recv_grad = InOrder(slots_[s].recv_grad);
    }
    const KvSlot& last = schedule_.slots.back();
    const bool busy = !last.send_grad.empty() || !last.recv_grad.empty();
    schedule_.late_keys = busy ? LateKeysOf(own_) : own_.size();
    PlaceKv();
    PlaceGrads();
    PlaceReceivedGrads();
    return std::move(schedule_);
  }

 private:
  using Messages = std::map<int, KvMessage>;  // by peer
  struct Slot {
    Messages send_kv, recv_kv, send_grad, recv_grad;
  };

  void AddTo(Messages& messages, int peer, int piece) {
    KvMessage& message = messages[peer];
    message.peer = peer;
    message.pieces.push_back(piece);
    message.keys += schedule_.pieces[piece].size;
  }

  static std::vector<KvMessage> InOrder(Messages& messages) {
    std::vector<KvMessage> list;
    for (auto& entry : messages) list.push_back(std::move(entry.second));
    return list;
  }

  // A piece's K/V are last read in the slot of its work, to compute and to send on.
  void PlaceKv() {
    Places places;
    for (int s = 0; s < static_cast<int>(slots_.size()); ++s) {
      for (const KvMessage& message : schedule_.slots[s].recv_kv) {
        for (int index : message.pieces) {
          KvPiece& piece = schedule_.pieces[index];
          const int last = schedule_.kv_kept ? std::numeric_limits<int>::max() : last_use_[index];
          places.Add(s, last, piece.size, &piece.buffer_offset);
        }
      }
    }
    schedule_.buffer_keys = places.Assign();
  }

  // A sum is begun in the slot of the work and sent in the next.
  void PlaceGrads() {
    Places places;
    for (int s = 0; s < static_cast<int>(slots_.size()); ++s) {
      for (const KvMessage& message : schedule_.slots[s].send_grad) {
        for (int index : message.pieces) {
          KvPiece& piece = schedule_.pieces[index];
          places.Add(s - 1, s, piece.size, &piece.grad_offset);
        }
      }
    }
    schedule_.grad_keys = places.Assign();
  }

  // What arrives waits for the rank's own work on the piece; at home, where that was done in slot 0, for
  // nothing.
  void PlaceReceivedGrads() {
    Places places;
    for (int s = 0; s < static_cast<int>(slots_.size()); ++s) {
      for (KvMessage& message : schedule_.slots[s].recv_grad) {
        message.offsets.resize(message.pieces.size());
        for (size_t i = 0; i < message.pieces.size(); ++i) {
          const int index = message.pieces[i];
          const bool at_home = schedule_.pieces[index].home == schedule_.rank;
          places.Add(s, at_home ? s : last_use_[index], schedule_.pieces[index].size, &message.offsets[i]);
        }
      }
    }
    schedule_.grad_recv_keys = places.Assign();
    for (const KvSlot& slot : schedule_.slots) {
      for (const KvMessage& message : slot.recv_grad) {
        for (size_t i = 0; i < message.pieces.size(); ++i) {
          KvPiece& piece = schedule_.pieces[message.pieces[i]];
          if (piece.home != schedule_.rank) piece.grad_recv_offset = message.offsets[i];
        }
      }
    }
  }

  const TokenShare& own_;
  KvSchedule schedule_;
  std::vector<Slot> slots_;
  std::vector<int> last_use_;  // by piece: the slot of this rank's work on it, 0 at home
};

// The stops of a segment in a ring of `nodes` rings of `inner` ranks.
std::vector<Stop> RingStops(const std::vector<TokenShare>& shares, const Mask& mask, int home,
                            const TokenShare& keys, int inner) {
  const int nodes = static_cast<int>(shares.size()) / inner;
  std::vector<Stop> stops;
  int first_of_node = -1;  // the first stop of the latest node that has one, home's node apart; -1: none yet
  for (int a = 0; a < nodes; ++a) {
    int first_here = -1;
    int previous = -1;  // the stop before in this node; -1: none yet
    for (int b = a == 0 ? 1 : 0; b < inner; ++b) {
      const int rank = (home / inner + a) % nodes * inner + (home % inner + b) % inner;
      if (AttendedPairs(mask, shares[rank], keys) == 0) continue;
      Stop stop{.rank = rank, .works = a * inner + b};
      const int source = previous >= 0 ? previous : first_of_node;
      if (source >= 0) {
        stop.from = stops[source].rank;
        stop.arrives = stops[source].works;
      } else {
        // Home keeps its keys anyway, so it sends no earlier than the receiver's buffer needs: in the slot
        // before, or into another node at the beginning of the turn before, to travel while that turn
        // computes.
        stop.from = home;
        stop.arrives = a == 0 ? stop.works - 1 : (a - 1) * inner;
      }
      previous = static_cast<int>(stops.size());
      if (first_here < 0) first_here = previous;
      stops.push_back(stop);
    }
    if (a > 0 && first_here >= 0) first_of_node = first_here;
  }
  return stops;
}

std::vector<Travel> RingTravels(const std::vector<TokenShare>& shares, const Mask& mask, int inner) {
  SEQPAR_CHECK(inner >= 1 && shares.size() % inner == 0);
  std::vector<Travel> travels;
  for (int home = 0; home < static_cast<int>(shares.size()); ++home) {
    int64_t begin = 0;
    for (const Segment& segment : shares[home].segments()) {
      Travel travel{.home = home,
                    .ranges = {IndexRange{.begin = begin, .end = begin + segment.size()}},
                    .keys = TokenShare({segment})};
      travel.stops = RingStops(shares, mask, home, travel.keys, inner);
      travels.push_back(std::move(travel));
      begin += segment.size();
    }
  }
  return travels;
}

KvSchedule RingScheduleOf(const std::vector<Travel>& travels, const TokenShare& own, int rank, int ranks) {
  Builder builder(own, rank, ranks, /*slots=*/ranks == 1 ? 1 : ranks + 1, /*kv_kept=*/false);
  for (const Travel& travel : travels) builder.Add(travel);
  return builder.Build();
}

// The keys that `reader` attends of `owner`'s share.
Travel GatherTravel(const std::vector<TokenShare>& shares, const Mask& mask, int owner, int reader) {
  Travel travel{
      .home = owner, .home_works = false, .ranges = AttendedKeys(mask, shares[reader], shares[owner])};
  std::vector<Segment> segments;
  for (const IndexRange& range : travel.ranges) {
    const TokenShare part = shares[owner].Slice(range.begin, range.end);
    segments.insert(segments.end(), part.segments().begin(), part.segments().end());
  }
  travel.keys = TokenShare(segments);
  travel.stops.push_back(Stop{.rank = reader, .works = 1, .from = owner, .arrives = 0});
  return travel;
}

}  // namespace

int64_t LateKeysOf(const TokenShare& share) {
  const size_t segments = share.segments().size();
  return segments > 1 ? share.size() - share.segments().back().size() : (share.size() + 1) / 2;
}

KvSchedule RingSchedule(const std::vector<TokenShare>& shares, const Mask& mask, int rank, int inner) {
  return RingScheduleOf(RingTravels(shares, mask, inner), shares[rank], rank,
                        static_cast<int>(shares.size()));
}

std::vector<KvSchedule> RingSchedules(const std::vector<TokenShare>& shares, const Mask& mask, int inner) {
  const int ranks = static_cast<int>(shares.size());
  const std::vector<Travel> travels = RingTravels(shares, mask, inner);
  std::vector<KvSchedule> schedules;
  schedules.reserve(ranks);
  for (int rank = 0; rank < ranks; ++rank)
    schedules.push_back(RingScheduleOf(travels, shares[rank], rank, ranks));
  return schedules;
}

KvSchedule GatherSchedule(const std::vector<TokenShare>& shares, const Mask& mask, int rank) {
  const int ranks = static_cast<int>(shares.size());
  Builder builder(shares[rank], rank, ranks, /*slots=*/ranks == 1 ? 1 : 3, /*kv_kept=*/true);
  if (shares[rank].size() > 0) {
    builder.Add(Travel{
        .home = rank, .ranges = {IndexRange{.begin = 0, .end = shares[rank].size()}}, .keys = shares[rank]});
  }
  for (int distance = 1; distance < ranks; ++distance) {
    const int owner = (rank - distance + ranks) % ranks;
    const int reader = (rank + distance) % ranks;
    for (const Travel& travel :
         {GatherTravel(shares, mask, owner, rank), GatherTravel(shares, mask, rank, reader)}) {
      if (travel.keys.size() > 0) builder.Add(travel);
    }
  }
  return builder.Build();
}

KvVolume VolumeOf(const KvSchedule& schedule) {
  KvVolume volume;
  for (const KvSlot& slot : schedule.slots) {
    for (const KvMessage& message : slot.send_kv) {
      volume.forward_keys += message.keys;
      ++volume.forward_messages;
    }
    for (const KvMessage& message : slot.send_grad) {
      volume.backward_grad_keys += message.keys;
      ++volume.backward_grad_messages;
    }
  }
  if (!schedule.kv_kept) {
    volume.backward_kv_keys = volume.forward_keys;
    volume.backward_kv_messages = volume.forward_messages;
  }
  return volume;
}

}  // namespace seqpar
