// Which block goes where in the collectives, for any transport that sends messages. Nomenclature: g = size of
// the group, r = this rank.
//
// - all_gather, direct: r sends its block to the g - 1 others. Sent: (g - 1) block(r).
// - reduce_scatter, direct: r sends block i to rank i; the owner sums its g contributions in rank order.
//   Sent: everything but the own block.
// - all_reduce: reduce_scatter over blocks of equal length (the first get one element more), then all_gather
//   of the sums. Sent in total: 2 (g - 1) / g of the elements.
// - broadcast, direct: the root sends to the g - 1 others.
// - barrier: dissemination, ceil(log2 g) messages of one byte.
//
// Pure: nothing is sent here, and no memory is touched.
#ifndef SEQPAR_COMMON_COMM_COLLECTIVE_LAYOUT_H_
#define SEQPAR_COMMON_COMM_COLLECTIVE_LAYOUT_H_

#include <cstdint>
#include <vector>

#include "common/comm/communicator.h"
#include "common/device/device.h"

namespace seqpar {

// Of one exchange; peers are ranks of the group, this rank is never among them.
struct Messages {
  std::vector<Transfer> sends, recvs;
};

// Rank i's block of `recv`, bytes[i] long, comes from rank i; the own one, in its place, goes to all.
Messages GatherMessages(int rank, const std::vector<int64_t>& bytes, char* recv);

Messages BroadcastMessages(int rank, int size, int root, void* data, int64_t bytes);

// The rounds of a barrier, one after the other: after that of distance d a rank knows that the 2 d ranks up
// to itself have entered. A group of one has one round without messages: its exchange still reports an abort.
std::vector<Messages> BarrierRounds(int rank, int size, char* sent, char* received);

// `count` elements in `size` blocks, the first of which have one more.
std::vector<int64_t> EvenBlocks(int64_t count, int size);

// This rank's part of a reduce_scatter.
struct OwnBlockSum {
  Messages messages;
  std::vector<Matrix> terms;  // by rank: contributions to the own block, of others in the scratch
};

// Bytes of scratch, in which each contribution begins at a multiple of `alignment`.
int64_t SumScratchBytes(int rank, const Matrix& in, const std::vector<int64_t>& rows, int64_t alignment);
// `in` has the rows of every rank, rows[i] for rank i, one after the other. REQUIRES: it is contiguous or has
// one row at most, and rows sum to its rows.
OwnBlockSum LayOutSum(int rank, const Matrix& in, const std::vector<int64_t>& rows, char* scratch,
                      int64_t alignment);
// Enqueues out = the sum of the terms in rank order; nothing where `out` is empty.
void EnqueueSum(Device& device, Stream& s, std::vector<Matrix> terms, const Matrix& out);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_COMM_COLLECTIVE_LAYOUT_H_
