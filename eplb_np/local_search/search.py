"""The search: moves off the slowest GPU until none helps.

`eplb_np.local_search` lists the moves. Swaps come first, as they are the fastest to find; double
swaps and reassignments follow where no swap helps. If they do not help either, a few swaps that
make things worse may lead out of the local optimum.

Letters: D GPUs, R slots of the largest GPU.
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
    gpu_time,
    longest_time,
    slowest_gpu,
    update_table,
)
from eplb_np.local_search.swap import best_swap, swap

LEAST_TIME_GAIN = 1e-7
"""A step must shorten the longest time by this fraction. Anything less is rounding, and could make
the search go round in circles."""

DOUBLE_SWAP_GAP = 3e-4
"""Double swaps and reassignments are tried only if swaps end farther than this from the bound."""

DOUBLE_SWAP_WORK = 12_000
"""A double swap compares (R (R - 1) / 2)**2 D sums. Up to this many (4 slots on 300 GPUs, 5 on 100,
9 on 8) that takes a few microseconds. With more slots per GPU, swaps have enough to choose from."""

MOST_WORSE_STEPS = 6
"""Steps that may make things worse before the best plan is restored."""


@kernel
def search(table: SlotTable, bound: float, good_enough: float, max_steps: Int) -> Int:
    """Move load off the slowest GPU until nothing helps, the bound is near or the steps run out.

    Where no swap helps, a double swap or a reassignment is made. Where that does not help either,
    the least bad swap is made all the same (never straight back). If ``MOST_WORSE_STEPS`` such
    steps find nothing better, the best plan is restored. Returns the number of steps.
    """
    best = np.inf
    worse_steps = 0
    stuck = False
    came_from: Int = -1
    step = 0
    num_rows, num_gpus = table.load.shape
    num_pairs = num_rows * (num_rows - 1) // 2
    use_double_swaps = num_pairs * num_pairs * num_gpus <= DOUBLE_SWAP_WORK
    while step < max_steps:
        h = slowest_gpu(table)
        longest = gpu_time(table, h)
        if longest < best * (1.0 - LEAST_TIME_GAIN):
            best = longest
            worse_steps = 0
            stuck = False
        if best <= bound * (1.0 + good_enough):
            break
        limit = longest * (1.0 - LEAST_TIME_GAIN)
        time, row, g, other = best_swap(table, h, came_from if stuck else -1)
        step += 1
        if g < 0 or not time < limit:  # NaN decides nothing
            far = longest > bound * (1.0 + max(good_enough, DOUBLE_SWAP_GAP))
            if far and use_double_swaps and double_swap(table, h, limit):
                continue
            if far:
                new_time, (slot_row, slot_gpu, e) = best_reassignment(table, h, table.unlimited)
                if slot_gpu >= 0 and new_time < limit:
                    reassign_slot(table, slot_row, slot_gpu, e)
                    continue
            if not stuck:
                copy_slots(table.expert, table.saved)
                stuck = True
        if stuck:
            worse_steps += 1
            if g < 0 or worse_steps > MOST_WORSE_STEPS:
                break
        swap(table, row, h, other, g)
        came_from = h
    if stuck and longest_time(table) > best:
        copy_slots(table.saved, table.expert)
        update_table(table)
    return step
