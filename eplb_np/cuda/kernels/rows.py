"""The kernels: what Python launches, with one block for each row, or for each layer and node.

Each comes in two forms that differ in where a block's working memory is: in shared memory, whose
size the launch says, or, in those called ``large``, in a row of global memory. Either way it is
looked at as int64, int32 and float32. A kernel that knows when it is compiled that it reads
shared memory does so without a look at each address.

Loads are float32; outputs are int64, or int32 where the caller wants that.
"""

from __future__ import annotations

import numpy as np
from numba import cuda, types

from eplb_np._types import Floats, Int, Ints
from eplb_np.cuda.kernels._jit import launched
from eplb_np.cuda.kernels.block import Team
from eplb_np.cuda.kernels.blocks import pack_block, plan_block, replicate_block
from eplb_np.cuda.kernels.outputs import NO_SLOT, write_counts, write_log2phy, write_slots
from eplb_np.kernels.decisions import at


@launched
def plan_slots(
    weight: Floats,
    num_groups: Int,
    num_nodes: Int,
    num_gpus: Int,
    hybrid: bool,
    num_tail: Int,
    shift: Int,
    room: Int,
    phy2log: Ints,
    phyrank: Ints,
    logcnt: Ints,
) -> None:
    """Plan every layer of ``weight`` [L, E] on a grid [L, N]: slots and ranks."""
    words = cuda.shared.array(0, types.int64)
    ints = cuda.shared.array(0, types.int32)
    floats = cuda.shared.array(0, types.float32)
    team = Team(np.int64(cuda.threadIdx.x), np.int64(cuda.blockDim.x))
    layer = np.int64(cuda.blockIdx.x)
    node = np.int64(cuda.blockIdx.y)
    s = plan_block(
        layer, node, team, weight, num_groups, num_nodes, num_gpus, hybrid, num_tail, shift, room,
        phy2log, words, ints, floats,
    )  # fmt: skip
    write_slots(layer, node, phy2log, phyrank, s, team)
    write_counts(layer, logcnt, s, team)


@launched
def plan_slots_large(
    weight: Floats,
    num_groups: Int,
    num_nodes: Int,
    num_gpus: Int,
    hybrid: bool,
    num_tail: Int,
    shift: Int,
    room: Int,
    phy2log: Ints,
    phyrank: Ints,
    logcnt: Ints,
    words: Ints,
    ints: Ints,
    floats: Floats,
) -> None:
    """`plan_slots` with a row of global memory for each block."""
    block = cuda.blockIdx.x * num_nodes + cuda.blockIdx.y
    team = Team(np.int64(cuda.threadIdx.x), np.int64(cuda.blockDim.x))
    layer = np.int64(cuda.blockIdx.x)
    node = np.int64(cuda.blockIdx.y)
    s = plan_block(
        layer, node, team, weight, num_groups, num_nodes, num_gpus, hybrid, num_tail, shift, room,
        phy2log, words[block], ints[block], floats[block],
    )  # fmt: skip
    write_slots(layer, node, phy2log, phyrank, s, team)
    write_counts(layer, logcnt, s, team)


@launched
def plan_maps(
    weight: Floats,
    num_groups: Int,
    num_nodes: Int,
    num_gpus: Int,
    hybrid: bool,
    num_tail: Int,
    shift: Int,
    room: Int,
    phy2log: Ints,
    log2phy: Ints,
    logcnt: Ints,
) -> None:
    """Plan every layer of ``weight`` [L, E] on a grid [L, N]: slots, and slots of each expert."""
    words = cuda.shared.array(0, types.int64)
    ints = cuda.shared.array(0, types.int32)
    floats = cuda.shared.array(0, types.float32)
    team = Team(np.int64(cuda.threadIdx.x), np.int64(cuda.blockDim.x))
    layer = np.int64(cuda.blockIdx.x)
    node = np.int64(cuda.blockIdx.y)
    s = plan_block(
        layer, node, team, weight, num_groups, num_nodes, num_gpus, hybrid, num_tail, shift, room,
        phy2log, words, ints, floats,
    )  # fmt: skip
    write_log2phy(layer, node, phy2log, log2phy, s, team)
    write_counts(layer, logcnt, s, team)


