"""A layer planned anew where mending does not get far enough, relabelled so that much can stay.

Letters: D GPUs, R slots of the GPU that has most.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.arrays import int_table, ints
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Int, Ints
from eplb_np.local_search.node import GOOD_ENOUGH, SearchScratch, make_search_scratch, search_node
from eplb_np.local_search.slot_table import SlotTable, longest_time, update_table
from eplb_np.mending.assignment import AssignmentScratch, assign, make_assignment_scratch
from eplb_np.mending.soft_maximum import could_gain, soft_maximum

REPLAN_SHARE = 0.5
"""A plan from scratch moves at least about this share of the slots, however it is relabelled: it
is only tried where the mended plan is so far from the ideal that it might pay for them."""


UNLIKE = np.int64(1 << 20)
"""Cost of giving a GPU the slots of one of another size or speed: never."""


class ReplanScratch(NamedTuple):
    """A second grid for the plan from scratch, and what relabelling it takes."""

    search: SearchScratch
    cost: Ints  # [D, D] int64, fetches of each GPU for each column of the new plan
    column_of: Ints  # [D] int64, the column that each GPU gets
    assignment: AssignmentScratch


@allocator
def make_replan_scratch(num_rows: Int, num_gpus: Int, num_experts: Int) -> ReplanScratch:
    """Allocate a `ReplanScratch`."""
    return ReplanScratch(
        make_search_scratch(num_rows, num_gpus, num_experts),
        int_table(num_gpus, num_gpus),
        ints(num_gpus),
        make_assignment_scratch(num_gpus),
    )


@kernel
def replan_if_better(
    grid: SlotTable,
    scratch: ReplanScratch,
    tau: float,
    elsewhere: float,
    price: float,
    budget: Ints,
) -> Int:
    """Plan the whole grid from scratch where mending has ended so far from the ideal that it pays.

    Arguments as `eplb_np.kernels.mending.mend`. Returns the fetches, 0 with nothing changed.
    """
    num_gpus = grid.size.shape[0]
    num_slots = 0
    for g in range(num_gpus):
        num_slots += grid.size[g]
    if could_gain(grid, tau, elsewhere) <= price * REPLAN_SHARE * num_slots:
        return 0
    now = soft_maximum(grid, tau, elsewhere)
    fetches = _replan(grid, scratch)
    new = scratch.search.grid
    gain = now - soft_maximum(new, tau, elsewhere)
    if fetches > budget[num_gpus] or gain <= price * fetches:
        return 0
    if longest_time(new) > longest_time(grid):
        return 0
    for g in range(num_gpus):
        if scratch.cost[g, scratch.column_of[g]] > max(budget[g], 0):
            return 0
    for g in range(num_gpus):
        budget[g] -= scratch.cost[g, scratch.column_of[g]]
    budget[num_gpus] -= fetches
    _adopt(grid, scratch)
    return fetches


@kernel
def _replan(old: SlotTable, scratch: ReplanScratch) -> Int:
    """Plan from scratch; GPUs take the columns with which they keep the most replicas.

    ``old`` is the plan in use. Columns are exchanged only among GPUs of equal slots and speed.
    Leaves the plan in ``scratch.search.grid``, the columns in ``scratch.column_of``. Returns the
    fetches.
    """
    new = scratch.search.grid
    num_gpus = old.size.shape[0]
    for e in range(old.weight.shape[0]):
        new.weight[e] = old.weight[e]
    for g in range(num_gpus):
        new.size[g] = old.size[g]
        new.slowness[g] = old.slowness[g]
    new.margin[0] = old.margin[0]
    search_node(scratch.search, GOOD_ENOUGH)
    for g in range(num_gpus):
        for k in range(num_gpus):
            alike = old.size[g] == new.size[k] and old.slowness[g] == new.slowness[k]
            scratch.cost[g, k] = _count_fetches(old, g, new, k) if alike else UNLIKE
    assign(scratch.cost, scratch.column_of, scratch.assignment)
    fetches = 0
    for g in range(num_gpus):
        fetches += scratch.cost[g, scratch.column_of[g]]
    return fetches


@kernel
def _count_fetches(old: SlotTable, g: Int, new: SlotTable, k: Int) -> Int:
    """Replicas that GPU g must fetch to hold what column k of the new plan holds."""
    fetches = 0
    for row in range(new.size[k]):
        e = new.expert[row, k]
        same = 0  # the second of two replicas is a fetch unless there were two
        for other in range(row):
            if new.expert[other, k] == e:
                same += 1
        if same >= old.held[g, e]:
            fetches += 1
    return fetches


@kernel
def _adopt(grid: SlotTable, scratch: ReplanScratch) -> None:
    """Take over the plan of `_replan`; which slot on its GPU an expert gets is decided later."""
    new = scratch.search.grid
    for g in range(grid.size.shape[0]):
        for row in range(grid.size[g]):
            grid.expert[row, g] = new.expert[row, scratch.column_of[g]]
    update_table(grid)
