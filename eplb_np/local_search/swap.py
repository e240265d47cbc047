"""Swap."""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int
from eplb_np.local_search.slot_table import SlotTable, add_up, first_smallest


@kernel
def swap(grid: SlotTable, row: Int, h: Int, other: Int, g: Int) -> None:
    """Exchange the replicas of two slots on different GPUs."""
    a = grid.expert[row, h]
    b = grid.expert[other, g]
    grid.held[h, a] -= 1
    grid.held[g, b] -= 1
    grid.held[h, b] += 1
    grid.held[g, a] += 1
    grid.expert[row, h] = b
    grid.expert[other, g] = a
    load = grid.load[row, h]
    grid.load[row, h] = grid.load[other, g]
    grid.load[other, g] = load
    add_up(grid, h)
    add_up(grid, g)


@kernel
def pair_time(grid: SlotTable, row: Int, h: Int, other: Int, g: Int) -> float:
    """Longest time of GPUs h and g once they have swapped two replicas."""
    excess = grid.load[row, h] - grid.load[other, g]
    time_h = (grid.gpu_load[h] - excess) * grid.slowness[h]
    time_g = (grid.gpu_load[g] + excess) * grid.slowness[g]
    return float(max(time_h, time_g))


@kernel
def best_swap(grid: SlotTable, h: Int, not_with: Int) -> tuple[float, Int, Int, Int]:
    """Swap of GPU h with any but ``not_with`` that leaves the smallest longest time of the two.

    Returns that time, the row, the other GPU and its row; the GPU is -1 where none is possible.
    The scores are optimistic, so they are taken in order and checked until one holds.
    """
    _score_partners(grid, h)
    if not_with >= 0:
        grid.score[not_with] = np.inf
    return next_best_swap(grid, h)


@kernel
def next_best_swap(grid: SlotTable, h: Int) -> tuple[float, Int, Int, Int]:
    """Return the best swap among the partners whose score is not inf."""
    while True:
        g = first_smallest(grid.score)
        if grid.score[g] == np.inf:
            return np.inf, -1, -1, -1
        time, row, other = _best_between(grid, h, g)
        if time <= grid.score[g]:
            return time, row, g, other
        grid.score[g] = time


@kernel
def _score_partners(grid: SlotTable, h: Int) -> None:
    """score[g] = longest time of h and g after the best swap between them, experts ignored.

    Both are done at the same time when ``ideal[g]`` of load goes from h to g; a swap that sends
    ``excess`` more than that leaves g, and one that sends less leaves h, that much later. The
    inner loop runs over the GPUs of one row: SIMD, without a branch. Rows of h go two at a time,
    which halves the loads and stores.
    """
    score = grid.score
    slowness = grid.slowness
    ideal = grid.ideal
    slow = slowness[h]
    num_rows, num_gpus = grid.load.shape
    for g in range(num_gpus):
        gap = grid.gpu_load[h] * slow - grid.gpu_load[g] * slowness[g]
        ideal[g] = gap / (slow + slowness[g])
        score[g] = np.inf
    last = grid.size[h] - 1
    for row in range(0, last + 1, 2):
        load = grid.load[row, h]
        load2 = grid.load[min(row + 1, last), h]
        for other in range(num_rows):
            theirs = grid.load[other]
            for g in range(num_gpus):
                goal = theirs[g] + ideal[g]
                late = lateness(load - goal, slow, slowness[g])
                late2 = lateness(load2 - goal, slow, slowness[g])
                late = late2 if late2 < late else late
                score[g] = late if late < score[g] else score[g]
    for g in range(num_gpus):
        score[g] += (grid.gpu_load[h] - ideal[g]) * slow
    score[h] = np.inf


@kernel
def lateness(excess: float, slow: float, their_slowness: float) -> float:
    """How long after the ideal common time the later of two GPUs is done."""
    here = -excess * slow
    there = excess * their_slowness
    return here if here > there else there


@kernel
def _best_between(grid: SlotTable, h: Int, g: Int) -> tuple[float, Int, Int]:
    """Best swap between two GPUs that gives neither an expert it holds: time, row, other row."""
    best = np.inf
    best_row = -1
    best_other = -1
    for row in range(grid.size[h]):
        if grid.held[g, grid.expert[row, h]] > 0:
            continue
        for other in range(grid.size[g]):
            time = pair_time(grid, row, h, other, g)
            if time < best and grid.held[h, grid.expert[other, g]] == 0:
                best = time
                best_row = row
                best_other = other
    return best, best_row, best_other
