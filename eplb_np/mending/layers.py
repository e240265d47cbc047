"""A plan in use, layer by layer: lost experts get a seat, then moves are made as far as they pay.

Letters: L layers, E logical experts, P slots, G groups, N nodes, D GPUs, R slots of the GPU that
has most. A *budget* is [D + 1] int64: the replicas that each GPU, and all together, may fetch.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.arrays import doubles, ints
from eplb_np._numba.jit import allocator, entry, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.local_search.layers import most_slots, node_speeds
from eplb_np.local_search.slot_table import SlotTable, longest_time, make_slot_table, update_table
from eplb_np.maps.cpu import number_replicas
from eplb_np.maps.maps import EMPTY, Maps
from eplb_np.mending.descent import descend
from eplb_np.mending.group_swaps import (
    Regrouping,
    empty_foreign_slots,
    find_homes,
    make_regrouping,
    swap_groups,
    weigh_groups_and_nodes,
)
from eplb_np.mending.repair import (
    fill_empty_slots,
    keep_places,
    place_lost_experts,
    separate_affordable_duplicates,
)
from eplb_np.mending.replanning import ReplanScratch, make_replan_scratch, replan_if_better
from eplb_np.mending.soft_maximum import best_elsewhere, softness, tau_of
from eplb_np.topology import Gpus

ROUNDING = 1e-12
"""A longest time that grows by less than this share has not grown."""


class Stakes(NamedTuple):
    """What a fetch must be worth."""

    noise: float  # variance of an expert's share over its share
    move_price: float  # load that a fetch must take off the slowest GPU, at speed 1
    patience: float  # the same, in units of tau over the number of active GPUs
    tolerance: float  # layers this share above the mean GPU time, or less, are let be


class MendScratch(NamedTuple):
    """Working memory of a layer, and of one node of it."""

    grid: SlotTable
    weight: Doubles  # [E] float64, in units of the mean GPU time
    member: Ints  # [E] int64, the experts of a node
    local: Ints  # [E] int64, their numbers in the node
    node_budget: Ints  # [D + 1] int64, and so on
    layer_budget: Ints
    left: Ints
    best_left: Ints
    seated: Ints  # [P] int64, the layer's plan before moves
    logcnt: Ints  # [E] int64


@allocator
def make_mend_scratch(num_slots: Int, num_experts: Int, num_nodes: Int, gpus: Gpus) -> MendScratch:
    """Allocate a `MendScratch`."""
    num_gpus = gpus.size.shape[0]
    node_gpus = num_gpus // num_nodes
    return MendScratch(
        make_slot_table(most_slots(gpus), node_gpus, num_experts // num_nodes),
        doubles(num_experts),
        ints(num_experts),
        ints(num_experts),
        ints(node_gpus + 1),
        ints(num_gpus + 1),
        ints(node_gpus + 1),
        ints(node_gpus + 1),
        ints(num_slots),
        ints(num_experts),
    )


@kernel
def _scale(load: Doubles, speed: float, weight: Doubles) -> float:
    """Write loads in units of the mean GPU time; returns one unit of load in those."""
    total = 0.0
    for e in range(load.shape[0]):
        total += load[e]
    unit = speed / total if total > 0.0 else 1.0
    for e in range(load.shape[0]):
        weight[e] = load[e] * unit
    return unit


@kernel
def _load_node(
    node: Int, home: Ints, gpus: Gpus, budget: Ints, phy2log: Ints, scratch: MendScratch
) -> None:
    """Set the grid and the node's budget up from a layer's plan."""
    grid = scratch.grid
    node_gpus = grid.size.shape[0]
    num_experts = scratch.weight.shape[0]
    group_size = num_experts // home.shape[0]
    members = 0
    for e in range(num_experts):
        if home[e // group_size] == node:
            scratch.local[e] = members
            scratch.member[members] = e
            grid.weight[members] = scratch.weight[e]
            members += 1
    for g in range(node_gpus):
        gpu = node * node_gpus + g
        grid.size[g] = gpus.size[gpu]
        grid.slowness[g] = gpus.slowness[gpu]
        scratch.node_budget[g] = budget[gpu]
        for r in range(grid.size[g]):
            e = phy2log[gpus.first_slot[gpu] + r]
            grid.expert[r, g] = scratch.local[e] if e != EMPTY else EMPTY
    scratch.node_budget[node_gpus] = budget[budget.shape[0] - 1]
    grid.margin[0] = 0.0
    update_table(grid)


@kernel
def _store_node(node: Int, gpus: Gpus, budget: Ints, phy2log: Ints, scratch: MendScratch) -> None:
    """Write the grid and what is left of the budget back."""
    grid = scratch.grid
    node_gpus = grid.size.shape[0]
    for g in range(node_gpus):
        gpu = node * node_gpus + g
        budget[gpu] = scratch.node_budget[g]
        for r in range(grid.size[g]):
            e = grid.expert[r, g]
            phy2log[gpus.first_slot[gpu] + r] = scratch.member[e] if e != EMPTY else EMPTY
    budget[budget.shape[0] - 1] = scratch.node_budget[node_gpus]


@kernel
def _repair_layer(
    load: Doubles,
    gpus: Gpus,
    budget: Ints,
    phy2log: Ints,
    regrouping: Regrouping,
    scratch: MendScratch,
) -> float:
    """Seat what has no seat in one layer: arguments as `repair_layers`, without the layer axis.

    Returns how much longer the slowest GPU takes than if all were done at once.
    """
    num_nodes = regrouping.node_load.shape[0]
    speed = node_speeds(gpus, regrouping.node_speed)
    unit = _scale(load, speed, scratch.weight)
    for g in range(gpus.size.shape[0]):
        for slot in range(gpus.first_slot[g] + gpus.size[g], gpus.first_slot[g + 1]):
            phy2log[slot] = EMPTY
    find_homes(regrouping, phy2log, gpus.first_slot)
    if num_nodes > 1:
        empty_foreign_slots(regrouping, phy2log, gpus.first_slot)
    for n in range(num_nodes):
        _load_node(n, regrouping.home, gpus, budget, phy2log, scratch)
        place_lost_experts(scratch.grid, scratch.node_budget)
        _store_node(n, gpus, budget, phy2log, scratch)
    return float(max(_layer_time(phy2log, gpus, scratch) - 1.0, 0.0) / unit)


@entry
def repair_layers(
    load: Doubles,
    num_groups: Int,
    num_nodes: Int,
    gpus: Gpus,
    budget: Ints,
    phy2log: Ints,
    excess: Doubles,
) -> None:
    """Give every expert of every layer a seat, where GPUs are gone or groups must move together.

    ``load`` [L, E] float64; ``first_slot``, ``size``, ``slowness`` as `refine_layers`;
    ``phy2log`` [L, P] int64 the plan in use, changed in place: the slots of GPUs that are gone
    are emptied, and so are those that hold experts of another node's group. ``budget`` is
    charged, and exceeded where an expert would have no seat. Out: ``excess`` [L] float64, how
    much longer the slowest GPU of each layer takes than if all were done at once.
    """
    num_layers, num_experts = load.shape
    regrouping = make_regrouping(num_groups, num_nodes, gpus.size.shape[0], num_experts)
    scratch = make_mend_scratch(phy2log.shape[1], num_experts, num_nodes, gpus)
    for i in range(num_layers):
        excess[i] = _repair_layer(load[i], gpus, budget, phy2log[i], regrouping, scratch)


@kernel
def _mend_node(
    node: Int,
    stakes: Stakes,
    speed: float,
    price: float,
    num_active: Int,
    regrouping: Regrouping,
    scratch: MendScratch,
    again: ReplanScratch,
) -> None:
    """Move on the grid as far as it pays, with an allowance for noise on every replica's load."""
    grid = scratch.grid
    budget = scratch.node_budget
    noise = stakes.noise * speed
    tau = softness(grid, noise, num_active)
    grid.margin[0] = 0.5 * noise / tau
    update_table(grid)
    elsewhere = best_elsewhere(
        regrouping.node_load, regrouping.node_speed, node, grid.size.shape[0], tau
    )
    price += stakes.patience * tau / num_active
    descend(
        grid, tau, elsewhere, price, 1.0 + stakes.tolerance, budget, scratch.left,
        scratch.best_left,
    )  # fmt: skip
    if longest_time(grid) > 1.0 + stakes.tolerance:
        replan_if_better(grid, again, tau, elsewhere, price, budget)


