// What one rank needs to know to compute its part of a layer.
#ifndef SEQPAR_COMMON_LAYERS_LAYER_PLAN_H_
#define SEQPAR_COMMON_LAYERS_LAYER_PLAN_H_

#include "common/attention/strategies.h"
#include "common/job/job.h"
#include "common/layers/mlp_pieces.h"
#include "common/parallel/head_layout.h"
#include "common/parallel/mask.h"
#include "common/parallel/token_layout.h"

namespace seqpar {

struct LayerPlan {
  ModelConfig config;
  DType dtype = DType::kF32;
  int64_t batch = 1;
  Mask mask;
  TokenLayout tokens;  // carries the mesh
  StrategyKind strategy = StrategyKind::kHybrid;
  CoreKind core = CoreKind::kRing;
  bool backward = false;
  Recompute recompute = Recompute::kNone;
  int64_t mlp_piece_rows = kMlpPieceRows;  // tests have less
  // Keeps what the attention core saw and gave in backward apart from what the layer makes of it, for whoever
  // compares it (TransformerLayer::View).
  bool inspect = false;
  int rank = 0;

  // Forward keeps the MLP's intermediates for backward.
  bool keeps_mlp() const { return backward && !RecomputesMlp(recompute); }

  const Mesh& mesh() const { return tokens.mesh(); }
  MeshCoord at() const { return mesh().CoordOf(rank); }
  // REQUIRES: CheckMesh(strategy, mesh(), config.heads) is OK.
  HeadLayout Heads() const { return HeadLayout(mesh(), config.heads, config.kv_heads); }
  AttentionPlan Attention() const {
    const AttentionShape shape{batch, config.head_dim, config.heads / config.kv_heads, dtype};
    return {strategy, core, tokens, Heads(), mask, shape, rank, inspect};
  }
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_LAYERS_LAYER_PLAN_H_
