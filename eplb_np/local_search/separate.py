"""Separate duplicates."""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int
from eplb_np.local_search.slot_table import SlotTable
from eplb_np.local_search.swap import pair_time, swap
from eplb_np.maps.maps import EMPTY


@kernel
def separate_duplicates(grid: SlotTable) -> None:
    """Swap until no GPU holds two replicas of one expert, where that can be.

    If GPU g holds expert a twice, some GPU k does not hold a at all (while a has no more
    replicas than there are GPUs). Of k's distinct experts fewer than all are on g, or k itself
    holds one twice; either way one swap lowers the number of doubled replicas, so this ends.
    With equal slots per GPU such a k is always found; with unequal slots a plan without
    doubled replicas may not exist, and the search for k may come back empty.
    """
    for g in range(grid.size.shape[0]):
        for row in range(grid.size[g]):
            if grid.held[g, grid.expert[row, g]] > 1:
                _, k, other = best_separating_swap(grid, row, g)
                if k >= 0:
                    swap(grid, row, g, other, k)


@kernel
def best_separating_swap(grid: SlotTable, row: Int, g: Int) -> tuple[float, Int, Int]:
    """Swap of a doubled replica that leaves the smallest longest time of the two GPUs.

    Returns that time, the other GPU and its row; the GPU is -1 where no swap parts the two.
    """
    a = grid.expert[row, g]
    best = np.inf
    best_k: Int = -1
    best_row: Int = -1
    for k in range(grid.size.shape[0]):
        if grid.held[k, a] > 0:
            continue
        for other in range(grid.size[k]):
            b = grid.expert[other, k]
            if b == EMPTY or (grid.held[g, b] > 0 and grid.held[k, b] < 2):
                continue
            time = pair_time(grid, row, g, other, k)
            if grid.held[g, b] > 0:  # moves the double of b here: only if nothing else helps
                time += 1e9
            if time < best:
                best = time
                best_k = k
                best_row = other
    return best, best_k, best_row
