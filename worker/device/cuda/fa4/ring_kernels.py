"""FlashAttention-4's Hopper kernels with the results that sequence parallelism needs.

Only where results leave the registers do these differ from the kernels that they inherit from: partial O and its
log-sum-exp in float32, merged with what earlier steps left; dK and dV added to float32 rows that travel. Where a launch is
all there is of a result, it may go out as bfloat16 instead (rounded): a number that the caller gives says so. Then the
float32 tensor of the result is the bfloat16 one seen as pairs: same address, half the strides.
"""

import inspect

import cutlass
import cutlass.cute as cute
from cutlass import BFloat16, Float32, Int32, const_expr
from cutlass._mlir.dialects import llvm
from cutlass.cutlass_dsl import dsl_user_op
from flash_attn.cute import barrier, flash_bwd_sm90
from flash_attn.cute.flash_bwd_sm90 import FlashAttentionBackwardSm90
from flash_attn.cute.flash_fwd_sm90 import FlashAttentionForwardSm90
from flash_attn.cute.named_barrier import NamedBarrierBwd
from flash_attn.cute.tile_scheduler import SingleTileLPTBwdScheduler
from quack import copy_utils, layout_utils

# What the base class takes in free order: tiles of one head after those of another, and where heads are short the last
# one's longest run while the rest of the card has nothing left. This one takes as many heads at once as the cache holds.
flash_bwd_sm90.SingleTileScheduler = SingleTileLPTBwdScheduler

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


def argument_of(method, name, instance, args, kwargs):
    """What a call of the base class's method gives to the parameter."""
    bound = inspect.signature(method).bind(instance, *args, **kwargs)
    bound.apply_defaults()
    return bound.arguments[name]


@cute.jit
def transpose_quad(words, lane):
    """Four lanes have four words each: words[k] of lane j goes to words[j] of lane k. lane: 0 to 3."""
    for step in cutlass.range_constexpr(2):
        offset = const_expr(1 << step)
        upper = (lane & offset) != 0
        for pair in cutlass.range_constexpr(2):
            low = const_expr(2 * pair if step == 0 else pair)
            high = const_expr(low + offset)
            swapped = cute.arch.shuffle_sync_bfly(cutlass.select_(upper, words[low], words[high]), offset=offset)
            words[low] = cutlass.select_(upper, swapped, words[low])
            words[high] = cutlass.select_(upper, words[high], swapped)


