"""The slot table: the plan of one layer, or of one node of it, while it is searched.

Letters: E logical experts, D GPUs, R slots of the largest GPU.

Row ``r`` of column ``g`` is slot ``r`` of GPU ``g``. A GPU with fewer slots (none if it is gone)
has a shorter column; the missing rows have load ``inf``, so that no swap ever picks them. The GPUs
of a row lie side by side in memory, so one loop over the GPUs compares a replica with a whole row.
The compiler makes vector instructions of it: five times faster than GPU by GPU.

Loads are float64, in units of the mean load of a GPU of speed 1. The *time* of a GPU is its load
times its slowness (1 / speed). A tie always goes to the lower index.
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
    """What each slot of a layer or node holds, and the sums that follow from it."""

    expert: Ints  # [R, D] int64, logical expert in each slot
    load: Doubles  # [R, D] float64, load of the replica in each slot, inf where there is no slot
    size: Ints  # [D] int64, slots of each GPU
    slowness: Doubles  # [D] float64, 1 / speed
    gpu_load: Doubles  # [D] float64
    held: Shorts  # [D, E] uint16, replicas of each expert on each GPU
    weight: Doubles  # [E] float64, load of each expert
    logcnt: Ints  # [E] int64, replicas of each expert
    margin: Doubles  # [1] float64, allowance for noise, see `replica_load`
    score: Doubles  # [D] float64, scratch
    ideal: Doubles  # [D] float64, scratch
    saved: Ints  # [R, D] int64, the best plan so far, to go back to
    slowest_holder: Ints  # [E] int64, scratch of `best_reassignment`
    slowest_time: Doubles  # [E] float64, scratch of `best_reassignment`
    second_time: Doubles  # [E] float64, scratch of `best_reassignment`
    unlimited: Ints  # [D] int64, fetches of each GPU where nothing limits them
    most_held: Ints  # [1] int64, replicas of an expert that a GPU may hold, 1 or UNLIMITED


@allocator
def make_slot_table(num_rows: Int, num_gpus: Int, num_experts: Int) -> SlotTable:
    """Allocate a `SlotTable` of GPUs with ``num_rows`` slots and speed 1, for loads without noise.

    `clear_table` or `update_table` sets the rest.
    """
    table = SlotTable(
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
        ints(1),
    )
    for g in range(num_gpus):
        table.size[g] = num_rows
        table.slowness[g] = 1.0
        table.unlimited[g] = UNLIMITED
    table.margin[0] = 0.0
    table.most_held[0] = 1
    return table


@kernel
def clear_table(table: SlotTable) -> None:
    """Remove all replicas: every load is zero, or ``inf`` where there is no slot."""
    table.gpu_load[:] = 0.0
    table.held[:] = 0
    for r in range(table.load.shape[0]):
        for g in range(table.load.shape[1]):
            table.load[r, g] = 0.0 if r < table.size[g] else np.inf


@kernel
def fill_slot(table: SlotTable, row: Int, g: Int, e: Int, load: float) -> None:
    """Fill an empty slot."""
    table.expert[row, g] = e
    table.load[row, g] = load
    table.held[g, e] += 1
    table.gpu_load[g] += load


@kernel
def update_table(table: SlotTable) -> None:
    """Recompute counts, replicas per GPU and loads from ``table.expert``."""
    num_rows, num_gpus = table.load.shape
    table.logcnt[:] = 0
    table.held[:] = 0
    for g in range(num_gpus):
        for row in range(table.size[g]):
            e = table.expert[row, g]
            if e != EMPTY:
                table.logcnt[e] += 1
                table.held[g, e] += 1
    for g in range(num_gpus):
        for row in range(num_rows):
            table.load[row, g] = np.inf
            if row < table.size[g]:
                e = table.expert[row, g]
                table.load[row, g] = 0.0
                if e != EMPTY:
                    table.load[row, g] = replica_load(table, e, table.logcnt[e])
        add_up(table, g)


@kernel
def replica_load(table: SlotTable, e: Int, count: Int) -> float:
    """Load of each replica of expert ``e`` if there are ``count``, with an allowance for noise.

    With margin 0 this is what a replica carries on average. But the next load of an expert is a
    random number, and plans are made for the largest of many GPUs' sums of them. Noise of
    variance f w makes the load of a replica vary by f w / c**2. By the moment formula for normal
    variables, a GPU with mean m and variance v counts in a soft maximum of temperature t like one
    of load m + v / (2 t). That is additive over replicas: w / c (1 + margin / c), with
    margin = f / (2 t). A GPU of many unreplicated experts varies more, so it gets a little less.
    """
    return float(table.weight[e] / count * (1.0 + table.margin[0] / count))


@kernel
def add_up(table: SlotTable, g: Int) -> None:
    """Sum a GPU's load from its slots, so that rounding errors never pile up over many swaps."""
    total = 0.0
    for row in range(table.size[g]):
        total += table.load[row, g]
    table.gpu_load[g] = total


@kernel
def copy_slots(source: Ints, target: Ints) -> None:
    """Copy [R, D] slot contents; assigning whole arrays would make Numba allocate."""
    for row in range(source.shape[0]):
        for g in range(source.shape[1]):
            target[row, g] = source[row, g]


@kernel
def gpu_time(table: SlotTable, g: Int) -> float:
    """Time of a GPU: its load times its slowness."""
    return float(table.gpu_load[g] * table.slowness[g])


@kernel
def slowest_gpu(table: SlotTable) -> Int:
    """GPU with the longest time."""
    negated = table.score
    for g in range(negated.shape[0]):
        negated[g] = -gpu_time(table, g)
    return first_smallest(negated)


@kernel
def longest_time(table: SlotTable) -> float:
    """Makespan of the layer: the time of its slowest GPU."""
    return gpu_time(table, slowest_gpu(table))


@kernel
def first_smallest(values: Doubles) -> Int:
    """Index of the smallest value; a tie goes to the lower index. 0 if all values are NaN.

    Four running minima side by side, then a second pass to find the index: twice as fast as one
    running argmin, in which every step waits for the one before.
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
    for i in range(n):
        if values[i] == smallest:
            return i
    return 0
