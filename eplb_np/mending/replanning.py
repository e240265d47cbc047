"""Replanning: a node planned from scratch, if the descent ends too far from the ideal.

The new plan's GPUs are then renumbered so that as many replicas as possible stay where they are.
Letters: D GPUs, R slots of the largest GPU.
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
from eplb_np.mending.budget import Budget, charge, total_left
from eplb_np.mending.soft_maximum import Objective, ideal_soft_maximum, soft_maximum

REPLAN_SHARE = 0.5
"""However it is renumbered, a plan from scratch moves at least about this share of the slots. It is
only tried if the mended plan is so far from the ideal that it might pay for them."""

UNLIKE = np.int64(1 << 20)
"""Cost of giving a GPU the slots of one of another size or speed: never."""


class ReplanScratch(NamedTuple):
    """A second slot table for the plan from scratch, and what renumbering its GPUs takes."""

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
    table: SlotTable, scratch: ReplanScratch, objective: Objective, budget: Budget
) -> Int:
    """Plan the whole table from scratch if that pays and the budget allows it.

    Returns the fetches; 0 if nothing has changed.
    """
    num_gpus = table.size.shape[0]
    num_slots = 0
    for g in range(num_gpus):
        num_slots += table.size[g]
    now = soft_maximum(table, objective)
    could_gain = now - ideal_soft_maximum(table, objective)
    if could_gain <= objective.price * REPLAN_SHARE * num_slots:
        return 0
    fetches = _replan(table, scratch)
    new = scratch.search.table
    gain = now - soft_maximum(new, objective)
    if fetches > total_left(budget) or gain <= objective.price * fetches:
        return 0
    if longest_time(new) > longest_time(table):
        return 0
    for g in range(num_gpus):
        if scratch.cost[g, scratch.column_of[g]] > max(budget.left[g], 0):
            return 0
    for g in range(num_gpus):
        charge(budget, g, scratch.cost[g, scratch.column_of[g]])
    _adopt(table, scratch)
    return fetches


@kernel
def _replan(old: SlotTable, scratch: ReplanScratch) -> Int:
    """Plan from scratch; each GPU takes a column so that all together keep the most replicas.

    ``old`` is the plan in use. Columns are exchanged only among GPUs of equal slots and speed.
    Leaves the plan in ``scratch.search.table`` and the columns in ``scratch.column_of``. Returns
    the fetches.
    """
    new = scratch.search.table
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
    """Count what GPU g must fetch to hold column k of the new plan, as `count_fetches` does."""
    fetches = 0
    for row in range(new.size[k]):
        e = new.expert[row, k]
        same = 0  # replicas of e before this one
        for other in range(row):
            if new.expert[other, k] == e:
                same += 1
        if same >= old.held[g, e]:
            fetches += 1
    return fetches


@kernel
def _adopt(table: SlotTable, scratch: ReplanScratch) -> None:
    """Take over the plan of `_replan`; `keep_places` decides later which slot an expert gets."""
    new = scratch.search.table
    for g in range(table.size.shape[0]):
        for row in range(table.size[g]):
            table.expert[row, g] = new.expert[row, scratch.column_of[g]]
    update_table(table)
