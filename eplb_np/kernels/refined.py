"""The refined policy: the best plan from scratch, by local search within a budget.

Letters: L layers, E logical experts, P slots, G groups, N nodes, D GPUs, R slots per GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._jit import allocator, entry, kernel
from eplb_np._types import Doubles, Floats, Int, Ints
from eplb_np.kernels import tournament
from eplb_np.kernels.arrays import doubles, floats, ints
from eplb_np.kernels.grid import EMPTY, Grid, make_grid, replica_load
from eplb_np.kernels.groups import fold_groups, pack_groups_exactly
from eplb_np.kernels.placement import allocate_capped, part_duplicates, place_longest_first
from eplb_np.kernels.search import search
from eplb_np.kernels.sorting import HISTOGRAM_SIZE, sort_descending

GOOD_ENOUGH = 1e-4
"""Stop within this distance of the lower bound; sampling noise of loads is a hundred times more."""

IDLE_GOOD_ENOUGH = 2e-3
"""The same for nodes that wait for a heavier one anyway."""

MAX_STEPS = np.int64(400)
"""Budget of a node's search, in swaps."""

EXACT_STEPS = np.int64(4096)
"""Enough to enumerate 8 groups on 2 nodes or 12 on 4 many times over; about 20 microseconds."""


class SearchScratch(NamedTuple):
    """A grid, and working memory for its first plan; once per call and not per layer."""

    grid: Grid
    average: Floats  # [E] float32, load of each of an expert's replicas
    order: Ints  # [E] int64
    keys: Ints  # [E] int64
    spare: Ints  # [E] int64
    histogram: Ints  # [HISTOGRAM_SIZE] int64
    filled: Ints  # [D] int64
    expert_tree: Ints  # [2 * leaves(E)] int64
    gpu_tree: Ints  # [2 * leaves(D)] int64


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
def make_search_scratch(num_rows: Int, num_gpus: Int, num_experts: Int) -> SearchScratch:
    """Allocate a `SearchScratch`."""
    return SearchScratch(
        make_grid(num_rows, num_gpus, num_experts),
        floats(num_experts),
        ints(num_experts),
        ints(num_experts),
        ints(num_experts),
        ints(HISTOGRAM_SIZE),
        ints(num_gpus),
        ints(2 * tournament.num_leaves(num_experts)),
        ints(2 * tournament.num_leaves(num_gpus)),
    )


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
def refine_node(scratch: SearchScratch, good_enough: float) -> None:
    """Plan the experts of ``scratch.grid`` as well as the search can.

    ``grid.weight``, ``grid.size`` and ``grid.slowness`` say what is to be planned. The search
    ends near a bound: the mean time of the GPUs, or the largest replica on the fastest one.
    """
    grid = scratch.grid
    num_slots = 0
    num_live = 0
    speed = 0.0
    fastest = 0.0
    for g in range(grid.size.shape[0]):
        if grid.size[g] > 0:
            num_slots += grid.size[g]
            num_live += 1
            speed += 1.0 / grid.slowness[g]
            fastest = max(fastest, 1.0 / grid.slowness[g])
    allocate_capped(grid.weight, num_slots, num_live, grid.logcnt, scratch.expert_tree)
    total = 0.0
    largest = 0.0
    for e in range(grid.weight.shape[0]):
        load = replica_load(grid.weight[e], grid.logcnt[e], grid.margin[0])
        scratch.average[e] = np.float32(load)
        total += load * grid.logcnt[e]
        largest = max(largest, load)
    bound = max(total / speed, largest / fastest)
    sort_descending(scratch.average, scratch.order, scratch.keys, scratch.spare, scratch.histogram)
    doubled = place_longest_first(grid, scratch.order, scratch.filled, scratch.gpu_tree)
    if doubled > 0:
        part_duplicates(grid)
    search(grid, bound, good_enough, MAX_STEPS)


@kernel
def pack_groups(scratch: GroupsScratch) -> None:
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
    refine_node(search_scratch, GOOD_ENOUGH)
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
def node_speeds(size: Ints, slowness: Doubles, speed: Doubles) -> float:
    """Speed of each node's active GPUs together, into ``speed`` [N]; returns that of all."""
    num_nodes = speed.shape[0]
    node_gpus = size.shape[0] // num_nodes
    total = 0.0
    for n in range(num_nodes):
        speed[n] = 0.0
        for g in range(n * node_gpus, (n + 1) * node_gpus):
            if size[g] > 0:
                speed[n] += 1.0 / slowness[g]
        total += speed[n]
    return total


