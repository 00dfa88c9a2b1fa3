"""FlashAttention-4's Hopper kernels with the results that sequence parallelism needs.

Only where results leave the registers do these differ from the kernels that they inherit from: partial O and its
log-sum-exp in float32, merged with what earlier steps left; dK and dV added to float32 rows that travel.
"""

import inspect

import cutlass
import cutlass.cute as cute
from cutlass import Float32, const_expr
from cutlass._mlir.dialects import llvm
from cutlass.cutlass_dsl import dsl_user_op
from flash_attn.cute.flash_bwd_sm90 import FlashAttentionBackwardSm90
from flash_attn.cute.flash_fwd_sm90 import FlashAttentionForwardSm90
from quack import layout_utils

LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453


@dsl_user_op
def add_pair(pointer, x, y, *, loc=None, ip=None):
    """*pointer += {x, y}, two floats at an even place, atomically each."""
    llvm.inline_asm(
        None,
        [pointer.toint(loc=loc, ip=ip).ir_value(), Float32(x).ir_value(), Float32(y).ir_value()],
        "red.global.add.v2.f32 [$0], {$1, $2};",
        "l,f,f",
        has_side_effects=True,
        is_align_stack=False,
        asm_dialect=llvm.AsmDialect.AD_ATT,
    )


def accumulator_rows(tiled_mma, tidx, shape):
    """The (row, column) of each accumulator of a thread, as [its rows][its columns]."""
    return layout_utils.reshape_acc_to_mn(
        tiled_mma.get_slice(tidx).partition_C(cute.make_identity_tensor(shape))
    )


def pair_at(row_pointer, column):
    """The two adjacent floats that one thread holds of an accumulator's row."""
    return cute.make_tensor((row_pointer + column).align(8), cute.make_layout(2))


def add_to_row(row_pointer, column, x, y, in_turns):
    """Adds x and y to the two floats at an even column. in_turns: nobody else adds to the row meanwhile."""
    if not in_turns:
        add_pair(row_pointer + column, x, y)
        return
    pair = cute.make_rmem_tensor(cute.make_layout(2), Float32)
    cute.autovec_copy(pair_at(row_pointer, column), pair)
    pair[0] = pair[0] + x
    pair[1] = pair[1] + y
    cute.autovec_copy(pair, pair_at(row_pointer, column))


