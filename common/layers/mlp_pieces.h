// The rows of an MLP are worked on in pieces: what is as wide as the intermediate size exists for one piece
// at a time.
#ifndef SEQPAR_COMMON_LAYERS_MLP_PIECES_H_
#define SEQPAR_COMMON_LAYERS_MLP_PIECES_H_

#include <algorithm>
#include <cstdint>

namespace seqpar {

// Rows of a piece at most: products of so many run as fast as larger ones, and sums of weight gradients are
// read and written seldom enough to cost little beside them.
inline constexpr int64_t kMlpPieceRows = 16384;

// Pieces differ by less than one row each from `rows` cut evenly. Nothing is one piece of no rows: products
// of it still write zeros to the gradients.
inline int64_t MlpPieceRows(int64_t rows, int64_t most = kMlpPieceRows) {
  const int64_t pieces = std::max<int64_t>(1, (rows + most - 1) / most);
  return (rows + pieces - 1) / pieces;
}

}  // namespace seqpar

#endif  // SEQPAR_COMMON_LAYERS_MLP_PIECES_H_
