"""Seats for experts that have none, content for slots that are empty, and who keeps which slot.

Letters: E logical experts, P slots, D GPUs.

A *budget* is [D + 1] int64: the replicas that each GPU, and all together, may still fetch.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int, Ints
from eplb_np.local_search.reassign import reassign_slot
from eplb_np.local_search.separate import best_separating_swap
from eplb_np.local_search.slot_table import SlotTable, longest_time
from eplb_np.local_search.swap import swap
from eplb_np.maps.maps import EMPTY
from eplb_np.mending.budget import charge, may_fetch

LAST_RESORT = 1e9
"""Makes a seat on a GPU without budget worse than any on one that has some."""


@kernel
def place_lost_experts(grid: SlotTable, budget: Ints) -> None:
    """Place every expert that is nowhere, the heaviest first.

    Each goes where that hurts least: into an empty slot, or into that of the redundant replica
    whose expert's others stay lightest. There must be a slot for every expert; the budget is
    charged, and exceeded where that is the only way to keep every expert placed. O(E) to find an
    expert and O(P) to seat it.
    """
    while True:
        lost = -1
        for e in range(grid.weight.shape[0]):
            if grid.logcnt[e] == 0 and (lost < 0 or grid.weight[e] > grid.weight[lost]):
                lost = e
        if lost < 0:
            return
        row, g = _best_slot(grid, budget)
        reassign_slot(grid, row, g, lost)
        charge(budget, g)


@kernel
def _best_slot(grid: SlotTable, budget: Ints) -> tuple[Int, Int]:
    """Row and GPU of the slot whose content is missed least."""
    best = np.inf
    found = (-1, -1)
    for g in range(grid.size.shape[0]):
        for row in range(grid.size[g]):
            a = grid.expert[row, g]
            if a == EMPTY:  # before any replica, and on the GPU that is done first
                cost = grid.gpu_load[g] * grid.slowness[g] / LAST_RESORT - 1.0
            elif grid.logcnt[a] < 2:
                continue
            else:
                cost = grid.weight[a] / (grid.logcnt[a] - 1)
            if not may_fetch(budget, g):
                cost += LAST_RESORT
            if cost < best:
                best = cost
                found = (row, g)
    return found


@kernel
def fill_empty_slots(grid: SlotTable, budget: Ints) -> None:
    """Give each empty slot an expert that its GPU does not hold, as far as the budget goes.

    The one with the heaviest replicas that does not make this GPU the slowest; where all would,
    the one that adds least.
    """
    for g in range(grid.size.shape[0]):
        for row in range(grid.size[g]):
            if grid.expert[row, g] == EMPTY and may_fetch(budget, g):
                reassign_slot(grid, row, g, _most_relieved(grid, g))
                charge(budget, g)


@kernel
def _most_relieved(grid: SlotTable, g: Int) -> Int:
    """Expert for one more slot of GPU g, see `fill_empty_slots`."""
    room = longest_time(grid) / grid.slowness[g] - grid.gpu_load[g]
    best = -1.0
    found: Int = -1
    lightest = np.inf
    last_resort: Int = 0
    for e in range(grid.weight.shape[0]):
        if grid.logcnt[e] == 0:
            continue
        added = grid.weight[e] / (grid.logcnt[e] + 1)
        new_here = grid.held[g, e] == 0
        if new_here and added <= room and grid.weight[e] / grid.logcnt[e] > best:
            best = grid.weight[e] / grid.logcnt[e]
            found = e
        if not new_here:  # of use only as the last resort
            added += LAST_RESORT
        if added < lightest:
            lightest = added
            last_resort = e
    return found if found >= 0 else last_resort


@kernel
def separate_affordable_duplicates(grid: SlotTable, budget: Ints) -> None:
    """Part the replicas of one expert that share a GPU, where no time gets longest by it.

    Two replicas of one expert on a GPU do the work of one. The slot of the second goes to the
    expert with the heaviest replicas of those that the GPU does not hold, or the replica changes
    places with one of another GPU; as far as the budget goes.
    """
    last = budget.shape[0] - 1
    for g in range(grid.size.shape[0]):
        for row in range(grid.size[g]):
            a = grid.expert[row, g]
            if a == EMPTY or grid.held[g, a] < 2 or not may_fetch(budget, g):
                continue
            longest = longest_time(grid)
            b = _neediest(grid, g)
            if b >= 0:
                reassign_slot(grid, row, g, b)
                if longest_time(grid) <= longest:
                    charge(budget, g)
                    continue
                reassign_slot(grid, row, g, a)
            time, k, other = best_separating_swap(grid, row, g)
            if k >= 0 and time <= longest and may_fetch(budget, k) and budget[last] > 1:
                swap(grid, row, g, other, k)
                charge(budget, g)
                charge(budget, k)


@kernel
def _neediest(grid: SlotTable, g: Int) -> Int:
    """Expert with the heaviest replicas among those that GPU g does not hold; -1 if none."""
    best = -1.0
    found: Int = -1
    for e in range(grid.weight.shape[0]):
        if grid.held[g, e] == 0 and grid.logcnt[e] > 0:
            load = grid.weight[e] / grid.logcnt[e]
            if load > best:
                best = load
                found = e
    return found


@kernel
def keep_places(old: Ints, new: Ints, first: Int, end: Int) -> None:
    """Put what stays on a GPU back into the slot that it has.

    ``old`` and ``new`` [P] what the slots held and are to hold, of which those from ``first`` to
    ``end`` are one GPU's; ``new`` is reordered in place.
    """
    for slot in range(first, end):
        if old[slot] == EMPTY or old[slot] == new[slot]:
            continue
        for other in range(first, end):
            if new[other] == old[slot] and old[other] != new[other]:
                new[other] = new[slot]
                new[slot] = old[slot]
                break
