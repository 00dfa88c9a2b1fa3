#include "common/comm/collective_layout.h"

#include <algorithm>

#include "common/base/check.h"

namespace seqpar {
namespace {

int64_t AlignUp(int64_t bytes, int64_t alignment) { return (bytes + alignment - 1) / alignment * alignment; }

int64_t RowBytes(const Matrix& in) { return in.cols * SizeOf(in.dtype); }

}  // namespace

Messages GatherMessages(int rank, const std::vector<int64_t>& bytes, char* recv) {
  SEQPAR_CHECK(rank >= 0 && rank < static_cast<int>(bytes.size()));
  char* own = recv;
  for (int i = 0; i < rank; ++i) own += bytes[i];
  Messages messages;
  int64_t offset = 0;
  for (int peer = 0; peer < static_cast<int>(bytes.size()); ++peer) {
    if (peer != rank) {
      messages.sends.push_back(Transfer{peer, {Span{own, bytes[rank]}}});
      messages.recvs.push_back(Transfer{peer, {Span{recv + offset, bytes[peer]}}});
    }
    offset += bytes[peer];
  }
  return messages;
}

Messages BroadcastMessages(int rank, int size, int root, void* data, int64_t bytes) {
  SEQPAR_CHECK(root >= 0 && root < size);
  Messages messages;
  if (rank != root) messages.recvs.push_back(Transfer{root, {Span{data, bytes}}});
  for (int peer = 0; rank == root && peer < size; ++peer) {
    if (peer != root) messages.sends.push_back(Transfer{peer, {Span{data, bytes}}});
  }
  return messages;
}

std::vector<Messages> BarrierRounds(int rank, int size, char* sent, char* received) {
  if (size == 1) return {Messages()};
  std::vector<Messages> rounds;
  for (int distance = 1; distance < size; distance *= 2) {
    Messages round;
    round.sends.push_back(Transfer{(rank + distance) % size, {Span{sent, 1}}});
    round.recvs.push_back(Transfer{(rank + size - distance) % size, {Span{received, 1}}});
    rounds.push_back(std::move(round));
  }
  return rounds;
}

std::vector<int64_t> EvenBlocks(int64_t count, int size) {
  std::vector<int64_t> blocks(size, count / size);
  for (int i = 0; i < count % size; ++i) ++blocks[i];
  return blocks;
}

int64_t SumScratchBytes(int rank, const Matrix& in, const std::vector<int64_t>& rows, int64_t alignment) {
  return AlignUp(rows[rank] * RowBytes(in), alignment) * (static_cast<int64_t>(rows.size()) - 1);
}

OwnBlockSum LayOutSum(int rank, const Matrix& in, const std::vector<int64_t>& rows, char* scratch,
                      int64_t alignment) {
  SEQPAR_CHECK(rank >= 0 && rank < static_cast<int>(rows.size()) && (in.contiguous() || in.rows <= 1));
  const int64_t own_bytes = rows[rank] * RowBytes(in), stride = AlignUp(own_bytes, alignment);
  OwnBlockSum sum;
  int64_t begin = 0;
  for (int peer = 0; peer < static_cast<int>(rows.size()); ++peer) {
    const Matrix block = in.Rows(begin, begin + rows[peer]);
    begin += rows[peer];
    if (peer == rank) {
      sum.terms.push_back(block);
      continue;
    }
    sum.messages.sends.push_back(Transfer{peer, {Span{block.data, block.rows * RowBytes(in)}}});
    sum.messages.recvs.push_back(Transfer{peer, {Span{scratch, own_bytes}}});
    sum.terms.push_back(Matrix(scratch, in.dtype, rows[rank], in.cols));
    scratch += stride;
  }
  SEQPAR_CHECK(begin == in.rows);
  return sum;
}

void EnqueueSum(Device& device, Stream& s, std::vector<Matrix> terms, const Matrix& out) {
  if (out.empty()) return;
  // A column of many rows is one row to the kernels: longer loops, wider loads.
  const bool flat = out.cols == 1 && out.contiguous();
  if (flat) {
    for (Matrix& term : terms) term = Matrix(term.data, term.dtype, 1, out.rows);
  }
  device.SumInOrder(s, terms, flat ? Matrix(out.data, out.dtype, 1, out.rows) : out);
}

}  // namespace seqpar
