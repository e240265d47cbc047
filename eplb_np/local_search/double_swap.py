"""Double swap."""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int
from eplb_np.local_search.slot_table import SlotTable, first_smallest
from eplb_np.local_search.swap import lateness, swap


@kernel
def double_swap(grid: SlotTable, h: Int, limit: float) -> bool:
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
def _score_double_partners(grid: SlotTable, h: Int) -> None:
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
                        late = lateness(load - (first[g] + second[g] + ideal[g]), slow, slowness[g])
                        score[g] = late if late < score[g] else score[g]
    for g in range(num_gpus):
        score[g] += (grid.gpu_load[h] - ideal[g]) * slow
    score[h] = np.inf


@kernel
def _best_double_between(
    grid: SlotTable, h: Int, g: Int
) -> tuple[float, tuple[Int, Int, Int, Int]]:
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
