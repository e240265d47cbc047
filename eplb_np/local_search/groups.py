"""Groups to nodes: equally many groups for each node, so that the slowest node ends soonest.

Letters: G groups, N nodes. A first packing comes from the same search as a node's plan, with groups
as experts and nodes as GPUs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.arrays import doubles, ints
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.local_search.node import GOOD_ENOUGH, SearchScratch, make_search_scratch, search_node

EXACT_STEPS = np.int64(4096)
"""Steps of the enumeration: more than enough for 8 groups on 2 nodes or 12 on 4; about 20
microseconds."""


class GroupsScratch(NamedTuple):
    """The groups of a layer and the node of each, and working memory for packing them."""

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
def assign_groups(groups: GroupsScratch) -> None:
    """Assign ``groups.load`` to nodes: ``groups.node``.

    ``groups.search.table.slowness`` [N] is the time that each node takes for a unit of load. A
    single node gets all groups. Two groups for each of several equal nodes are paired, the
    heaviest with the lightest, which is optimal. Otherwise LPT and swaps come first, and then an
    enumeration that finds the optimum unless it is cut short.
    """
    load = groups.load
    node = groups.node
    num_groups = load.shape[0]
    num_nodes = groups.node_load.shape[0]
    capacity = num_groups // num_nodes
    table = groups.search.table
    alike = True
    for n in range(1, num_nodes):
        alike = alike and table.slowness[n] == table.slowness[0]
    if num_nodes == 1 or (capacity == 1 and alike):
        for k in range(num_groups):
            node[k] = k % num_nodes
        return
    for k in range(num_groups):
        table.weight[k] = load[k]
    search_node(groups.search, GOOD_ENOUGH)
    if capacity == 2 and alike:
        fold_groups(groups.search.order, node)
        return
    for n in range(num_nodes):
        for r in range(capacity):
            node[table.expert[r, n]] = n
    pack_groups_exactly(groups, EXACT_STEPS)


@kernel
def fold_groups(order: Ints, node: Ints) -> None:
    """Pair the heaviest group with the lightest, and so on: optimal for two groups per node.

    The proof is in `eplb_np.lower_bound`. ``order`` [G]: groups by descending load; out: ``node``
    [G].
    """
    num_groups = order.shape[0]
    for i in range(num_groups // 2):
        node[order[i]] = i
        node[order[num_groups - 1 - i]] = i


@kernel
def pack_groups_exactly(groups: GroupsScratch, max_steps: Int) -> bool:
    """Improve a packing by a depth-first search, until it is optimal or ``max_steps`` are over.

    ``groups.node`` is the packing to improve. The search places groups from the heaviest on. Of
    empty nodes that are alike it tries only the first, and it cuts off a branch in which a node
    would take as long as in the best packing so far. Returns whether the search was complete,
    that is, whether the result is optimal.
    """
    node, choice = groups.node, groups.choice
    group_load, node_load, node_size = groups.load, groups.node_load, groups.node_size
    slowness = groups.search.table.slowness
    order = groups.search.order  # by descending load
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
    """Time of the slowest node."""
    longest = load[0] * slowness[0]
    for n in range(1, load.shape[0]):
        longest = max(longest, load[n] * slowness[n])
    return float(longest)


@kernel
def _group_bound(group_load: Doubles, order: Ints, slowness: Doubles) -> float:
    """Lower bound: the mean time, or that of the heaviest group with the lightest ones."""
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
