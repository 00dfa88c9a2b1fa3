#include "common/attention/scheduled_tiles.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "common/base/check.h"

namespace seqpar {
namespace {

AttentionTile MakeTile(const AttentionShape& shape, const HeadRange& heads, const TokenShare& tokens,
                       const Mask& mask, TokenShare keys) {
  auto ranges = std::make_shared<KeyRanges>(ComputeKeyRanges(mask, tokens, keys));
  SEQPAR_CHECK(ranges->overlap != Overlap::kEmpty);
  AttentionTile tile;
  tile.batch = shape.batch;
  tile.heads = heads;
  tile.group = shape.group;
  tile.head_dim = shape.head_dim;
  tile.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  tile.queries = tokens.size();
  tile.keys = keys.size();
  tile.ranges = std::move(ranges);
  tile.mask = &mask;
  tile.query_positions = tokens;
  tile.key_positions = std::move(keys);
  const int64_t kv_cols = int64_t{heads.kv_heads()} * shape.head_dim;
  tile.q =
      Matrix(nullptr, shape.dtype, tile.queries * shape.batch, int64_t{heads.q_heads()} * shape.head_dim);
  // Side by side in one row.
  tile.k = tile.v = Matrix(nullptr, shape.dtype, tile.keys * shape.batch, kv_cols, 2 * kv_cols);
  return tile;
}

}  // namespace

// A piece away from home is one tile; one at home is a tile for each of its ranges of the rank's own K/V,
// backward in two parts where some of its keys are late.
std::vector<std::vector<PlannedTile>> PlanTiles(const AttentionShape& shape, const HeadRange& heads,
                                                const TokenShare& tokens, const Mask& mask,
                                                const KvSchedule& schedule, Pass pass) {
  std::vector<std::vector<PlannedTile>> tiles(schedule.slots.size());
  const auto add_home = [&](size_t slot, int64_t begin, int64_t end) {
    if (begin == end) return;
    tiles[slot].push_back(
        {MakeTile(shape, heads, tokens, mask, tokens.Slice(begin, end)), true, begin, begin});
  };
  const int64_t late = pass == Pass::kForward ? tokens.size() : schedule.late_keys;
  for (size_t s = 0; s < tiles.size(); ++s) {
    for (const int index : schedule.slots[s].work) {
      const KvPiece& piece = schedule.pieces[index];
      if (piece.home != schedule.rank) {
        tiles[s].push_back({MakeTile(shape, heads, tokens, mask, piece.keys), false, piece.buffer_offset,
                            piece.grad_offset});
        continue;
      }
      for (const IndexRange& range : piece.ranges) {
        const int64_t cut = std::clamp(late, range.begin, range.end);
        add_home(s, range.begin, cut);
        add_home(tiles.size() - 1, cut, range.end);
      }
    }
  }
  return tiles;
}

}  // namespace seqpar
