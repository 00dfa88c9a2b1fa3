// Ulysses: trades token shards for head shards around an inner core (Jacobs et al., "DeepSpeed Ulysses",
// 2023).
//
// Nomenclature: U ranks; rank i holds the tokens shares[i] with the heads of `outer`, and attends all of the
// group's tokens with the heads by_rank[i], a part of `outer`. kv(i) is the number of KV heads that
// by_rank[i] uses.
//
// Forward: one all-to-all for q, k and v together, the inner core, one all-to-all for its output.
// Backward: one for dout, the inner core, one for dq, dk and dv together. A KV head that several ranks use is
// summed at its owner in float32, in rank order, from contributions of the storage type. Bytes to peer i,
// forward: batch x own tokens x (heads(i) + 2 kv(i)) x head_dim elements, then batch x the peer's tokens x
// own heads x head_dim; backward is the mirror.
//
// The rows of a peer's tokens are one block of the inner matrices, so that what is received lies in place and
// the inner output is sent from where it is; only the columns of the outer matrices are packed.
#ifndef SEQPAR_COMMON_ATTENTION_ULYSSES_ATTENTION_H_
#define SEQPAR_COMMON_ATTENTION_ULYSSES_ATTENTION_H_

#include <memory>
#include <vector>

#include "common/attention/core.h"

namespace seqpar {

// `inner` holds the union of `shares` with the heads by_rank[group->rank()]. `inspect`: gradients of the
// inner q, K and V lie apart from them, so that a view of backward shows both.
std::unique_ptr<AttentionCore> MakeUlyssesAttention(const RankStreams& streams, Communicator* group,
                                                    const AttentionShape& shape, const HeadRange& outer,
                                                    std::vector<HeadRange> by_rank,
                                                    std::vector<TokenShare> shares, bool inspect,
                                                    std::unique_ptr<AttentionCore> inner);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_ATTENTION_ULYSSES_ATTENTION_H_
