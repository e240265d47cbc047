"""Repair: lost experts are placed, empty slots filled and duplicates separated.

Each takes one fetch, but a separating swap takes two. Also here: what stays on a GPU keeps its
slot. Letters: E logical experts, P slots, D GPUs.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int, Ints
from eplb_np.local_search.reassign import reassign_slot
from eplb_np.local_search.separate import best_separating_swap
from eplb_np.local_search.slot_table import SlotTable, gpu_time, longest_time, replica_load
from eplb_np.local_search.swap import swap
from eplb_np.maps.maps import EMPTY
from eplb_np.mending.budget import Budget, charge, may_fetch, total_left

LAST_RESORT = 1e9
"""Added to the cost of a choice that is made only if there is no other."""


@kernel
def place_lost_experts(table: SlotTable, budget: Budget) -> None:
    """Place every expert that has no replica, the heaviest first.

    Each goes where it hurts least: into an empty slot, or in place of the redundant replica whose
    expert's other replicas stay lightest. There must be a slot for every expert. The budget is
    charged, and exceeded if that is the only way to place every expert. O(E) to find an expert
    and O(P) to place it.
    """
    while True:
        lost = -1
        for e in range(table.weight.shape[0]):
            if table.logcnt[e] == 0 and (lost < 0 or table.weight[e] > table.weight[lost]):
                lost = e
        if lost < 0:
            return
        row, g = _most_dispensable_slot(table, budget)
        if g < 0:
            return
        reassign_slot(table, row, g, lost)
        charge(budget, g, 1)


@kernel
def _most_dispensable_slot(table: SlotTable, budget: Budget) -> tuple[Int, Int]:
    """Row and GPU of the slot that will be missed least; -1 if none is empty or redundant."""
    best = np.inf
    found = (-1, -1)
    for g in range(table.size.shape[0]):
        for row in range(table.size[g]):
            a = table.expert[row, g]
            if a == EMPTY:  # before any replica, and on the GPU that ends soonest
                cost = gpu_time(table, g) / LAST_RESORT - 1.0
            elif table.logcnt[a] < 2:
                continue
            else:
                cost = replica_load(table, a, table.logcnt[a] - 1)
            if not may_fetch(budget, g):
                cost += LAST_RESORT
            if cost < best or found[1] < 0:
                best = cost
                found = (row, g)
    return found


@kernel
def fill_empty_slots(table: SlotTable, budget: Budget) -> None:
    """Give each empty slot an expert that its GPU does not hold, while the budget lasts.

    The expert with the heaviest replicas of those that do not make this GPU the slowest; if all
    would, the one that adds least.
    """
    for g in range(table.size.shape[0]):
        for row in range(table.size[g]):
            if table.expert[row, g] == EMPTY and may_fetch(budget, g):
                room = longest_time(table) / table.slowness[g] - table.gpu_load[g]
                e = _neediest(table, g, room)
                if e < 0:
                    e = _lightest_to_add(table, g)
                reassign_slot(table, row, g, e)
                charge(budget, g, 1)


@kernel
def _neediest(table: SlotTable, g: Int, room: float) -> Int:
    """Expert with the heaviest replicas that GPU g does not hold and has room for; -1 if none.

    ``room`` is the load that g may still get.
    """
    best = -1.0
    found: Int = -1
    for e in range(table.weight.shape[0]):
        if table.held[g, e] > 0 or table.logcnt[e] == 0:
            continue
        load = replica_load(table, e, table.logcnt[e])
        if load > best and replica_load(table, e, table.logcnt[e] + 1) <= room:
            best = load
            found = e
    return found


@kernel
def _lightest_to_add(table: SlotTable, g: Int) -> Int:
    """Expert of which one more replica adds least to GPU g; one that it holds only if need be."""
    lightest = np.inf
    found: Int = 0
    for e in range(table.weight.shape[0]):
        if table.logcnt[e] == 0:
            continue
        added = replica_load(table, e, table.logcnt[e] + 1)
        if table.held[g, e] > 0:
            added += LAST_RESORT
        if added < lightest:
            lightest = added
            found = e
    return found


@kernel
def separate_affordable_duplicates(table: SlotTable, budget: Budget) -> None:
    """Separate replicas of one expert that share a GPU, if that makes the longest time no longer.

    The slot of the second replica goes to the expert with the heaviest replicas that the GPU does
    not hold, or the replica is swapped with one of another GPU, while the budget lasts.
    """
    for g in range(table.size.shape[0]):
        for row in range(table.size[g]):
            a = table.expert[row, g]
            if a == EMPTY or table.held[g, a] < 2 or not may_fetch(budget, g):
                continue
            longest = longest_time(table)
            b = _neediest(table, g, np.inf)
            if b >= 0:
                reassign_slot(table, row, g, b)
                if longest_time(table) <= longest:
                    charge(budget, g, 1)
                    continue
                reassign_slot(table, row, g, a)
            time, k, other = best_separating_swap(table, row, g)
            if k >= 0 and time <= longest and may_fetch(budget, k) and total_left(budget) > 1:
                swap(table, row, g, other, k)
                charge(budget, g, 1)
                charge(budget, k, 1)


@kernel
def keep_places(old: Ints, new: Ints, first: Int, end: Int) -> None:
    """Put each replica that stays on its GPU back into the slot that it is in.

    ``old`` and ``new`` [P] are what the slots held and what they are to hold. Those from
    ``first`` up to ``end`` belong to one GPU, and ``new`` is reordered there in place.
    """
    for slot in range(first, end):
        if old[slot] == EMPTY or old[slot] == new[slot]:
            continue
        for other in range(first, end):
            if new[other] == old[slot] and old[other] != new[other]:
                new[other] = new[slot]
                new[slot] = old[slot]
                break
