"""FlashAttention-4's kernels for sm_100 with the results that sequence parallelism needs: ring_kernels.py's arguments.

Forward is the package's own, whose splits of the keys give float32 partial O and log-sum-exps; they are merged outside.
Backward differs from the kernel that it inherits from where dK and dV leave the tensor memory.
"""

import inspect

import cutlass
import cutlass.cute as cute
from cutlass import Float32, Int32, const_expr
from cutlass.cute.nvgpu import tcgen05
from flash_attn.cute.flash_bwd_sm100 import FlashAttentionBackwardSm100
from flash_attn.cute.flash_fwd_sm100 import FlashAttentionForwardSm100
from quack import layout_utils
from ring_kernels import SummedHeads, add_pair


class SplitForward:
    """O = partial, LSE = its log-sum-exp, as the only one of the splits that the keys may be cut into."""

    def __init__(self, head_dim, is_local):
        self.kernel = FlashAttentionForwardSm100(head_dim, head_dim, is_local=is_local, is_split_kv=True,
                                                 is_static_persistent=False)
        # A polynomial takes part of the exponentials elsewhere, good to 13 bits: enough for probabilities in bfloat16,
        # not for sums of them in float32 that others are merged with.
        self.kernel.enable_ex2_emu = False

    def __call__(self, q, k, v, o, lse, scale, **rest):
        self.kernel(q, k, v, layout_utils.expand(o, 0, Int32(1)), layout_utils.expand(lse, 0, Int32(1)), scale, **rest)


class RingBackwardSm100(FlashAttentionBackwardSm100):
    """As RingBackward. One CTA a tile of keys, where the package has two share it for head dimension 128."""

    def __init__(self, head_dim, **kwargs):
        super().__init__(head_dim, **kwargs)
        self.qhead_per_kvhead = SummedHeads(1)

    def compute_loop(self, *args, **kwargs):
        signature = inspect.signature(FlashAttentionBackwardSm100.compute_loop)
        self.score_scale = signature.bind(self, *args, **kwargs).arguments["softmax_scale"]
        return super().compute_loop(*args, **kwargs)

    # The base class stages tiles in shared memory and adds them to flat sums. Here registers are added to the rows
    # that the accumulators' coordinates name: a thread has a row, a warpgroup half of the columns.
    @cute.jit
    def epilogue_dK_or_dV_tma(self, tidx, batch_idx, head_idx, n_block, seqlen, thr_mma, tdKVtdKV, mdKV, sdKV,
                              tma_atom_dKV, thr_copy_r2s_dKV, pipeline_dKV, consumer_state_dKV, scale, barrier_id,
                              mdKV_semaphore, K_or_V):
        threads = cute.arch.WARP_SIZE * len(self.compute_warp_ids)
        wg_idx = (cute.arch.thread_idx()[0] % threads) // 128
        factor = self.score_scale if const_expr(K_or_V == "K") else Float32(1.0)
        load = cute.make_copy_atom(tcgen05.copy.Ld32x32bOp(tcgen05.copy.Repetition(self.dK_reduce_ncol)), Float32)
        copy = tcgen05.make_tmem_copy(load, tdKVtdKV).get_slice(tidx)
        identity = thr_mma.partition_C(cute.make_identity_tensor((self.tile_n, self.tile_hdim)))
        source = self.split_wg(copy.partition_S(tdKVtdKV), wg_idx, threads // 128)[None, None, 0, 0]
        coords = self.split_wg(copy.partition_D(identity), wg_idx, threads // 128)[None, None, 0, 0]
        head = mdKV[None, head_idx, batch_idx]
        pipeline_dKV.consumer_wait(consumer_state_dKV)
        for chunk in cutlass.range_constexpr(cute.size(source, mode=[1])):
            places = coords[None, chunk]
            values = cute.make_rmem_tensor(places.shape, Float32)
            cute.copy(copy, source[None, chunk], values)
            cute.arch.fence_view_async_tmem_load()
            key = n_block * self.tile_n + places[0][0]
            if key < seqlen.seqlen_k:
                row = head.iterator + cute.crd2idx((key,), head.layout)
                for j in cutlass.range_constexpr(cute.size(values) // 2):
                    x = values[2 * j] * factor
                    y = values[2 * j + 1] * factor
                    column = places[2 * j][1]
                    add_pair(row + column, x, y)
        cute.arch.sync_warp()
        with cute.arch.elect_one():
            pipeline_dKV.consumer_release(consumer_state_dKV)
        consumer_state_dKV.advance()
        return consumer_state_dKV
