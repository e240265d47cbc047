"""Groups to nodes, for the lightest heaviest node.

Letters: G groups, N nodes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.arrays import doubles, ints
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.local_search.node import GOOD_ENOUGH, SearchScratch, make_search_scratch, search_node

EXACT_STEPS = np.int64(4096)
"""Enough to enumerate 8 groups on 2 nodes or 12 on 4 many times over; about 20 microseconds."""


class GroupsScratch(NamedTuple):
    """Working memory for giving groups to nodes."""

    load: Doubles  # [G] float64
    node: Ints  # [G] int64
    choice: Ints  # [G] int64
    node_load: Doubles  # [N] float64
    node_speed: Doubles  # [N] float64
    node_size: Ints  # [N] int64
    search: SearchScratch  # of groups as experts, and nodes as GPUs


@allocator
def make_groups_scratch(num_groups: Int, num_nodes: Int) -> GroupsScratch:
    """Allocate a `GroupsScratch`."""
    return GroupsScratch(
        doubles(num_groups),
        ints(num_groups),
        ints(num_groups),
        doubles(num_nodes),
        doubles(num_nodes),
        ints(num_nodes),
        make_search_scratch(num_groups // num_nodes, num_nodes, num_groups),
    )


@kernel
def assign_groups(scratch: GroupsScratch) -> None:
    """Give each node equally many groups so that the slowest node is done as soon as can be.

    ``scratch.search.grid.slowness`` [N] is the time that a node takes for a unit of load. One
    node: all groups. Two groups for each of several equal nodes: the heaviest with the lightest,
    which is optimal. Else: LPT and swaps, then an enumeration that ends with the optimum where it
    is not cut short.
    """
    load = scratch.load
    node = scratch.node
    num_groups = load.shape[0]
    num_nodes = scratch.node_load.shape[0]
    capacity = num_groups // num_nodes
    search_scratch = scratch.search
    grid = search_scratch.grid
    alike = True
    for n in range(1, num_nodes):
        alike = alike and grid.slowness[n] == grid.slowness[0]
    if num_nodes == 1 or (capacity == 1 and alike):
        for k in range(num_groups):
            node[k] = k % num_nodes
        return
    for k in range(num_groups):
        grid.weight[k] = load[k]
    search_node(search_scratch, GOOD_ENOUGH)
    order = search_scratch.order  # the groups, heaviest first
    if capacity == 2 and alike:
        fold_groups(order, node)
        return
    for n in range(num_nodes):
        for r in range(capacity):
            node[grid.expert[r, n]] = n
    pack_groups_exactly(
        load, order, grid.slowness, node, scratch.choice, scratch.node_load, scratch.node_size,
        EXACT_STEPS,
    )  # fmt: skip


@kernel
def fold_groups(order: Ints, node: Ints) -> None:
    """Pair the heaviest group with the lightest, and so on: optimal for two groups per node.

    `eplb_np.lower_bound` has the proof. ``order`` [G] the groups by descending load; out:
    ``node`` [G].
    """
    num_groups = order.shape[0]
    for i in range(num_groups // 2):
        node[order[i]] = i
        node[order[num_groups - 1 - i]] = i


@kernel
def pack_groups_exactly(
    group_load: Doubles,
    order: Ints,
    slowness: Doubles,
    node: Ints,
    choice: Ints,
    node_load: Doubles,
    node_size: Ints,
    max_steps: Int,
) -> bool:
    """Depth-first search for the packing whose slowest node is done soonest.

    ``node`` [G], in and out, comes in with a packing that is to be beaten. Groups are placed from
    the heaviest; of empty nodes that are alike only the first is tried, and a branch ends where
    a node would reach the best so far. ``slowness`` [N] is the time that a node takes for a unit
    of load. After ``max_steps`` the best so far stands. Returns whether
    the search was complete, that is, the result optimal. ``order`` [G] the groups by descending
    load; scratch: ``choice`` [G], ``node_load`` [N], ``node_size`` [N].
    """
    num_groups = group_load.shape[0]
    num_nodes = node_load.shape[0]
    capacity = num_groups // num_nodes
    for n in range(num_nodes):
        node_load[n] = 0.0
        node_size[n] = 0
    for g in range(num_groups):
        node_load[node[g]] += group_load[g]
    best = _longest(node_load, slowness)
    bound = _group_bound(group_load, order, slowness)
    for n in range(num_nodes):
        node_load[n] = 0.0
    choice[0] = -1
    depth = 0
    for _ in range(max_steps):
        if depth < 0 or best <= bound * (1.0 + 1e-9):
            return True
        group = order[depth]
        n = choice[depth]
        if n >= 0:
            node_load[n] -= group_load[group]
            node_size[n] -= 1
        n += 1
        while n < num_nodes and (
            node_size[n] == capacity
            or (n > 0 and node_size[n] == node_size[n - 1] == 0 and slowness[n] == slowness[n - 1])
            or (node_load[n] + group_load[group]) * slowness[n] >= best * (1.0 - 1e-9)
        ):
            n += 1
        if n == num_nodes:
            depth -= 1
            continue
        choice[depth] = n
        node_load[n] += group_load[group]
        node_size[n] += 1
        if depth == num_groups - 1:
            best = _longest(node_load, slowness)
            for i in range(num_groups):
                node[order[i]] = choice[i]
            continue
        depth += 1
        choice[depth] = -1
    return False


@kernel
def _longest(load: Doubles, slowness: Doubles) -> float:
    longest = load[0] * slowness[0]
    for n in range(1, load.shape[0]):
        longest = max(longest, load[n] * slowness[n])
    return float(longest)


@kernel
def _group_bound(group_load: Doubles, order: Ints, slowness: Doubles) -> float:
    """Time of the mean node, or of the heaviest group with the lightest that must join it."""
    num_groups = group_load.shape[0]
    num_nodes = slowness.shape[0]
    heaviest = group_load[order[0]]
    total = 0.0
    for g in range(num_groups):
        total += group_load[g]
    for i in range(num_groups // num_nodes - 1):
        heaviest += group_load[order[num_groups - 1 - i]]
    speed = 0.0
    fastest = 0.0
    for n in range(num_nodes):
        speed += 1.0 / slowness[n]
        fastest = max(fastest, 1.0 / slowness[n])
    return float(max(total / speed, heaviest / fastest))
