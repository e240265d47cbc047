"""The CUDA kernels of the split and of `assign`, which Python launches.

`split_rows` comes in two forms, as the kernels of `stages.cuda_kernels`: with a block's working
memory in shared memory, or in a row of global memory. All are in this one file because Numba's
simulator lends ``cuda`` only to the file of the kernel.
"""

from __future__ import annotations

import numpy as np
from numba import cuda, types

from eplb_np._cuda.jit import device, launched
from eplb_np._cuda.launch import Forms
from eplb_np._cuda.team import Team
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.dispatch.cuda import (
    SlotTable,
    Tiles,
    count_earlier,
    number_ids,
    split_block,
    take_slots,
)
from eplb_np.dispatch.cuda_graph import RoundSizes, carve_graph
from eplb_np.dispatch.cuda_steps import carve_scratch


@device
def block_and_team() -> tuple[Int, Team]:
    """Return a block's number and its threads."""
    team = Team(np.int64(cuda.threadIdx.x), np.int64(cuda.blockDim.x))
    return np.int64(cuda.blockIdx.x), team


@launched
def split_rows(
    counts: Ints,
    sizes: RoundSizes,
    first_layer: Int,
    graph_words: Ints,
    graph_doubles: Doubles,
    most_rounds: Int,
    slot_load: Ints,
) -> None:
    """Split every row of ``counts`` [X, E] on a grid [X]: the layers from ``first_layer`` on."""
    row, team = block_and_team()
    words = cuda.shared.array(0, types.int64)
    doubles = cuda.shared.array(0, types.float64)
    graph = carve_graph(graph_words[first_layer + row], graph_doubles[first_layer + row], sizes)
    s = carve_scratch(words, doubles, sizes)
    split_block(counts[row], sizes, graph, s, most_rounds, slot_load[row], team)


@launched
def split_rows_large(  # noqa: PLR0913 - that many arrays
    counts: Ints,
    sizes: RoundSizes,
    first_layer: Int,
    graph_words: Ints,
    graph_doubles: Doubles,
    most_rounds: Int,
    slot_load: Ints,
    words: Ints,
    doubles: Doubles,
) -> None:
    """`split_rows` with a row of global memory per block."""
    row, team = block_and_team()
    graph = carve_graph(graph_words[first_layer + row], graph_doubles[first_layer + row], sizes)
    s = carve_scratch(words[row], doubles[row], sizes)
    split_block(counts[row], sizes, graph, s, most_rounds, slot_load[row], team)


@launched
def number_tiles(ids: Ints, tiles: Tiles, turn: Ints, chosen: Ints) -> None:
    """Give numbers to the ids of each expert, block by block, on a grid [C]."""
    block, team = block_and_team()
    memory = cuda.shared.array(0, types.int32)
    number_ids(block, ids, tiles, turn, chosen, memory, team)


@launched
def assign_tiles(
    ids: Ints, tiles: Tiles, turn: Ints, chosen: Ints, quotas: Ints, log2phy: Ints, slots: Ints
) -> None:
    """Find the slots of ids that `number_tiles` has numbered, on the same grid."""
    block, team = block_and_team()
    memory = cuda.shared.array(0, types.int32)
    count_earlier(block, tiles, chosen, memory, team)
    take_slots(block, ids, tiles, turn, SlotTable(quotas, log2phy), slots, memory, team)


SPLIT_ROWS = Forms(split_rows, split_rows_large)
