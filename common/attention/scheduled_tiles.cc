#include "common/attention/scheduled_tiles.h"

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
PlannedTiles PlanTiles(const AttentionShape& shape, const HeadRange& heads, const TokenShare& tokens,
                       const Mask& mask, const KvSchedule& schedule) {
  const size_t slots = schedule.slots.size();
  PlannedTiles tiles;
  tiles.forward.resize(slots);
  tiles.backward.resize(slots);
  const auto home_tile = [&](int64_t begin, int64_t end) {
    return PlannedTile{MakeTile(shape, heads, tokens, mask, tokens.Slice(begin, end)), true, begin, begin};
  };
  for (size_t s = 0; s < slots; ++s) {
    for (const int index : schedule.slots[s].work) {
      const KvPiece& piece = schedule.pieces[index];
      if (piece.home != schedule.rank) {
        tiles.forward[s].push_back({MakeTile(shape, heads, tokens, mask, piece.keys), false,
                                    piece.buffer_offset, piece.grad_offset});
        tiles.backward[s].push_back(tiles.forward[s].back());
        continue;
      }
      for (const IndexRange& range : piece.ranges) {
        const PlannedTile whole = home_tile(range.begin, range.end);
        tiles.forward[s].push_back(whole);
        const int64_t cut = schedule.late_keys;
        if (cut >= range.end) {
          tiles.backward[s].push_back(whole);
        } else if (cut <= range.begin) {
          tiles.backward.back().push_back(whole);
        } else {
          tiles.backward[s].push_back(home_tile(range.begin, cut));
          tiles.backward.back().push_back(home_tile(cut, range.end));
        }
      }
    }
  }
  return tiles;
}

}  // namespace seqpar