@kernel
def _mend_layer(
    load: Doubles,
    gpus: Gpus,
    stakes: Stakes,
    budget: Ints,
    phy2log: Ints,
    regrouping: Regrouping,
    scratch: MendScratch,
    again: ReplanScratch,
) -> None:
    """Mend one layer: arguments as `mend_layers`, without the layer axis."""
    num_gpus = gpus.size.shape[0]
    num_nodes = regrouping.node_load.shape[0]
    speed = node_speeds(gpus, regrouping.node_speed)
    price = stakes.move_price * _scale(load, speed, scratch.weight)
    num_active = 0
    for g in range(num_gpus):
        if gpus.size[g] > 0:
            num_active += 1
    find_homes(regrouping, phy2log, gpus.first_slot)
    for n in range(num_nodes):
        _load_node(n, regrouping.home, gpus, budget, phy2log, scratch)
        fill_empty_slots(scratch.grid, scratch.node_budget)
        separate_affordable_duplicates(scratch.grid, scratch.node_budget)
        _store_node(n, gpus, budget, phy2log, scratch)
    for slot in range(phy2log.shape[0]):
        scratch.seated[slot] = phy2log[slot]
    for i in range(num_gpus + 1):
        scratch.layer_budget[i] = budget[i]
    before = _layer_time(phy2log, gpus, scratch)
    weigh_groups_and_nodes(regrouping, scratch.weight)
    if num_nodes > 1:
        tau = tau_of(stakes.noise * speed, num_active)
        swap_groups(
            regrouping, phy2log, gpus.first_slot, gpus.size, scratch.weight,
            price + stakes.patience * tau / num_active, 1.0 + stakes.tolerance, budget,
        )  # fmt: skip
    for n in range(num_nodes):
        _load_node(n, regrouping.home, gpus, budget, phy2log, scratch)
        _mend_node(n, stakes, speed, price, num_active, regrouping, scratch, again)
        _store_node(n, gpus, budget, phy2log, scratch)
    # Groups that swap nodes, and moves that allow for noise, can make a GPU slower after all.
    if _layer_time(phy2log, gpus, scratch) > before * (1.0 + ROUNDING):
        for slot in range(phy2log.shape[0]):
            phy2log[slot] = scratch.seated[slot]
        for i in range(num_gpus + 1):
            budget[i] = scratch.layer_budget[i]


