// The memory that every layer computes in, one after the other, and how its parts share it: what is never in
// use together lies in the same place. Pure sizes, in bytes: the layer places by them, the planner predicts
// by them (coordinator/planner/memory.cc).
//
//                           attention  pieces  rows  core
//   attention, projections  yes        -       yes   -
//   attention, the core     yes        -       -     yes
//   the MLP                 -          yes     yes   -
#ifndef SEQPAR_COMMON_LAYERS_LAYER_SCRATCH_H_
#define SEQPAR_COMMON_LAYERS_LAYER_SCRATCH_H_

#include <algorithm>
#include <cstdint>

namespace seqpar {

struct LayerScratchSizes {
  int64_t attention = 0;  // gradients of its output, of q, k and v, where they have no place elsewhere; q, k
                          // and v themselves where nobody reads them again
  int64_t pieces = 0;     // of the MLP
  int64_t rows = 0;       // what a norm gave, rows of the tensor group, parts of sums
  int64_t core = 0;       // what the attention core computes in
};

struct LayerScratchPlaces {
  int64_t attention = 0, pieces = 0, rows = 0, core = 0;  // offsets
  int64_t bytes = 0;                                      // of the whole
};

// `inspect`: what the core computed in stays as it was until the layer's end, for whoever looks at it.
constexpr LayerScratchPlaces PlaceLayerScratch(const LayerScratchSizes& sizes, bool inspect) {
  LayerScratchPlaces places;
  places.rows = std::max(sizes.attention, sizes.pieces);
  places.core = inspect ? places.rows + sizes.rows : sizes.attention;
  places.bytes = std::max(places.rows + sizes.rows, places.core + sizes.core);
  return places;
}

}  // namespace seqpar

#endif  // SEQPAR_COMMON_LAYERS_LAYER_SCRATCH_H_