@kernel
def number_replicas(phy2log: Ints, phyrank: Ints, logcnt: Ints) -> None:
    """Ranks in the order of the slots, and counts, of one layer's plan; -1 in empty slots."""
    for e in range(logcnt.shape[0]):
        logcnt[e] = 0
    for slot in range(phy2log.shape[0]):
        e = phy2log[slot]
        phyrank[slot] = EMPTY
        if e != EMPTY:
            phyrank[slot] = logcnt[e]
            logcnt[e] += 1


@kernel
def refine_layer(
    weight: Floats,
    first_slot: Ints,
    size: Ints,
    slowness: Doubles,
    phy2log: Ints,
    member: Ints,
    groups: GroupsScratch,
    scratch: SearchScratch,
) -> None:
    """Plan one layer: arguments as `refine_layers`, without the layer axis."""
    grid = scratch.grid
    num_groups = groups.load.shape[0]
    num_nodes = groups.node_load.shape[0]
    group_size = weight.shape[0] // num_groups
    node_gpus = grid.size.shape[0]
    speed = node_speeds(size, slowness, groups.node_speed)
    total = 0.0
    for e in range(weight.shape[0]):
        total += np.float64(weight[e])
    unit = speed / total if total > 0.0 else 1.0

    for k in range(num_groups):
        groups.load[k] = 0.0
        for e in range(k * group_size, (k + 1) * group_size):
            groups.load[k] += np.float64(weight[e]) * unit
    for n in range(num_nodes):
        groups.search.grid.slowness[n] = groups.node_speed[0] / groups.node_speed[n]
    pack_groups(groups)
    node_load = groups.node_load
    for n in range(num_nodes):
        node_load[n] = 0.0
    for k in range(num_groups):
        node_load[groups.node[k]] += groups.load[k]
    longest = 0.0
    for n in range(num_nodes):
        longest = max(longest, node_load[n] / groups.node_speed[n])

    for slot in range(phy2log.shape[0]):
        phy2log[slot] = EMPTY
    for n in range(num_nodes):
        i = 0
        for k in range(num_groups):
            if groups.node[k] == n:
                for e in range(k * group_size, (k + 1) * group_size):
                    member[i] = e
                    grid.weight[i] = np.float64(weight[e]) * unit
                    i += 1
        for g in range(node_gpus):
            grid.size[g] = size[n * node_gpus + g]
            grid.slowness[g] = slowness[n * node_gpus + g]
        waits = node_load[n] / groups.node_speed[n] < longest
        refine_node(scratch, IDLE_GOOD_ENOUGH if waits else GOOD_ENOUGH)
        for g in range(node_gpus):
            for r in range(grid.size[g]):
                phy2log[first_slot[n * node_gpus + g] + r] = member[grid.expert[r, g]]


@entry
def refine_layers(
    weight: Floats,
    num_groups: Int,
    num_nodes: Int,
    first_slot: Ints,
    size: Ints,
    slowness: Doubles,
    phy2log: Ints,
    phyrank: Ints,
    logcnt: Ints,
) -> None:
    """Plan every row of ``weight`` [L, E] float32 by local search.

    ``first_slot`` [D + 1] int64 the slots at which each GPU's begin, ``size`` [D] int64 how many
    of them may be used (0: the GPU is gone), ``slowness`` [D] float64 the time that it takes for
    a unit of load. Out, all int64: ``phy2log`` [L, P] the logical expert in each slot, -1 where
    none may be, ``phyrank`` [L, P] which of that expert's replicas it is, in the order of the
    slots, ``logcnt`` [L, E].
    """
    num_layers, num_experts = weight.shape
    num_gpus = size.shape[0]
    num_rows = 0
    for g in range(num_gpus):
        num_rows = max(num_rows, first_slot[g + 1] - first_slot[g])
    node_experts = num_experts // num_nodes
    scratch = make_search_scratch(num_rows, num_gpus // num_nodes, node_experts)
    groups = make_groups_scratch(num_groups, num_nodes)
    member = ints(node_experts)
    for i in range(num_layers):
        refine_layer(weight[i], first_slot, size, slowness, phy2log[i], member, groups, scratch)
        number_replicas(phy2log[i], phyrank[i], logcnt[i])