class RingForward(FlashAttentionForwardSm90):
    """merge=False: O = partial, LSE = its log-sum-exp. merge=True: O, LSE <- merged with the partial.

    O: float32 (batch, queries, heads, head_dim). LSE: float32 (batch, heads, queries), natural, any strides.
    """

    def __init__(self, *args, merge, **kwargs):
        super().__init__(*args, **kwargs)
        self.merge = merge

    # The base class turns the TMA store on inside __call__; registers go straight to memory here.
    use_tma_O = property(lambda self: False, lambda self, value: None)

    def _check_type(self, q, k, v, o, *rest):
        if const_expr(o is not Float32):
            raise TypeError("O must be Float32")
        super()._check_type(q, k, v, q, *rest)

    @cute.jit
    def epilogue(self, acc_O, lse, mO, mLSE, sO, seqlen, gmem_tiled_copy_O, tma_atom_O, tiled_mma,
                 tidx, m_block, head_idx, batch_idx):
        coords = accumulator_rows(tiled_mma, tidx, (self.tile_m, self.tile_hdimv))
        acc = layout_utils.reshape_acc_to_mn(acc_O)
        o_head = mO[None, None, head_idx, batch_idx]
        lse_head = mLSE[None, head_idx, batch_idx]
        rows = const_expr(cute.size(acc, mode=[0]))
        cols = const_expr(cute.size(acc, mode=[1]))
        old_lse = cute.make_rmem_tensor(cute.make_layout(rows), Float32)
        old = cute.make_rmem_tensor(cute.make_layout((cols, rows)), Float32)
        if const_expr(self.merge):
            # All loads before the first store, so that they overlap; and four threads of one warp share a row, so
            # all must have read its LSE before one writes it.
            for i in cutlass.range_constexpr(rows):
                old_lse[i] = -Float32.inf
                row = m_block * self.tile_m + coords[i, 0][0]
                if row < seqlen.seqlen_q:
                    old_lse[i] = lse_head[(row,)]
                    o_row = o_head.iterator + cute.crd2idx((row, 0), o_head.layout)
                    for j in cutlass.range_constexpr(cols // 2):
                        cute.autovec_copy(
                            pair_at(o_row, coords[i, 2 * j][1]),
                            cute.make_tensor(old.iterator + (i * cols + 2 * j), cute.make_layout(2)))
            cute.arch.sync_warp()
        for i in cutlass.range_constexpr(rows):
            row = m_block * self.tile_m + coords[i, 0][0]
            if row < seqlen.seqlen_q:
                w_old, w_new, lse_out = Float32(0.0), Float32(1.0), lse[i]
                if const_expr(self.merge):
                    top = cutlass.max(old_lse[i], lse_out)
                    if top != -Float32.inf:
                        w_old = cute.math.exp2((old_lse[i] - top) * LOG2E, fastmath=True)
                        w_new = cute.math.exp2((lse_out - top) * LOG2E, fastmath=True)
                        total = w_old + w_new
                        lse_out = top + cute.math.log2(total, fastmath=True) * LN2
                        w_old = w_old / total
                        w_new = w_new / total
                o_row = o_head.iterator + cute.crd2idx((row, 0), o_head.layout)
                for j in cutlass.range_constexpr(cols // 2):
                    pair = cute.make_rmem_tensor(cute.make_layout(2), Float32)
                    for c in cutlass.range_constexpr(2):
                        pair[c] = acc[i, 2 * j + c]
                        if const_expr(self.merge):
                            pair[c] = old[2 * j + c, i] * w_old + acc[i, 2 * j + c] * w_new
                    cute.autovec_copy(pair, pair_at(o_row, coords[i, 2 * j][1]))
                if coords[i, 0][1] == 0:
                    lse_head[(row,)] = lse_out


class SummedHeads(int):
    """The group size 1 that takes the base class's path of grouped heads, whose dK and dV are sums in float32."""

    __eq__ = lambda self, other: False
    __gt__ = lambda self, other: True
    __hash__ = int.__hash__


class RingBackward(FlashAttentionBackwardSm90):
    """Adds to dK and dV: float32 (batch, heads, keys) of rows of head_dim floats, any strides of four floats.

    In free order several (batch, head) may name the same rows: query heads that share a KV head. In fixed order
    (deterministic) they must not.
    """

    def __init__(self, dtype, head_dim, **kwargs):
        super().__init__(dtype, head_dim, head_dim, 1, **kwargs)
        self.qhead_per_kvhead = SummedHeads(1)

    def mma(self, *args, **kwargs):
        signature = inspect.signature(FlashAttentionBackwardSm90.mma)
        self.score_scale = signature.bind(self, *args, **kwargs).arguments["softmax_scale"]
        return super().mma(*args, **kwargs)

    @cute.jit
    def epilogue_dKV(self, acc_dV, mdV, sV, acc_dK, mdK, sK, seqlen, tma_atom_dK, tma_atom_dV,
                     tiled_mma_dK, tiled_mma_dV, tidx, n_block, head_idx, batch_idx,
                     qhead_per_kvhead_divmod=None, mdK_semaphore=None, mdV_semaphore=None):
        self.add_rows(acc_dV, tiled_mma_dV, mdV, Float32(1.0), seqlen, tidx, n_block, head_idx, batch_idx)
        self.add_rows(acc_dK, tiled_mma_dK, mdK, self.score_scale, seqlen, tidx, n_block, head_idx, batch_idx)

    @cute.jit
    def add_rows(self, accumulators, tiled_mma, sums, factor, seqlen, tidx, n_block, head_idx, batch_idx):
        coords = accumulator_rows(tiled_mma, tidx, (self.tile_n, self.tile_hdim))
        values = layout_utils.reshape_acc_to_mn(accumulators)
        head = sums[None, head_idx, batch_idx]
        for i in cutlass.range_constexpr(cute.size(values, mode=[0])):
            key = n_block * self.tile_n + coords[i, 0][0]
            if key < seqlen.seqlen_k:
                row = head.iterator + cute.crd2idx((key,), head.layout)
                for j in cutlass.range_constexpr(cute.size(values, mode=[1]) // 2):
                    x = values[i, 2 * j] * factor
                    y = values[i, 2 * j + 1] * factor
                    column = coords[i, 2 * j][1]
                    add_to_row(row, column, x, y, self.deterministic)
