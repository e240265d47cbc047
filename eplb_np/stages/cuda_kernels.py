"""The CUDA kernels of the stages, which Python launches: a block per row, or per layer and node.

Each comes in two forms, which differ in where a block's working memory is: in shared memory, whose
size is set at the launch, or, in the forms called ``large``, in a row of global memory. Either way
it is viewed as int64, int32 and float32. A kernel that is compiled for shared memory alone need
not find out for each address which kind of memory it is in.

Loads are float32; outputs are int64, or int32 if the caller wants that. Letters: L layers, N nodes
of a layer; X rows of E experts, or of n items.

All are in this one file because Numba's simulator lends ``cuda`` only to the file of the kernel.
"""

from __future__ import annotations

import numpy as np
from numba import cuda, types

from eplb_np._cuda.jit import device, launched
from eplb_np._cuda.launch import Forms
from eplb_np._cuda.memory import Memory
from eplb_np._cuda.team import Team
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.hierarchy.cuda import (
    PlanSizes,
    plan_block,
    write_counts,
    write_log2phy,
    write_slots,
)
from eplb_np.stages.packing.cuda import PackingSizes, pack_block
from eplb_np.stages.replication.cuda import ReplicationSizes, replicate_block


@device
def row_and_team() -> tuple[Int, Team]:
    """Return a block's row, or layer, and its threads."""
    team = Team(np.int64(cuda.threadIdx.x), np.int64(cuda.blockDim.x))
    return np.int64(cuda.blockIdx.x), team


@device
def shared_memory() -> Memory:
    """Return a block's shared memory."""
    return Memory(
        cuda.shared.array(0, types.int64),
        cuda.shared.array(0, types.int32),
        cuda.shared.array(0, types.float32),
    )


@launched
def plan_slots(
    weight: Floats,
    sizes: PlanSizes,
    phy2log: Ints,
    phyrank: Ints,
    logcnt: Ints,
) -> None:
    """Plan every layer of ``weight`` [L, E] on a grid [L, N]: slots and ranks."""
    layer, team = row_and_team()
    node = np.int64(cuda.blockIdx.y)
    memory = shared_memory()
    s = plan_block(layer, node, team, weight, sizes, phy2log.shape[1], memory)
    write_slots(layer, node, phy2log, phyrank, s, team)
    write_counts(layer, logcnt, s, team)


@launched
def plan_slots_large(
    weight: Floats,
    sizes: PlanSizes,
    phy2log: Ints,
    phyrank: Ints,
    logcnt: Ints,
    words: Ints,
    ints: Ints,
    floats: Floats,
) -> None:
    """`plan_slots` with a row of global memory per block."""
    layer, team = row_and_team()
    node = np.int64(cuda.blockIdx.y)
    block = layer * sizes.num_nodes + node
    memory = Memory(words[block], ints[block], floats[block])
    s = plan_block(layer, node, team, weight, sizes, phy2log.shape[1], memory)
    write_slots(layer, node, phy2log, phyrank, s, team)
    write_counts(layer, logcnt, s, team)


@launched
def plan_maps(
    weight: Floats,
    sizes: PlanSizes,
    phy2log: Ints,
    log2phy: Ints,
    logcnt: Ints,
) -> None:
    """Plan every layer of ``weight`` [L, E] on a grid [L, N]: slots, and slots of each expert."""
    layer, team = row_and_team()
    node = np.int64(cuda.blockIdx.y)
    memory = shared_memory()
    s = plan_block(layer, node, team, weight, sizes, phy2log.shape[1], memory)
    write_log2phy(layer, node, phy2log, log2phy, s, team)
    write_counts(layer, logcnt, s, team)


@launched
def plan_maps_large(
    weight: Floats,
    sizes: PlanSizes,
    phy2log: Ints,
    log2phy: Ints,
    logcnt: Ints,
    words: Ints,
    ints: Ints,
    floats: Floats,
) -> None:
    """`plan_maps` with a row of global memory per block."""
    layer, team = row_and_team()
    node = np.int64(cuda.blockIdx.y)
    block = layer * sizes.num_nodes + node
    memory = Memory(words[block], ints[block], floats[block])
    s = plan_block(layer, node, team, weight, sizes, phy2log.shape[1], memory)
    write_log2phy(layer, node, phy2log, log2phy, s, team)
    write_counts(layer, logcnt, s, team)


@launched
def replicate_rows(
    weight: Floats,
    sizes: ReplicationSizes,
    phy2log: Ints,
    rank: Ints,
    logcnt: Ints,
) -> None:
    """Allocate every row of ``weight`` [X, E] on a grid [X]."""
    row, team = row_and_team()
    replicate_block(row, team, weight, sizes, phy2log, rank, logcnt, shared_memory())


@launched
def replicate_rows_large(
    weight: Floats,
    sizes: ReplicationSizes,
    phy2log: Ints,
    rank: Ints,
    logcnt: Ints,
    words: Ints,
    ints: Ints,
    floats: Floats,
) -> None:
    """`replicate_rows` with a row of global memory per block."""
    row, team = row_and_team()
    memory = Memory(words[row], ints[row], floats[row])
    replicate_block(row, team, weight, sizes, phy2log, rank, logcnt, memory)


@launched
def pack_rows(
    weight: Floats,
    sizes: PackingSizes,
    pack_index: Ints,
    rank_in_pack: Ints,
) -> None:
    """Pack every row of ``weight`` [X, n] on a grid [X]."""
    row, team = row_and_team()
    pack_block(row, team, weight, sizes, pack_index, rank_in_pack, shared_memory())


@launched
def pack_rows_large(
    weight: Floats,
    sizes: PackingSizes,
    pack_index: Ints,
    rank_in_pack: Ints,
    words: Ints,
    ints: Ints,
    floats: Floats,
) -> None:
    """`pack_rows` with a row of global memory per block."""
    row, team = row_and_team()
    memory = Memory(words[row], ints[row], floats[row])
    pack_block(row, team, weight, sizes, pack_index, rank_in_pack, memory)


PLAN_SLOTS = Forms(plan_slots, plan_slots_large)


PLAN_MAPS = Forms(plan_maps, plan_maps_large)


REPLICATE_ROWS = Forms(replicate_rows, replicate_rows_large)


PACK_ROWS = Forms(pack_rows, pack_rows_large)
