"""One node: a first plan by construction, then the search.

Letters: E logical experts of the node, D GPUs of the node, R slots of the largest GPU. Packing
groups to nodes uses the same code, with groups as experts and nodes as GPUs, see ``groups.py``.
"""

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
"""Stop within this distance of the lower bound; the sampling noise of loads is a hundred times
more."""

IDLE_GOOD_ENOUGH = 2e-3
"""The same for nodes that wait for a heavier one anyway."""

MAX_STEPS = np.int64(400)
"""Steps that the search of a node may take."""


class SearchScratch(NamedTuple):
    """A slot table, and working memory for its first plan; allocated once per call."""

    table: SlotTable
    average: Floats  # [E] float32, load of each of an expert's replicas
    order: Ints  # [E] int64, experts by descending average
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
    """Plan the experts of ``scratch.table`` as well as the search can.

    The caller has set ``table.weight``, ``table.size`` and ``table.slowness``. The search ends
    near a lower bound: the mean time of the GPUs, or the largest replica on the fastest GPU.
    """
    table = scratch.table
    num_slots = 0
    num_live = 0
    speed = 0.0
    fastest = 0.0
    for g in range(table.size.shape[0]):
        if table.size[g] > 0:
            num_slots += table.size[g]
            num_live += 1
            speed += 1.0 / table.slowness[g]
            fastest = max(fastest, 1.0 / table.slowness[g])
    allocate_capped(table.weight, num_slots, num_live, table.logcnt, scratch.expert_tree)
    total = 0.0
    largest = 0.0
    for e in range(table.weight.shape[0]):
        load = replica_load(table, e, table.logcnt[e])
        scratch.average[e] = np.float32(load)
        total += load * table.logcnt[e]
        largest = max(largest, load)
    bound = max(total / speed, largest / fastest)
    sort_descending(scratch.average, scratch.order, scratch.keys, scratch.spare, scratch.histogram)
    duplicates = place_longest_first(table, scratch.order, scratch.filled, scratch.gpu_tree)
    if duplicates > 0:
        separate_duplicates(table)
    search(table, bound, good_enough, MAX_STEPS)
