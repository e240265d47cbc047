"""Swap: two replicas on different GPUs change places. Two fetches, one for each GPU.

`best_swap` finds the best swap of a GPU, `next_best_swap` the best one that is left after the
caller has ruled a partner out, and `swap` makes it. First, every other GPU gets a score: the time
of the best swap with it if it did not matter which expert is where. The scores are optimistic, so
the partners are then tried in that order until one holds what its score promised.

Letters: D GPUs. GPU ``h`` gives and takes row ``row``, its partner ``g`` row ``other``.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int
from eplb_np.local_search.slot_table import SlotTable, add_up, first_smallest


@kernel
def swap(table: SlotTable, row: Int, h: Int, other: Int, g: Int) -> None:
    """Exchange the replicas of two slots on different GPUs."""
    a = table.expert[row, h]
    b = table.expert[other, g]
    table.held[h, a] -= 1
    table.held[g, b] -= 1
    table.held[h, b] += 1
    table.held[g, a] += 1
    table.expert[row, h] = b
    table.expert[other, g] = a
    load = table.load[row, h]
    table.load[row, h] = table.load[other, g]
    table.load[other, g] = load
    add_up(table, h)
    add_up(table, g)


@kernel
def best_swap(table: SlotTable, h: Int, not_with: Int) -> tuple[float, Int, Int, Int]:
    """Find the swap of GPU h, with any but ``not_with``, that ends both GPUs soonest.

    Returns the longer time of the two, the row, the other GPU and its row; the GPU is -1 if no
    swap is possible.
    """
    _score_partners(table, h)
    if not_with >= 0:
        table.score[not_with] = np.inf
    return next_best_swap(table, h)


@kernel
def next_best_swap(table: SlotTable, h: Int) -> tuple[float, Int, Int, Int]:
    """Find the best swap with the partners whose score is not inf; returns as `best_swap`."""
    while True:
        g = first_smallest(table.score)
        if table.score[g] == np.inf:
            return np.inf, -1, -1, -1
        time, row, other = _best_between(table, h, g)
        if time <= table.score[g]:
            return time, row, g, other
        table.score[g] = time


@kernel
def _score_partners(table: SlotTable, h: Int) -> None:
    """score[g] = longest time of h and g after the best swap between them, experts ignored.

    Both end at the same time when ``ideal[g]`` of load goes from h to g. A swap that sends
    ``excess`` more than that makes g later, and one that sends less makes h later. The inner loop
    runs over the GPUs of one row: SIMD, without a branch. It takes two rows of h at a time, which
    halves the loads and stores.
    """
    score = table.score
    slowness = table.slowness
    ideal = table.ideal
    slow = slowness[h]
    num_rows, num_gpus = table.load.shape
    for g in range(num_gpus):
        gap = table.gpu_load[h] * slow - table.gpu_load[g] * slowness[g]
        ideal[g] = gap / (slow + slowness[g])
        score[g] = np.inf
    last = table.size[h] - 1
    for row in range(0, last + 1, 2):
        load = table.load[row, h]
        load2 = table.load[min(row + 1, last), h]
        for other in range(num_rows):
            theirs = table.load[other]
            for g in range(num_gpus):
                goal = theirs[g] + ideal[g]
                late = lateness(load - goal, slow, slowness[g])
                late2 = lateness(load2 - goal, slow, slowness[g])
                late = late2 if late2 < late else late
                score[g] = late if late < score[g] else score[g]
    for g in range(num_gpus):
        score[g] += (table.gpu_load[h] - ideal[g]) * slow
    score[h] = np.inf


@kernel
def lateness(excess: float, slow: float, their_slowness: float) -> float:
    """How long after the ideal common time the later of two GPUs ends."""
    here = -excess * slow
    there = excess * their_slowness
    return here if here > there else there


@kernel
def _best_between(table: SlotTable, h: Int, g: Int) -> tuple[float, Int, Int]:
    """Best swap between two GPUs that gives neither an expert it holds: time, row, other row."""
    best = np.inf
    best_row = -1
    best_other = -1
    most_held = table.most_held[0]
    for row in range(table.size[h]):
        if table.held[g, table.expert[row, h]] >= most_held:
            continue
        for other in range(table.size[g]):
            time = pair_time(table, row, h, other, g)
            if time < best and table.held[h, table.expert[other, g]] < most_held:
                best = time
                best_row = row
                best_other = other
    return best, best_row, best_other


@kernel
def pair_time(table: SlotTable, row: Int, h: Int, other: Int, g: Int) -> float:
    """Longer time of GPUs h and g once they have swapped two replicas."""
    excess = table.load[row, h] - table.load[other, g]
    time_h = (table.gpu_load[h] - excess) * table.slowness[h]
    time_g = (table.gpu_load[g] + excess) * table.slowness[g]
    return float(max(time_h, time_g))
