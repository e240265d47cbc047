"""One node: construction, then search."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.arrays import floats, ints
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.local_search.construction import allocate_capped, place_longest_first
from eplb_np.local_search.search import search
from eplb_np.local_search.separate import separate_duplicates
from eplb_np.local_search.slot_table import SlotTable, make_slot_table, replica_load
from eplb_np.stages.priority_queue.cpu import num_leaves
from eplb_np.stages.sorting.cpu import HISTOGRAM_SIZE, sort_descending

GOOD_ENOUGH = 1e-4
"""Stop within this distance of the lower bound; sampling noise of loads is a hundred times more."""


IDLE_GOOD_ENOUGH = 2e-3
"""The same for nodes that wait for a heavier one anyway."""


MAX_STEPS = np.int64(400)
"""Budget of a node's search, in swaps."""


class SearchScratch(NamedTuple):
    """A grid, and working memory for its first plan; once per call and not per layer."""

    grid: SlotTable
    average: Floats  # [E] float32, load of each of an expert's replicas
    order: Ints  # [E] int64
    keys: Ints  # [E] int64
    spare: Ints  # [E] int64
    histogram: Ints  # [HISTOGRAM_SIZE] int64
    filled: Ints  # [D] int64
    expert_tree: Ints  # [2 * leaves(E)] int64
    gpu_tree: Ints  # [2 * leaves(D)] int64


@allocator
def make_search_scratch(num_rows: Int, num_gpus: Int, num_experts: Int) -> SearchScratch:
    """Allocate a `SearchScratch`."""
    return SearchScratch(
        make_slot_table(num_rows, num_gpus, num_experts),
        floats(num_experts),
        ints(num_experts),
        ints(num_experts),
        ints(num_experts),
        ints(HISTOGRAM_SIZE),
        ints(num_gpus),
        ints(2 * num_leaves(num_experts)),
        ints(2 * num_leaves(num_gpus)),
    )


@kernel
def search_node(scratch: SearchScratch, good_enough: float) -> None:
    """Plan the experts of ``scratch.grid`` as well as the search can.

    ``grid.weight``, ``grid.size`` and ``grid.slowness`` say what is to be planned. The search
    ends near a bound: the mean time of the GPUs, or the largest replica on the fastest one.
    """
    grid = scratch.grid
    num_slots = 0
    num_live = 0
    speed = 0.0
    fastest = 0.0
    for g in range(grid.size.shape[0]):
        if grid.size[g] > 0:
            num_slots += grid.size[g]
            num_live += 1
            speed += 1.0 / grid.slowness[g]
            fastest = max(fastest, 1.0 / grid.slowness[g])
    allocate_capped(grid.weight, num_slots, num_live, grid.logcnt, scratch.expert_tree)
    total = 0.0
    largest = 0.0
    for e in range(grid.weight.shape[0]):
        load = replica_load(grid.weight[e], grid.logcnt[e], grid.margin[0])
        scratch.average[e] = np.float32(load)
        total += load * grid.logcnt[e]
        largest = max(largest, load)
    bound = max(total / speed, largest / fastest)
    sort_descending(scratch.average, scratch.order, scratch.keys, scratch.spare, scratch.histogram)
    doubled = place_longest_first(grid, scratch.order, scratch.filled, scratch.gpu_tree)
    if doubled > 0:
        separate_duplicates(grid)
    search(grid, bound, good_enough, MAX_STEPS)
