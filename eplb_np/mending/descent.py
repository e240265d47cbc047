"""The descent: moves off the slowest GPU, each the one that gains most per fetch.

The moves are those of `eplb_np.local_search`: a swap costs two fetches, a reassignment one. Gains
are measured by the soft maximum (``soft_maximum.py``). Letter: D GPUs.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int
from eplb_np.local_search.reassign import best_reassignment, reassign_slot
from eplb_np.local_search.search import LEAST_TIME_GAIN
from eplb_np.local_search.slot_table import (
    SlotTable,
    copy_slots,
    gpu_time,
    slowest_gpu,
    update_table,
)
from eplb_np.local_search.swap import best_swap, next_best_swap, swap
from eplb_np.mending.budget import Budget, charge, restore_budget, save_budget, total_left
from eplb_np.mending.soft_maximum import Objective, ideal_soft_maximum, soft_maximum

NO_GAIN = -1.0


@kernel
def descend(table: SlotTable, objective: Objective, budget: Budget) -> Int:
    """Move replicas off the slowest GPU while that pays; returns the fetches.

    If several GPUs are equally slow, the first move gains little and the last one most. So moves
    are made while all that could still be gained exceeds the price, and are then taken back to
    the point where the gain minus the price was largest. Every move shortens the time of the
    slowest GPU and makes no other GPU as slow, so the longest time never grows.
    """
    ideal = ideal_soft_maximum(table, objective)
    start = soft_maximum(table, objective)
    best_net = 0.0
    best_fetches: Int = 0
    fetches: Int = 0
    copy_slots(table.expert, table.saved)
    save_budget(budget)
    while total_left(budget) > 0 and start - ideal - objective.price * (fetches + 1) > best_net:
        h = slowest_gpu(table)
        if gpu_time(table, h) <= objective.tolerated:
            break
        made = _make_best_move(table, h, objective, budget)
        if made == 0:
            break
        fetches += made
        net = start - soft_maximum(table, objective) - objective.price * fetches
        if net > best_net:
            best_net = net
            best_fetches = fetches
            copy_slots(table.expert, table.saved)
            save_budget(budget)
    if fetches > best_fetches:
        copy_slots(table.saved, table.expert)
        update_table(table)
        restore_budget(budget)
    return best_fetches


@kernel
def _make_best_move(table: SlotTable, h: Int, objective: Objective, budget: Budget) -> Int:
    """Make the move off GPU h that gains most per fetch; returns its fetches, or 0."""
    limit = gpu_time(table, h) * (1.0 - LEAST_TIME_GAIN)
    now = soft_maximum(table, objective)
    swap_gain = NO_GAIN  # per fetch
    row: Int = -1
    g: Int = -1
    other: Int = -1
    if budget.left[h] > 0 and total_left(budget) > 1:
        time, row, g, other = _affordable_swap(table, h, budget)
        if g >= 0 and time < limit:
            swap(table, row, h, other, g)
            swap_gain = 0.5 * (now - soft_maximum(table, objective))
            swap(table, row, h, other, g)
    time, (slot_row, slot_gpu, e) = best_reassignment(table, h, budget.left)
    if slot_gpu >= 0 and time < limit:
        replaced = table.expert[slot_row, slot_gpu]
        reassign_slot(table, slot_row, slot_gpu, e)
        gain = now - soft_maximum(table, objective)
        if gain > 0.0 and gain >= swap_gain:
            charge(budget, slot_gpu, 1)
            return 1
        reassign_slot(table, slot_row, slot_gpu, replaced)
    if not swap_gain > 0.0:
        return 0
    swap(table, row, h, other, g)
    charge(budget, h, 1)
    charge(budget, g, 1)
    return 2


@kernel
def _affordable_swap(table: SlotTable, h: Int, budget: Budget) -> tuple[float, Int, Int, Int]:
    """`best_swap` with a partner that may still fetch."""
    time, row, g, other = best_swap(table, h, -1)
    while g >= 0 and budget.left[g] <= 0:
        table.score[g] = np.inf
        time, row, g, other = next_best_swap(table, h)
    return time, row, g, other