@cute.jit
def store_rounded(values, coords, factor, first_row, rows_end, rows):
    """values: a thread's accumulators as [its rows][its columns], coords where they are in the tile; times the factor to
    bfloat16 rows from first_row on, whose tensor is given as one of float32. Four lanes have eight columns between them,
    two each, eight columns on again; between them they make whole vectors of what each has of four such blocks."""
    lane = cute.arch.lane_idx() % 4
    for i in cutlass.range_constexpr(cute.size(values, mode=[0])):
        row = first_row + coords[i, 0][0]
        for j in cutlass.range_constexpr(cute.size(values, mode=[1]) // 8):
            rounded = cute.make_rmem_tensor(cute.make_layout(8), BFloat16)
            for c in cutlass.range_constexpr(8):
                rounded[c] = BFloat16(values[i, 8 * j + c] * factor)
            words = cute.recast_tensor(rounded, Int32)
            transpose_quad(words, lane)
            if row < rows_end:
                at = cute.recast_ptr(rows.iterator + cute.crd2idx((row, 0), rows.layout), dtype=BFloat16)
                at = cute.recast_ptr(at + (coords[i, 8 * j][1] + 6 * lane), dtype=Int32)
                cute.autovec_copy(words, cute.make_tensor(at.align(16), cute.make_layout(4)))


class RingForward(FlashAttentionForwardSm90):
    """merge=False: O = partial, LSE = its log-sum-exp. merge=True: O, LSE <- merged with the partial.

    O: float32 (batch, queries, heads, head_dim). LSE: float32 (batch, heads, queries), natural, any strides. merge=False
    takes aux_data.scalars = (rounded,): not 0 where O is bfloat16.
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

    def mma(self, *args, **kwargs):
        if not self.merge:
            (self.rounded,) = argument_of(FlashAttentionForwardSm90.mma, "aux_data", self, args, kwargs).scalars
        return super().mma(*args, **kwargs)

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
                if coords[i, 0][1] == 0:
                    lse_head[(row,)] = lse_out
                if const_expr(self.merge) or self.rounded == 0:
                    o_row = o_head.iterator + cute.crd2idx((row, 0), o_head.layout)
                    for j in cutlass.range_constexpr(cols // 2):
                        pair = cute.make_rmem_tensor(cute.make_layout(2), Float32)
                        for c in cutlass.range_constexpr(2):
                            pair[c] = acc[i, 2 * j + c]
                            if const_expr(self.merge):
                                pair[c] = old[2 * j + c, i] * w_old + acc[i, 2 * j + c] * w_new
                        cute.autovec_copy(pair, pair_at(o_row, coords[i, 2 * j][1]))
        if const_expr(not self.merge):
            if self.rounded != 0:
                store_rounded(acc, coords, Float32(1.0), m_block * self.tile_m, seqlen.seqlen_q, o_head)


class SummedHeads(int):
    """The group size 1 that takes the base class's path of grouped heads, whose dK and dV are sums in float32."""

    __eq__ = lambda self, other: False
    __gt__ = lambda self, other: True
    __hash__ = int.__hash__


class RingBackward(FlashAttentionBackwardSm90):
    """Adds to dK and dV: float32 (batch, heads, keys) of rows of head_dim floats, any strides of four floats.

    Several (batch, head) may name the same rows: query heads that share a KV head. In fixed order (deterministic) they are
    those of one head in all batches, and add in turns, batch after batch. aux_data.scalars = (rounded, shared). rounded: not
    0 where dK and dV are written instead, as bfloat16, which needs rows of their own for each (batch, head). shared: not 0
    where turns are to be taken; mdK_semaphore counts them, zero before, by head and tile of keys, one for all batches.
    """

    def __init__(self, dtype, head_dim, **kwargs):
        super().__init__(dtype, head_dim, head_dim, 1, **kwargs)
        self.qhead_per_kvhead = SummedHeads(1)

    def mma(self, *args, **kwargs):
        given = lambda name: argument_of(FlashAttentionBackwardSm90.mma, name, self, args, kwargs)
        self.score_scale = given("softmax_scale")
        self.rounded, self.shared = given("aux_data").scalars
        return super().mma(*args, **kwargs)

    def dQaccum_store(self, sums, staged, block_info, TileSchedulerCls, SeqlenInfoCls, blocksparse, turns):
        if self.deterministic:
            self.add_dq_in_turns(sums, staged, block_info, TileSchedulerCls, SeqlenInfoCls, turns)
        else:
            super().dQaccum_store(sums, staged, block_info, TileSchedulerCls, SeqlenInfoCls, blocksparse, turns)

    @cute.jit
    def add_dq_in_turns(self, sums, staged, block_info, TileSchedulerCls, SeqlenInfoCls, turns):
        """The warp that adds each tile's dQ, which two warpgroups leave in `staged`, to its sums in the order of keys.

        A turn is passed on once its addition has happened. To wait for that, pass it on and ask for the next takes as long
        as a tile's products, so the tile before is never waited for: its part is given back when it has been read, and its
        turn is passed on behind the next tile's addition, by when its own has long happened. Whoever is next gets it a tile
        later, and had begun a tile later or more.
        """
        lane = cute.arch.thread_idx()[0] % cute.arch.WARP_SIZE
        parts = const_expr(self.num_wg_dQ)
        part_of_tile = const_expr(self.tile_m * self.tile_hdim // parts)
        party = const_expr(self.num_threads_per_warp_group + cute.arch.WARP_SIZE)  # of a part's barriers
        scheduler = TileSchedulerCls()
        work = scheduler.initial_work_tile_info()
        while work.is_valid_tile:
            n_block, head, batch, _ = work.tile_idx
            seqlen = SeqlenInfoCls(batch)
            tiles = cute.local_tile(
                sums[None, head, batch], (cute.make_layout((part_of_tile, parts)),), (None,))
            turn = turns[None, None, head, batch]
            first, end = block_info.get_m_block_min_max(seqlen, n_block)
            for m_block in cutlass.range(first, end, unroll=1):
                cute.arch.cp_async_bulk_wait_group(0, read=True)
                for part in cutlass.range_constexpr(parts):
                    cute.arch.barrier_arrive(
                        barrier_id=int(NamedBarrierBwd.dQEmptyWG0) + part, number_of_threads=party)
                before = n_block
                if const_expr(self.spt):
                    _, keys_end = block_info.get_n_block_min_max(seqlen, m_block)
                    before = keys_end - 1 - n_block
                barrier.wait_eq(turn[(m_block, None)].iterator, lane, 0, before)
                for part in cutlass.range_constexpr(parts):
                    cute.arch.barrier(barrier_id=int(NamedBarrierBwd.dQFullWG0) + part, number_of_threads=party)
                    with cute.arch.elect_one():
                        copy_utils.cpasync_reduce_bulk_add_f32(
                            staged[None, part].iterator, tiles[(None, part), m_block].iterator,
                            self.tma_copy_bytes["dQ"])
                cute.arch.cp_async_bulk_commit_group()
                if m_block > first:
                    cute.arch.cp_async_bulk_wait_group(1, read=False)
                    barrier.arrive_inc(turn[(m_block - 1, None)].iterator, lane, 0, 1)
            if first < end:
                cute.arch.cp_async_bulk_wait_group(0, read=False)
                barrier.arrive_inc(turn[(end - 1, None)].iterator, lane, 0, 1)
            scheduler.advance_to_next_work()
            work = scheduler.get_current_work()

    @cute.jit
    def epilogue_dKV(self, acc_dV, mdV, sV, acc_dK, mdK, sK, seqlen, tma_atom_dK, tma_atom_dV,
                     tiled_mma_dK, tiled_mma_dV, tidx, n_block, head_idx, batch_idx,
                     qhead_per_kvhead_divmod=None, mdK_semaphore=None, mdV_semaphore=None):
        everyone = cutlass.pipeline.NamedBarrier(
            barrier_id=int(NamedBarrierBwd.Epilogue), num_threads=self.num_mma_threads)
        if const_expr(self.deterministic):
            if self.shared != 0:
                barrier.wait_eq(mdK_semaphore[n_block, None, head_idx, batch_idx].iterator, tidx, 0, batch_idx)
                everyone.arrive_and_wait()
        self.add_rows(acc_dV, tiled_mma_dV, mdV, Float32(1.0), seqlen, tidx, n_block, head_idx, batch_idx)
        self.add_rows(acc_dK, tiled_mma_dK, mdK, self.score_scale, seqlen, tidx, n_block, head_idx, batch_idx)
        if const_expr(self.deterministic):
            if self.shared != 0:
                everyone.arrive_and_wait()
                barrier.arrive_inc(mdK_semaphore[n_block, None, head_idx, batch_idx].iterator, tidx, 0, 1)

    @cute.jit
    def add_rows(self, accumulators, tiled_mma, sums, factor, seqlen, tidx, n_block, head_idx, batch_idx):
        coords = accumulator_rows(tiled_mma, tidx, (self.tile_n, self.tile_hdim))
        values = layout_utils.reshape_acc_to_mn(accumulators)
        head = sums[None, head_idx, batch_idx]
        if self.rounded != 0:
            rows = cute.make_tensor(head.iterator, cute.make_layout((head.shape[0], 1), stride=(head.stride[0], 1)))
            store_rounded(values, coords, factor, n_block * self.tile_n, seqlen.seqlen_k, rows)
        else:
            for i in cutlass.range_constexpr(cute.size(values, mode=[0])):
                key = n_block * self.tile_n + coords[i, 0][0]
                if key < seqlen.seqlen_k:
                    row = head.iterator + cute.crd2idx((key,), head.layout)
                    for j in cutlass.range_constexpr(cute.size(values, mode=[1]) // 2):
                        add_pair(row + coords[i, 2 * j][1], values[i, 2 * j] * factor, values[i, 2 * j + 1] * factor)
