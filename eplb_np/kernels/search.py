"""Local search: swaps out of the slowest GPU until none helps.

The scores of all partners of the slowest GPU are found first, with the experts ignored; then the
partners are looked at in that order, until one holds what its score promised.
"""

from __future__ import annotations

import numpy as np

from eplb_np._jit import kernel
from eplb_np._types import Int
from eplb_np.kernels.gifts import best_gift, give_slot
from eplb_np.kernels.grid import (
    Grid,
    copy_slots,
    fill_grid,
    first_smallest,
    longest_time,
    pair_time,
    slowest_gpu,
    swap,
)

MIN_GAIN = 1e-7
"""A step must lower the longest time by this fraction; below it is rounding, and might go round
in circles."""

DOUBLE_SWAP_GAP = 3e-4
"""Swap pairs for pairs only where single swaps end farther than this from the bound."""

DOUBLE_SWAP_WORK = 12_000
"""Pairs for pairs compare (R (R - 1) / 2)**2 D sums. Up to here (4 slots on 300 GPUs, 5 on 100,
9 on 8) that is a few microseconds; with more slots per GPU single swaps have choice enough."""

PATIENCE = 6
"""Steps that may make things worse before the best plan is taken back."""


@kernel
def search(grid: Grid, bound: float, good_enough: float, max_steps: Int) -> Int:
    """Swap out of the slowest GPU until nothing helps, the bound is near or the budget is spent.

    Where no single swap helps, pairs are swapped for pairs, or a redundant slot is given to
    another expert. Where that does not help either, the least bad swap is made all the same
    (never straight back), and if ``PATIENCE`` such steps find nothing better, the best plan
    returns. Returns the steps made.
    """
    best = np.inf
    worse_steps = 0
    stuck = False
    came_from: Int = -1
    step = 0
    num_rows, num_gpus = grid.load.shape
    use_pairs = (num_rows * (num_rows - 1) // 2) ** 2 * num_gpus <= DOUBLE_SWAP_WORK
    while step < max_steps:
        h = slowest_gpu(grid)
        longest = grid.gpu_load[h] * grid.slowness[h]
        if longest < best * (1.0 - MIN_GAIN):
            best = longest
            worse_steps = 0
            stuck = False
        if best <= bound * (1.0 + good_enough):
            break
        limit = longest * (1.0 - MIN_GAIN)
        time, row, g, other = best_swap(grid, h, came_from if stuck else -1)
        step += 1
        if time >= limit:
            far = longest > bound * (1.0 + max(good_enough, DOUBLE_SWAP_GAP))
            if far and use_pairs and double_swap(grid, h, limit):
                continue
            if far:
                gift_time, (gift_row, gift_gpu, gift) = best_gift(grid, h, grid.unlimited)
                if gift_gpu >= 0 and gift_time < limit:
                    give_slot(grid, gift_row, gift_gpu, gift)
                    continue
            if not stuck:
                copy_slots(grid.expert, grid.saved)
                stuck = True
        if stuck:
            worse_steps += 1
            if worse_steps > PATIENCE or g < 0:
                break
        swap(grid, row, h, other, g)
        came_from = h
    if stuck and longest_time(grid) > best:
        copy_slots(grid.saved, grid.expert)
        fill_grid(grid)
    return step


@kernel
def best_swap(grid: Grid, h: Int, not_with: Int) -> tuple[float, Int, Int, Int]:
    """Swap of GPU h with any but ``not_with`` that leaves the smallest longest time of the two.

    Returns that time, the row, the other GPU and its row; the GPU is -1 where none is possible.
    The scores are optimistic, so they are taken in order and checked until one holds.
    """
    _score_partners(grid, h)
    if not_with >= 0:
        grid.score[not_with] = np.inf
    return next_best_swap(grid, h)


@kernel
def next_best_swap(grid: Grid, h: Int) -> tuple[float, Int, Int, Int]:
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
def _score_partners(grid: Grid, h: Int) -> None:
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
                late = _lateness(load - goal, slow, slowness[g])
                late2 = _lateness(load2 - goal, slow, slowness[g])
                late = late2 if late2 < late else late
                score[g] = late if late < score[g] else score[g]
    for g in range(num_gpus):
        score[g] += (grid.gpu_load[h] - ideal[g]) * slow
    score[h] = np.inf


@kernel
def _lateness(excess: float, slow: float, their_slowness: float) -> float:
    """How long after the ideal common time the later of two GPUs is done."""
    here = -excess * slow
    there = excess * their_slowness
    return here if here > there else there


@kernel
def _best_between(grid: Grid, h: Int, g: Int) -> tuple[float, Int, Int]:
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


@kernel
def double_swap(grid: Grid, h: Int, limit: float) -> bool:
    """Make the best swap of two replicas for two that ends below ``limit``; False if none."""
    _score_double_partners(grid, h)
    while True:
        g = first_smallest(grid.score)
        if grid.score[g] >= limit:
            return False
        time, (row, row2, other, other2) = _best_double_between(grid, h, g)
        if time <= grid.score[g]:
            swap(grid, row, h, other, g)
            swap(grid, row2, h, other2, g)
            return True
        grid.score[g] = time


@kernel
def _score_double_partners(grid: Grid, h: Int) -> None:
    """As `_score_partners`, with two replicas of each side."""
    score = grid.score
    slowness = grid.slowness
    ideal = grid.ideal  # as the single swaps left it
    slow = slowness[h]
    num_rows, num_gpus = grid.load.shape
    score[:] = np.inf
    for row in range(grid.size[h]):
        for row2 in range(row + 1, grid.size[h]):
            load = grid.load[row, h] + grid.load[row2, h]
            for other in range(num_rows):
                first = grid.load[other]
                for other2 in range(other + 1, num_rows):
                    second = grid.load[other2]
                    for g in range(num_gpus):
                        late = _lateness(
                            load - (first[g] + second[g] + ideal[g]), slow, slowness[g]
                        )
                        score[g] = late if late < score[g] else score[g]
    for g in range(num_gpus):
        score[g] += (grid.gpu_load[h] - ideal[g]) * slow
    score[h] = np.inf


@kernel
def _best_double_between(grid: Grid, h: Int, g: Int) -> tuple[float, tuple[Int, Int, Int, Int]]:
    """Best swap of two replicas for two: time and the four rows."""
    best = np.inf
    rows = (-1, -1, -1, -1)
    for row in range(grid.size[h]):
        if grid.held[g, grid.expert[row, h]] > 0:
            continue
        for row2 in range(row + 1, grid.size[h]):
            if grid.held[g, grid.expert[row2, h]] > 0:
                continue
            load = grid.load[row, h] + grid.load[row2, h]
            for other in range(grid.size[g]):
                if grid.held[h, grid.expert[other, g]] > 0:
                    continue
                for other2 in range(other + 1, grid.size[g]):
                    excess = load - grid.load[other, g] - grid.load[other2, g]
                    time = max(
                        (grid.gpu_load[h] - excess) * grid.slowness[h],
                        (grid.gpu_load[g] + excess) * grid.slowness[g],
                    )
                    if time < best and grid.held[h, grid.expert[other2, g]] == 0:
                        best = time
                        rows = (row, row2, other, other2)
    return best, rows