@launched
def plan_maps_large(
    weight: Floats,
    num_groups: Int,
    num_nodes: Int,
    num_gpus: Int,
    hybrid: bool,
    num_tail: Int,
    shift: Int,
    room: Int,
    phy2log: Ints,
    log2phy: Ints,
    logcnt: Ints,
    words: Ints,
    ints: Ints,
    floats: Floats,
) -> None:
    """`plan_maps` with a row of global memory for each block."""
    block = cuda.blockIdx.x * num_nodes + cuda.blockIdx.y
    team = Team(np.int64(cuda.threadIdx.x), np.int64(cuda.blockDim.x))
    layer = np.int64(cuda.blockIdx.x)
    node = np.int64(cuda.blockIdx.y)
    s = plan_block(
        layer, node, team, weight, num_groups, num_nodes, num_gpus, hybrid, num_tail, shift, room,
        phy2log, words[block], ints[block], floats[block],
    )  # fmt: skip
    write_log2phy(layer, node, phy2log, log2phy, s, team)
    write_counts(layer, logcnt, s, team)


@launched
def replicate_rows(
    weight: Floats,
    num_tail: Int,
    shift: Int,
    room: Int,
    phy2log: Ints,
    rank: Ints,
    logcnt: Ints,
) -> None:
    """Allocate every row of ``weight`` [X, E] on a grid [X]."""
    words = cuda.shared.array(0, types.int64)
    ints = cuda.shared.array(0, types.int32)
    floats = cuda.shared.array(0, types.float32)
    team = Team(np.int64(cuda.threadIdx.x), np.int64(cuda.blockDim.x))
    row = np.int64(cuda.blockIdx.x)
    replicate_block(
        row, team, weight, num_tail, shift, room, phy2log, rank, logcnt, words, ints, floats
    )


@launched
def replicate_rows_large(
    weight: Floats,
    num_tail: Int,
    shift: Int,
    room: Int,
    phy2log: Ints,
    rank: Ints,
    logcnt: Ints,
    words: Ints,
    ints: Ints,
    floats: Floats,
) -> None:
    """`replicate_rows` with a row of global memory for each block."""
    block = cuda.blockIdx.x
    team = Team(np.int64(cuda.threadIdx.x), np.int64(cuda.blockDim.x))
    row = np.int64(cuda.blockIdx.x)
    replicate_block(
        row,
        team,
        weight,
        num_tail,
        shift,
        room,
        phy2log,
        rank,
        logcnt,
        words[block],
        ints[block],
        floats[block],
    )


@launched
def pack_rows(
    weight: Floats,
    num_packs: Int,
    refine_steps: Int,
    room: Int,
    pack_index: Ints,
    rank_in_pack: Ints,
) -> None:
    """Pack every row of ``weight`` [X, n] on a grid [X]."""
    words = cuda.shared.array(0, types.int64)
    ints = cuda.shared.array(0, types.int32)
    floats = cuda.shared.array(0, types.float32)
    team = Team(np.int64(cuda.threadIdx.x), np.int64(cuda.blockDim.x))
    row = np.int64(cuda.blockIdx.x)
    pack_block(
        row,
        team,
        weight,
        num_packs,
        refine_steps,
        room,
        pack_index,
        rank_in_pack,
        words,
        ints,
        floats,
    )


@launched
def pack_rows_large(
    weight: Floats,
    num_packs: Int,
    refine_steps: Int,
    room: Int,
    pack_index: Ints,
    rank_in_pack: Ints,
    words: Ints,
    ints: Ints,
    floats: Floats,
) -> None:
    """`pack_rows` with a row of global memory for each block."""
    block = cuda.blockIdx.x
    team = Team(np.int64(cuda.threadIdx.x), np.int64(cuda.blockDim.x))
    row = np.int64(cuda.blockIdx.x)
    pack_block(
        row,
        team,
        weight,
        num_packs,
        refine_steps,
        room,
        pack_index,
        rank_in_pack,
        words[block],
        ints[block],
        floats[block],
    )


@launched
def fill_log2phy(phy2log: Ints, phyrank: Ints, log2phy: Ints) -> None:
    """Slot of each replica of each expert, ``log2phy`` [L, E, X], on a grid [L]."""
    layer = np.int64(cuda.blockIdx.x)
    thread = np.int64(cuda.threadIdx.x)
    for e in range(log2phy.shape[1]):
        for r in range(thread, log2phy.shape[2], cuda.blockDim.x):
            log2phy[layer, e, r] = NO_SLOT
    cuda.syncthreads()
    for slot in range(thread, phy2log.shape[1], cuda.blockDim.x):
        log2phy[layer, at(phy2log[layer, slot]), at(phyrank[layer, slot])] = slot
