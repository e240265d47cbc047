"""One layer, or one node of it, while it is being searched: a table of slots by GPU.

Letters: E logical experts, D GPUs, R slots of the GPU that has most.

Row ``r`` of column ``g`` is slot ``r`` of GPU ``g``. A GPU with fewer slots (or none: it is gone)
has a shorter column; its missing rows weigh ``inf``, so that no swap ever picks them. All GPUs of
a row lie side by side, which lets one loop over the GPUs compare a replica with a whole row at
once: the compiler turns it into vector instructions, five times faster than GPU by GPU.

Loads are float64, in units of the mean load of a GPU of speed 1. The *time* of a GPU is its load
times its slowness (1 / speed). Ties always go to the lower index.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.arrays import double_table, doubles, int_table, ints
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Doubles, Int, Ints, Shorts
from eplb_np.maps.maps import EMPTY
from eplb_np.moves.fetches import UNLIMITED


class SlotTable(NamedTuple):
    """The plan of one layer or node in the making, and what is kept up to date about it."""

    expert: Ints  # [R, D] int64, logical expert in each slot
    load: Doubles  # [R, D] float64, load of the replica in each slot, inf where there is no slot
    size: Ints  # [D] int64, slots of each GPU
    slowness: Doubles  # [D] float64, 1 / speed
    gpu_load: Doubles  # [D] float64
    held: Shorts  # [D, E] uint16, replicas of each expert on each GPU
    weight: Doubles  # [E] float64
    logcnt: Ints  # [E] int64
    margin: Doubles  # [1] float64, allowance for noise, see `replica_load`
    score: Doubles  # [D] float64, scratch
    ideal: Doubles  # [D] float64, scratch
    saved: Ints  # [R, D] int64, scratch
    slowest_holder: Ints  # [E] int64, scratch of `gifts`
    slowest_time: Doubles  # [E] float64, scratch of `gifts`
    second_time: Doubles  # [E] float64, scratch of `gifts`
    unlimited: Ints  # [D] int64, a budget of fetches that never ends


@allocator
def make_slot_table(num_rows: Int, num_gpus: Int, num_experts: Int) -> SlotTable:
    """Allocate a `SlotTable` of GPUs with ``num_rows`` slots and speed 1, for loads without noise.

    What else it says is up to `clear_table` or `update_table`.
    """
    grid = SlotTable(
        int_table(num_rows, num_gpus),
        double_table(num_rows, num_gpus),
        ints(num_gpus),
        doubles(num_gpus),
        doubles(num_gpus),
        np.empty((num_gpus, num_experts), np.uint16),
        doubles(num_experts),
        ints(num_experts),
        doubles(1),
        doubles(num_gpus),
        doubles(num_gpus),
        int_table(num_rows, num_gpus),
        ints(num_experts),
        doubles(num_experts),
        doubles(num_experts),
        ints(num_gpus),
    )
    for g in range(num_gpus):
        grid.size[g] = num_rows
        grid.slowness[g] = 1.0
        grid.unlimited[g] = UNLIMITED
    grid.margin[0] = 0.0
    return grid


@kernel
def replica_load(weight: float, count: Int, margin: float) -> float:
    """Load of each of ``count`` replicas, with an allowance for noise.

    With margin 0 it is what a replica carries on average. The load of an expert that comes next
    is a random number, and what is planned for is the largest of many GPUs' sums of them. Noise
    of variance f w makes a replica vary by f w / c**2; by the normal moment formula a GPU with
    mean m and variance v counts in a soft maximum of temperature t like one of load m + v / (2 t).
    That is additive over replicas: w / c (1 + margin / c), margin = f / (2 t). A GPU of many
    unreplicated experts varies more, so it gets a little less.
    """
    return weight / count * (1.0 + margin / count)


@kernel
def clear_table(grid: SlotTable) -> None:
    """Nothing placed: all loads zero, and ``inf`` where there is no slot."""
    grid.gpu_load[:] = 0.0
    grid.held[:] = 0
    for r in range(grid.load.shape[0]):
        for g in range(grid.load.shape[1]):
            grid.load[r, g] = 0.0 if r < grid.size[g] else np.inf


@kernel
def fill_slot(grid: SlotTable, row: Int, g: Int, e: Int, load: float) -> None:
    """Fill an empty slot."""
    grid.expert[row, g] = e
    grid.load[row, g] = load
    grid.held[g, e] += 1
    grid.gpu_load[g] += load


@kernel
def add_up(grid: SlotTable, g: Int) -> None:
    """Sum a GPU's load afresh, so that rounding never piles up over many swaps."""
    total = 0.0
    for row in range(grid.size[g]):
        total += grid.load[row, g]
    grid.gpu_load[g] = total


@kernel
def update_table(grid: SlotTable) -> None:
    """Bring counts, replicas per GPU and loads up to date with ``grid.expert``."""
    num_rows, num_gpus = grid.load.shape
    grid.logcnt[:] = 0
    grid.held[:] = 0
    for g in range(num_gpus):
        for row in range(grid.size[g]):
            e = grid.expert[row, g]
            if e != EMPTY:
                grid.logcnt[e] += 1
                grid.held[g, e] += 1
    for g in range(num_gpus):
        for row in range(num_rows):
            grid.load[row, g] = np.inf
            if row < grid.size[g]:
                e = grid.expert[row, g]
                grid.load[row, g] = 0.0
                if e != EMPTY:
                    grid.load[row, g] = replica_load(grid.weight[e], grid.logcnt[e], grid.margin[0])
        add_up(grid, g)


@kernel
def copy_slots(source: Ints, target: Ints) -> None:
    """Copy [R, D] slot contents; assigning whole arrays would make Numba allocate."""
    for row in range(source.shape[0]):
        for g in range(source.shape[1]):
            target[row, g] = source[row, g]


@kernel
def slowest_gpu(grid: SlotTable) -> Int:
    """GPU with the longest time, ties to the lower index."""
    early = grid.score
    for g in range(early.shape[0]):
        early[g] = -grid.gpu_load[g] * grid.slowness[g]
    return first_smallest(early)


@kernel
def longest_time(grid: SlotTable) -> float:
    """Makespan of the layer: the time of its slowest GPU."""
    g = slowest_gpu(grid)
    return float(grid.gpu_load[g] * grid.slowness[g])


@kernel
def first_smallest(values: Doubles) -> Int:
    """Index of the smallest value, the first of equals.

    Four running minima side by side, then a look for the place: twice as fast as one running
    argmin, whose every step waits for the one before.
    """
    n = values.shape[0]
    a = b = c = d = np.inf
    for i in range(0, n - 3, 4):
        a = min(a, values[i])
        b = min(b, values[i + 1])
        c = min(c, values[i + 2])
        d = min(d, values[i + 3])
    for i in range(n - n % 4, n):
        a = min(a, values[i])
    smallest = min(min(a, b), min(c, d))
    i = 0
    while values[i] != smallest:
        i += 1
    return i
