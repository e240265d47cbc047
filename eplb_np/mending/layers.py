"""Layers of a plan in use: repaired first, then changed by moves that pay.

Letters: L layers, E logical experts, P slots, N nodes, D GPUs.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.arrays import doubles, ints
from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.local_search.slot_table import longest_time, update_table
from eplb_np.maps.cpu import number_replicas
from eplb_np.maps.maps import EMPTY, Maps
from eplb_np.mending.budget import Budget
from eplb_np.mending.descent import descend
from eplb_np.mending.group_swaps import (
    SCATTERED,
    Regrouping,
    empty_foreign_slots,
    find_homes,
    is_scattered,
    make_regrouping,
    swap_groups,
    weigh_groups_and_nodes,
)
from eplb_np.mending.layer_plan import (
    LayerPlan,
    count_active,
    layer_time,
    node_speeds,
    restore_layer,
    save_layer,
    scale_loads,
)
from eplb_np.mending.node import Node, make_node, read_node, write_node
from eplb_np.mending.repair import (
    fill_empty_slots,
    keep_places,
    place_lost_experts,
    separate_affordable_duplicates,
)
from eplb_np.mending.replanning import ReplanScratch, make_replan_scratch, replan_if_better
from eplb_np.mending.soft_maximum import Objective, best_elsewhere, softness, tau_of
from eplb_np.topology import Gpus

ROUNDING = 1e-12
"""A longest time that grows by less than this share has not grown."""


class Terms(NamedTuple):
    """What a fetch must be worth, and how many may be made."""

    noise: float  # variance of an expert's share over its share
    move_price: float  # load that a fetch must take off the slowest GPU, at speed 1
    patience: float  # the same, in units of tau over the number of active GPUs
    tolerance: float  # layers at most this share above the mean GPU time are left unchanged
    budget: Ints  # [D + 1] int64, fetches left to each GPU and to all together; charged


@entry
def repair_layers(
    load: Doubles,
    num_groups: Int,
    num_nodes: Int,
    gpus: Gpus,
    budget: Ints,
    unlimited: bool,
    phy2log: Ints,
    excess: Doubles,
) -> None:
    """Place every expert that has lost its replicas, because GPUs are gone or groups must move.

    ``load`` [L, E] float64. ``phy2log`` [L, P] int64, the plan in use, is changed in place: slots
    of GPUs that are gone are emptied, and so are those that hold experts of another node's group.
    ``budget`` [D + 1] int64 is charged, and exceeded if an expert would have no slot otherwise.
    Out: ``excess`` [L] float64, the load of each layer's slowest GPU above that of perfect
    balance. If groups must move, but the budget is not ``unlimited``, `SCATTERED`: such a layer is
    left to `eplb_np.mending.regrouping.regroup_layers`.
    """
    num_layers, num_experts = load.shape
    num_gpus = gpus.size.shape[0]
    regrouping = make_regrouping(num_groups, num_nodes, num_gpus, num_experts)
    node = make_node(num_experts, num_nodes, gpus)
    weight, logcnt = doubles(num_experts), ints(num_experts)
    saved, fetches = ints(phy2log.shape[1]), Budget(budget, ints(num_gpus + 1))
    for i in range(num_layers):
        layer = LayerPlan(phy2log[i], saved, weight, logcnt, gpus, fetches)
        excess[i] = _repair_layer(load[i], layer, regrouping, node, unlimited)


@kernel
def _repair_layer(
    load: Doubles, layer: LayerPlan, regrouping: Regrouping, node: Node, unlimited: bool
) -> float:
    """Repair one layer; returns its excess, see `repair_layers`."""
    num_nodes = regrouping.node_load.shape[0]
    gpus = layer.gpus
    unit = scale_loads(load, node_speeds(gpus, regrouping.node_speed), layer.weight)
    for g in range(gpus.size.shape[0]):
        for slot in range(gpus.first_slot[g] + gpus.size[g], gpus.first_slot[g + 1]):
            layer.phy2log[slot] = EMPTY
    find_homes(regrouping, layer)
    if num_nodes > 1 and is_scattered(regrouping):
        if not unlimited:
            return SCATTERED
        empty_foreign_slots(regrouping, layer)
    for n in range(num_nodes):
        read_node(node, n, layer, regrouping.home)
        place_lost_experts(node.table, node.budget)
        write_node(node, n, layer)
    return float(max(layer_time(layer) - 1.0, 0.0) / unit)


@entry
def mend_layers(
    load: Doubles,
    num_groups: Int,
    num_nodes: Int,
    gpus: Gpus,
    order: Ints,
    terms: Terms,
    in_use: Ints,
    maps: Maps,
) -> None:
    """Mend the layers of ``order``, in that order: the first ones get the budget first.

    ``load`` [L, E] float64, what is expected; ``in_use`` [L, P] int64, what the slots hold.
    ``maps`` int64: ``phy2log`` comes in as `repair_layers` left it and goes out mended; the ranks
    and counts are out only. No layer's longest time grows, unless filling its empty slots makes
    it grow. A layer whose groups are not all at home yet is left unchanged.
    """
    phy2log, phyrank, logcnt = maps
    num_gpus = gpus.size.shape[0]
    num_experts = load.shape[1]
    regrouping = make_regrouping(num_groups, num_nodes, num_gpus, num_experts)
    node = make_node(num_experts, num_nodes, gpus)
    replan = make_replan_scratch(
        node.table.expert.shape[0], num_gpus // num_nodes, num_experts // num_nodes
    )
    weight, scratch = doubles(num_experts), ints(num_experts)
    saved, budget = ints(phy2log.shape[1]), Budget(terms.budget, ints(num_gpus + 1))
    for i in order:
        layer = LayerPlan(phy2log[i], saved, weight, scratch, gpus, budget)
        _mend_layer(load[i], layer, terms, regrouping, node, replan)
        for g in range(num_gpus):
            first = gpus.first_slot[g]
            keep_places(in_use[i], phy2log[i], first, first + gpus.size[g])
        number_replicas(phy2log[i], phyrank[i], logcnt[i])


@kernel
def _mend_layer(
    load: Doubles,
    layer: LayerPlan,
    terms: Terms,
    regrouping: Regrouping,
    node: Node,
    replan: ReplanScratch,
) -> None:
    """Mend one layer: fill slots and separate duplicates, swap groups, then mend node by node."""
    num_nodes = regrouping.node_load.shape[0]
    speed = node_speeds(layer.gpus, regrouping.node_speed)
    unit = scale_loads(load, speed, layer.weight)
    num_active = count_active(layer.gpus)
    find_homes(regrouping, layer)
    if is_scattered(regrouping):
        return
    for n in range(num_nodes):
        read_node(node, n, layer, regrouping.home)
        fill_empty_slots(node.table, node.budget)
        separate_affordable_duplicates(node.table, node.budget)
        write_node(node, n, layer)
    save_layer(layer)
    before = layer_time(layer)
    weigh_groups_and_nodes(regrouping, layer)
    # From here on in units of the mean GPU time, as the weights.
    terms = Terms(
        terms.noise * speed, terms.move_price * unit, terms.patience, terms.tolerance, terms.budget
    )
    if num_nodes > 1:
        price = _fetch_price(terms, tau_of(terms.noise, num_active), num_active)
        swap_groups(regrouping, layer, price, 1.0 + terms.tolerance)
    for n in range(num_nodes):
        read_node(node, n, layer, regrouping.home)
        _mend_node(node, n, terms, num_active, regrouping, replan)
        write_node(node, n, layer)
    # Group swaps, and moves that allow for noise, may make a GPU slower after all.
    if layer_time(layer) > before * (1.0 + ROUNDING):
        restore_layer(layer)


@kernel
def _mend_node(
    node: Node,
    n: Int,
    terms: Terms,
    num_active: Int,
    regrouping: Regrouping,
    replan: ReplanScratch,
) -> None:
    """Move replicas within a node while that pays, with an allowance for noise on every load."""
    table = node.table
    tau = softness(table, terms.noise, num_active)
    table.margin[0] = 0.5 * terms.noise / tau
    update_table(table)
    elsewhere = best_elsewhere(
        regrouping.node_load, regrouping.node_speed, n, table.size.shape[0], tau
    )
    price = _fetch_price(terms, tau, num_active)
    objective = Objective(tau, elsewhere, price, 1.0 + terms.tolerance)
    descend(table, objective, node.budget)
    if longest_time(table) > objective.tolerated:
        replan_if_better(table, replan, objective, node.budget)


@kernel
def _fetch_price(terms: Terms, tau: float, num_active: Int) -> float:
    """Time that a fetch must save: the user's price, and that which follows from the noise."""
    return terms.move_price + terms.patience * tau / num_active
