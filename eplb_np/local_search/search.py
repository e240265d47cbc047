"""Local search: swaps out of the slowest GPU until none helps.

The scores of all partners of the slowest GPU are found first, with the experts ignored; then the
partners are looked at in that order, until one holds what its score promised.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int
from eplb_np.local_search.double_swap import double_swap
from eplb_np.local_search.reassign import best_reassignment, reassign_slot
from eplb_np.local_search.slot_table import (
    SlotTable,
    copy_slots,
    longest_time,
    slowest_gpu,
    update_table,
)
from eplb_np.local_search.swap import best_swap, swap

LEAST_TIME_GAIN = 1e-7
"""A step must lower the longest time by this fraction; below it is rounding, and might go round
in circles."""


DOUBLE_SWAP_GAP = 3e-4
"""Swap pairs for pairs only where single swaps end farther than this from the bound."""


DOUBLE_SWAP_WORK = 12_000
"""Pairs for pairs compare (R (R - 1) / 2)**2 D sums. Up to here (4 slots on 300 GPUs, 5 on 100,
9 on 8) that is a few microseconds; with more slots per GPU single swaps have choice enough."""


MOST_WORSE_STEPS = 6
"""Steps that may make things worse before the best plan is taken back."""


@kernel
def search(grid: SlotTable, bound: float, good_enough: float, max_steps: Int) -> Int:
    """Swap out of the slowest GPU until nothing helps, the bound is near or the budget is spent.

    Where no single swap helps, pairs are swapped for pairs, or a redundant slot is given to
    another expert. Where that does not help either, the least bad swap is made all the same
    (never straight back), and if ``MOST_WORSE_STEPS`` such steps find nothing better, the best plan
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
        if longest < best * (1.0 - LEAST_TIME_GAIN):
            best = longest
            worse_steps = 0
            stuck = False
        if best <= bound * (1.0 + good_enough):
            break
        limit = longest * (1.0 - LEAST_TIME_GAIN)
        time, row, g, other = best_swap(grid, h, came_from if stuck else -1)
        step += 1
        if time >= limit:
            far = longest > bound * (1.0 + max(good_enough, DOUBLE_SWAP_GAP))
            if far and use_pairs and double_swap(grid, h, limit):
                continue
            if far:
                gift_time, (gift_row, gift_gpu, gift) = best_reassignment(grid, h, grid.unlimited)
                if gift_gpu >= 0 and gift_time < limit:
                    reassign_slot(grid, gift_row, gift_gpu, gift)
                    continue
            if not stuck:
                copy_slots(grid.expert, grid.saved)
                stuck = True
        if stuck:
            worse_steps += 1
            if worse_steps > MOST_WORSE_STEPS or g < 0:
                break
        swap(grid, row, h, other, g)
        came_from = h
    if stuck and longest_time(grid) > best:
        copy_slots(grid.saved, grid.expert)
        update_table(grid)
    return step
