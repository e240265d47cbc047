"""Double swap: two replicas of a GPU change places with two of another. Four fetches.

It finds improvements where single swaps end, and is worth its time only with few slots per GPU, see
`eplb_np.local_search.search.DOUBLE_SWAP_WORK`. Mending does not use it. `double_swap` finds the
best one and makes it, in the same way as ``swap.py``: optimistic scores, then a check.

Letters: GPU ``h`` gives and takes rows ``row`` and ``row2``, its partner ``g`` rows ``other`` and
``other2``.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int
from eplb_np.local_search.slot_table import SlotTable, first_smallest
from eplb_np.local_search.swap import lateness, swap


@kernel
def double_swap(table: SlotTable, h: Int, limit: float) -> bool:
    """Make the double swap of GPU h that ends both GPUs soonest, if that is before ``limit``.

    Returns whether one was made. `best_swap` must have been called for h: its ideals are used.
    """
    _score_double_partners(table, h)
    while True:
        g = first_smallest(table.score)
        if not table.score[g] < limit:  # NaN ends the search, too
            return False
        time, (row, row2, other, other2) = _best_double_between(table, h, g)
        if time <= table.score[g]:
            swap(table, row, h, other, g)
            swap(table, row2, h, other2, g)
            return True
        table.score[g] = time


@kernel
def _score_double_partners(table: SlotTable, h: Int) -> None:
    """Score partners as ``swap.py`` does, with two replicas of each side."""
    score = table.score
    slowness = table.slowness
    ideal = table.ideal  # set by `best_swap`
    slow = slowness[h]
    num_rows, num_gpus = table.load.shape
    score[:] = np.inf
    for row in range(table.size[h]):
        for row2 in range(row + 1, table.size[h]):
            load = table.load[row, h] + table.load[row2, h]
            for other in range(num_rows):
                first = table.load[other]
                for other2 in range(other + 1, num_rows):
                    second = table.load[other2]
                    for g in range(num_gpus):
                        late = lateness(load - (first[g] + second[g] + ideal[g]), slow, slowness[g])
                        score[g] = late if late < score[g] else score[g]
    for g in range(num_gpus):
        score[g] += (table.gpu_load[h] - ideal[g]) * slow
    score[h] = np.inf


@kernel
def _best_double_between(
    table: SlotTable, h: Int, g: Int
) -> tuple[float, tuple[Int, Int, Int, Int]]:
    """Best double swap between two GPUs: the longer time of the two, and the four rows."""
    best = np.inf
    rows = (-1, -1, -1, -1)
    most_held = table.most_held[0]
    for row in range(table.size[h]):
        if table.held[g, table.expert[row, h]] >= most_held:
            continue
        for row2 in range(row + 1, table.size[h]):
            if table.held[g, table.expert[row2, h]] >= most_held:
                continue
            load = table.load[row, h] + table.load[row2, h]
            for other in range(table.size[g]):
                if table.held[h, table.expert[other, g]] >= most_held:
                    continue
                for other2 in range(other + 1, table.size[g]):
                    excess = load - table.load[other, g] - table.load[other2, g]
                    time = max(
                        (table.gpu_load[h] - excess) * table.slowness[h],
                        (table.gpu_load[g] + excess) * table.slowness[g],
                    )
                    if time < best and table.held[h, table.expert[other2, g]] < most_held:
                        best = time
                        rows = (row, row2, other, other2)
    return best, rows
