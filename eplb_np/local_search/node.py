"""One node: a first plan by construction, then the search.

Letters: E logical experts of the node, D GPUs of the node, R slots of the largest GPU. Packing
groups to nodes uses the same code, with groups as experts and nodes as GPUs, see ``groups.py``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.arrays import doubles, floats, int_table, ints
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Doubles, Floats, Int, Ints
from eplb_np.local_search.construction import allocate_capped, place_longest_first
from eplb_np.local_search.search import search
from eplb_np.local_search.separate import separate_duplicates
from eplb_np.local_search.slot_table import (
    SlotTable,
    copy_slots,
    longest_time,
    make_slot_table,
    replica_load,
    update_table,
)
from eplb_np.moves.fetches import UNLIMITED
from eplb_np.stages.priority_queue.cpu import num_leaves
from eplb_np.stages.replication.decisions import tail_length
from eplb_np.stages.sorting.cpu import HISTOGRAM_SIZE, sort_descending

GOOD_ENOUGH = 1e-4
"""Stop within this distance of the lower bound; the sampling noise of loads is a hundred times
more."""

IDLE_GOOD_ENOUGH = 2e-3
"""The same for nodes that wait for a heavier one anyway."""

DUPLICATES_GAP = 3e-3
"""Plans with duplicates are searched, too, where the slowest GPU takes this much longer than the
mean. Plans of large models with several slots per GPU do not come to that."""

DUPLICATES_GAIN = 2e-3
"""Such a plan must end this much sooner: duplicates are of no use to who splits batches exactly."""

NO_DUPLICATES = np.inf
"""A gap after which no plan with duplicates is searched."""

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
    best: Ints  # [R, D] int64, the best of several plans
    gap: Doubles  # [1] float64, where to search plans with duplicates: DUPLICATES_GAP or more


@allocator
def make_search_scratch(num_rows: Int, num_gpus: Int, num_experts: Int) -> SearchScratch:
    """Allocate a `SearchScratch`, for plans without duplicates."""
    scratch = SearchScratch(
        make_slot_table(num_rows, num_gpus, num_experts),
        floats(num_experts),
        ints(num_experts),
        ints(num_experts),
        ints(num_experts),
        ints(HISTOGRAM_SIZE),
        ints(num_gpus),
        ints(2 * num_leaves(num_experts)),
        ints(2 * num_leaves(num_gpus)),
        int_table(num_rows, num_gpus),
        doubles(1),
    )
    scratch.gap[0] = NO_DUPLICATES
    return scratch


@kernel
def search_node(scratch: SearchScratch, good_enough: float) -> float:
    """Plan the experts of ``scratch.table`` as well as the search can, and return the longest time.

    The caller has set ``table.weight``, ``table.size`` and ``table.slowness``. A plan without
    duplicates comes first, if there can be one. Where it is far from balanced, as with few slots
    of few experts, two more plans may hold duplicates: searched from Adams' allocation, and from
    that of the hybrid policy. The best of the three is left in the table.
    """
    table = scratch.table
    best = scratch.best
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
    num_extra = num_slots - table.weight.shape[0]
    longest = np.inf
    for tries in range(3):
        num_tail = tail_length(num_extra) if tries == 2 else 0
        most_replicas = num_live if tries == 0 else num_slots
        allocate_capped(
            table.weight, num_slots, most_replicas, num_tail, table.logcnt, scratch.expert_tree
        )
        mean = _search_allocation(scratch, speed, fastest, good_enough)
        time = longest_time(table)
        if tries == 0 or time < longest * (1.0 - DUPLICATES_GAIN):  # NaN decides nothing
            longest = time
            copy_slots(table.expert, best)
        if num_extra == 0 or longest <= mean * (1.0 + scratch.gap[0]):
            break
        table.most_held[0] = UNLIMITED
    table.most_held[0] = 1
    if tries > 0:
        copy_slots(best, table.expert)
        update_table(table)
    return longest


@kernel
def _search_allocation(
    scratch: SearchScratch, speed: float, fastest: float, good_enough: float
) -> float:
    """Place ``table.logcnt`` replicas, and search on until near a lower bound.

    That is the mean time of the GPUs, whose speeds add up to ``speed``, or the largest replica on
    the ``fastest`` GPU. Returns the mean time.
    """
    table = scratch.table
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
    return total / speed
