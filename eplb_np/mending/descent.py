"""Mending a plan in use: few moves, each of which pays.

A layer takes as long as its slowest GPU, and the loads that come are uncertain. So the search
lowers a *soft maximum* of the GPU times, ``tau * log(sum(exp(time / tau)))``: with noise of
standard deviation s on each of D GPUs, the expected longest time is about that at
tau = s / sqrt(2 log D). GPUs within the noise of the slowest all count, and shaving one of them
below its equals earns little; that keeps a plan still when the noise is large. A fetch (one
replica that one GPU gets) is made while it lowers the soft maximum by more than its price.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int, Ints
from eplb_np.local_search.reassign import best_reassignment, reassign_slot
from eplb_np.local_search.search import LEAST_TIME_GAIN
from eplb_np.local_search.slot_table import SlotTable, copy_slots, slowest_gpu, update_table
from eplb_np.local_search.swap import best_swap, next_best_swap, swap
from eplb_np.mending.soft_maximum import ideal_soft_maximum, soft_maximum

NO_GAIN = -1.0


@kernel
def descend(
    grid: SlotTable,
    tau: float,
    elsewhere: float,
    price: float,
    tolerated: float,
    budget: Ints,
    left: Ints,
    best_left: Ints,
) -> Int:
    """Move replicas off the slowest GPU as far as that pays.

    ``elsewhere`` is the soft maximum that the other nodes have at best (-inf without nodes): what
    is gained below it is of no use. ``price`` is what one fetch must lower the soft maximum by; a
    longest time of ``tolerated`` or less is let be. ``budget`` [D + 1] fetches are left to each
    GPU, and to all together; what is used is taken off. A swap costs two fetches, giving a
    redundant slot to another expert one. Scratch: ``left``, ``best_left`` [D + 1] int64.

    Where several GPUs stand out alike, the first move gains little and the last one most. So the
    moves are made as long as the rest of the way down could pay, and then taken back to where the
    gain less the price was largest. Every move lowers the time of the slowest GPU and lifts no
    other to it, so the longest time never grows. Returns the fetches.
    """
    num_gpus = grid.size.shape[0]
    ideal = ideal_soft_maximum(grid, tau, elsewhere)
    start = soft_maximum(grid, tau, elsewhere)
    best_net = 0.0
    best_fetches: Int = 0
    fetches: Int = 0
    copy_slots(grid.expert, grid.saved)
    for i in range(num_gpus + 1):
        left[i] = budget[i]
        best_left[i] = budget[i]
    while left[num_gpus] > 0 and start - ideal - price * (fetches + 1) > best_net:
        h = slowest_gpu(grid)
        if grid.gpu_load[h] * grid.slowness[h] <= tolerated:
            break
        made = _make_best_move(grid, h, tau, elsewhere, left)
        if made == 0:
            break
        fetches += made
        net = start - soft_maximum(grid, tau, elsewhere) - price * fetches
        if net > best_net:
            best_net = net
            best_fetches = fetches
            copy_slots(grid.expert, grid.saved)
            for i in range(num_gpus + 1):
                best_left[i] = left[i]
    if fetches > best_fetches:
        copy_slots(grid.saved, grid.expert)
        update_table(grid)
    for i in range(num_gpus + 1):
        budget[i] = best_left[i]
    return best_fetches


@kernel
def _make_best_move(grid: SlotTable, h: Int, tau: float, elsewhere: float, left: Ints) -> Int:
    """Make the move off GPU h that gains most for each fetch; returns its fetches, or 0."""
    num_gpus = grid.size.shape[0]
    longest = grid.gpu_load[h] * grid.slowness[h]
    limit = longest * (1.0 - LEAST_TIME_GAIN)
    now = soft_maximum(grid, tau, elsewhere)
    swap_gain = NO_GAIN
    row: Int = -1
    g: Int = -1
    other: Int = -1
    if left[h] > 0 and left[num_gpus] > 1:
        time, row, g, other = _affordable_swap(grid, h, left)
        if g >= 0 and time < limit:
            swap(grid, row, h, other, g)
            swap_gain = 0.5 * (now - soft_maximum(grid, tau, elsewhere))
            swap(grid, row, h, other, g)
    time, (gift_row, gift_gpu, gift) = best_reassignment(grid, h, left)
    if gift_gpu >= 0 and time < limit:
        replaced = grid.expert[gift_row, gift_gpu]
        reassign_slot(grid, gift_row, gift_gpu, gift)
        gift_gain = now - soft_maximum(grid, tau, elsewhere)
        if gift_gain > 0.0 and gift_gain >= swap_gain:
            left[gift_gpu] -= 1
            left[num_gpus] -= 1
            return 1
        reassign_slot(grid, gift_row, gift_gpu, replaced)
    if swap_gain <= 0.0:
        return 0
    swap(grid, row, h, other, g)
    left[h] -= 1
    left[g] -= 1
    left[num_gpus] -= 2
    return 2


@kernel
def _affordable_swap(grid: SlotTable, h: Int, left: Ints) -> tuple[float, Int, Int, Int]:
    """`best_swap` with a partner that may still fetch."""
    time, row, g, other = best_swap(grid, h, -1)
    while g >= 0 and left[g] <= 0:
        grid.score[g] = np.inf
        time, row, g, other = next_best_swap(grid, h)
    return time, row, g, other