@kernel
def _layer_time(phy2log: Ints, gpus: Gpus, scratch: MendScratch) -> float:
    """Longest GPU time of a layer."""
    logcnt = scratch.logcnt
    logcnt[:] = 0
    for slot in range(phy2log.shape[0]):
        if phy2log[slot] != EMPTY:
            logcnt[phy2log[slot]] += 1
    longest = 0.0
    for g in range(gpus.size.shape[0]):
        total = 0.0
        for slot in range(gpus.first_slot[g], gpus.first_slot[g] + gpus.size[g]):
            e = phy2log[slot]
            if e != EMPTY:
                total += scratch.weight[e] / logcnt[e]
        longest = max(longest, total * gpus.slowness[g])
    return float(longest)


@entry
def mend_layers(
    load: Doubles,
    num_groups: Int,
    num_nodes: Int,
    gpus: Gpus,
    order: Ints,
    stakes: Stakes,
    budget: Ints,
    in_use: Ints,
    maps: Maps,
) -> None:
    """Mend the plan in use of every layer.

    ``load`` [L, E] float64 what is expected; ``first_slot``, ``size``, ``slowness`` as
    `refine_layers`; ``order`` int64 the layers, those first that the budget should go to; the
    four numbers as in `Stakes`; ``budget`` is charged. ``in_use`` [L, P] int64 what the slots
    hold; ``phy2log`` [L, P] int64 comes in as `repair_layers` left it, and goes out as what they
    are to hold; out too: ``phyrank`` [L, P], ``logcnt`` [L, E], int64. No layer's longest time
    grows.
    """
    phy2log, phyrank, logcnt = maps
    num_gpus = gpus.size.shape[0]
    num_experts = load.shape[1]
    regrouping = make_regrouping(num_groups, num_nodes, num_gpus, num_experts)
    scratch = make_mend_scratch(phy2log.shape[1], num_experts, num_nodes, gpus)
    again = make_replan_scratch(
        scratch.grid.expert.shape[0], num_gpus // num_nodes, num_experts // num_nodes
    )
    for i in order:
        _mend_layer(load[i], gpus, stakes, budget, phy2log[i], regrouping, scratch, again)
        for g in range(num_gpus):
            first = gpus.first_slot[g]
            keep_places(in_use[i], phy2log[i], first, first + gpus.size[g])
        number_replicas(phy2log[i], phyrank[i], logcnt[i])
