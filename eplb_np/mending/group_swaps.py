"""Group swaps: two groups on different nodes change places. One fetch per replica of either.

`swap_groups` makes those that pay for all their fetches. Before that, `find_homes` decides which
node each group belongs to. Replicas elsewhere are removed by `empty_foreign_slots` if the budget
covers all fetches that follow from it; otherwise groups go home step by step (``regrouping.py``).

Letters: G groups, N nodes, D GPUs, E logical experts, P slots.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.arrays import doubles, int_table, ints
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.maps.maps import EMPTY
from eplb_np.mending.budget import charge, total_left
from eplb_np.mending.layer_plan import LayerPlan

SCATTERED = -1.0
"""Excess of a layer whose groups must go home within a budget, see ``regrouping.py``."""


class Regrouping(NamedTuple):
    """The groups and nodes of one layer, and working memory."""

    home: Ints  # [G] int64, node of each group
    group_load: Doubles  # [G] float64
    node_load: Doubles  # [N] float64
    node_speed: Doubles  # [N] float64, speeds of the node's active GPUs, summed
    held_by: Ints  # [G, N] int64, replicas of each group on each node
    num_homes: Ints  # [N] int64, groups of each node
    logcnt: Ints  # [E] int64, scratch
    placed: Ints  # [E] int64, scratch
    gpu_load: Doubles  # [D] float64, scratch


@allocator
def make_regrouping(num_groups: Int, num_nodes: Int, num_gpus: Int, num_experts: Int) -> Regrouping:
    """Allocate a `Regrouping`."""
    return Regrouping(
        ints(num_groups),
        doubles(num_groups),
        doubles(num_nodes),
        doubles(num_nodes),
        int_table(num_groups, num_nodes),
        ints(num_nodes),
        ints(num_experts),
        ints(num_experts),
        doubles(num_gpus),
    )


@kernel
def find_homes(regrouping: Regrouping, layer: LayerPlan) -> None:
    """Assign each group to the node that holds most of it, and equally many groups to each node.

    The pair of group and node with most replicas in common comes first; a tie goes to the lower
    group, then to the lower node. O(P + G**2 N) at worst, O(P + G N) if all groups are whole.
    """
    num_groups, num_nodes = regrouping.held_by.shape
    node_gpus = regrouping.gpu_load.shape[0] // num_nodes
    group_size = regrouping.logcnt.shape[0] // num_groups
    capacity = num_groups // num_nodes
    held_by = regrouping.held_by
    held_by[:] = 0
    phy2log, first_slot = layer.phy2log, layer.gpus.first_slot
    for n in range(num_nodes):
        for slot in range(first_slot[n * node_gpus], first_slot[(n + 1) * node_gpus]):
            if phy2log[slot] != EMPTY:
                held_by[phy2log[slot] // group_size, n] += 1
    regrouping.home[:] = -1
    regrouping.num_homes[:] = 0
    for k in range(num_groups):  # a group that is whole stays where it is, while there is room
        holders = 0
        node: Int = 0
        for n in range(num_nodes):
            if held_by[k, n] > 0:
                holders += 1
                node = n
        if holders == 1 and regrouping.num_homes[node] < capacity:
            regrouping.home[k] = node
            regrouping.num_homes[node] += 1
    while True:
        most = -1
        group: Int = -1
        node = -1
        for k in range(num_groups):
            if regrouping.home[k] >= 0:
                continue
            for n in range(num_nodes):
                if regrouping.num_homes[n] < capacity and held_by[k, n] > most:
                    most = held_by[k, n]
                    group = k
                    node = n
        if group < 0:
            return
        regrouping.home[group] = node
        regrouping.num_homes[node] += 1


@kernel
def is_scattered(regrouping: Regrouping) -> bool:
    """Whether a group has replicas away from home; `find_homes` must have been called."""
    num_groups, num_nodes = regrouping.held_by.shape
    for k in range(num_groups):
        for n in range(num_nodes):
            if n != regrouping.home[k] and regrouping.held_by[k, n] > 0:
                return True
    return False


@kernel
def empty_foreign_slots(regrouping: Regrouping, layer: LayerPlan) -> None:
    """Empty the slots that hold experts of another node's groups. O(P)."""
    phy2log, first_slot = layer.phy2log, layer.gpus.first_slot
    num_groups, num_nodes = regrouping.held_by.shape
    node_gpus = regrouping.gpu_load.shape[0] // num_nodes
    group_size = regrouping.logcnt.shape[0] // num_groups
    for n in range(num_nodes):
        for slot in range(first_slot[n * node_gpus], first_slot[(n + 1) * node_gpus]):
            e = phy2log[slot]
            if e != EMPTY and regrouping.home[e // group_size] != n:
                phy2log[slot] = EMPTY


@kernel
def weigh_groups_and_nodes(regrouping: Regrouping, layer: LayerPlan) -> None:
    """Compute the loads of groups and nodes. O(E)."""
    weight = layer.weight
    num_groups = regrouping.group_load.shape[0]
    group_size = weight.shape[0] // num_groups
    regrouping.node_load[:] = 0.0
    for k in range(num_groups):
        total = 0.0
        for e in range(k * group_size, (k + 1) * group_size):
            total += weight[e]
        regrouping.group_load[k] = total
        regrouping.node_load[regrouping.home[k]] += total


@kernel
def swap_groups(regrouping: Regrouping, layer: LayerPlan, price: float, tolerated: float) -> None:
    """Swap groups between nodes while that pays for all replicas that must be fetched.

    ``price`` is what one fetch must take off the slowest node's time; a time up to ``tolerated``
    is left unchanged. The slots of each group go to the other one.
    """
    phy2log, gpus, budget = layer.phy2log, layer.gpus, layer.budget
    group_size = layer.weight.shape[0] // regrouping.home.shape[0]
    for _ in range(regrouping.home.shape[0]):
        longest, gain, a, b = _best_group_swap(regrouping)
        if a < 0 or longest <= tolerated or gain <= price * 2 * group_size:
            return
        num_slots = _affordable_slots(regrouping, layer, a, b)
        if num_slots == 0 or gain <= price * num_slots:
            return
        for g in range(gpus.size.shape[0]):
            for slot in range(gpus.first_slot[g], gpus.first_slot[g] + gpus.size[g]):
                if phy2log[slot] != EMPTY and phy2log[slot] // group_size in (a, b):
                    charge(budget, g, 1)
        home = regrouping.home[a]
        away = regrouping.home[b]
        _refill(regrouping, layer, home, a, b)
        _refill(regrouping, layer, away, b, a)
        regrouping.home[a] = away
        regrouping.home[b] = home
        weigh_groups_and_nodes(regrouping, layer)


@kernel
def _best_group_swap(regrouping: Regrouping) -> tuple[float, float, Int, Int]:
    """Find the swap of a group of the slowest node with one elsewhere that gains most.

    Returns the slowest node's time, by how much the swap shortens it, and the two groups; -1 if
    no swap does.
    """
    node_load = regrouping.node_load
    node_speed = regrouping.node_speed
    num_nodes = node_load.shape[0]
    slowest: Int = 0
    for n in range(1, num_nodes):
        if node_load[n] / node_speed[n] > node_load[slowest] / node_speed[slowest]:
            slowest = n
    longest = node_load[slowest] / node_speed[slowest]
    best = longest
    found = (-1, -1)
    for a in range(regrouping.home.shape[0]):
        if regrouping.home[a] != slowest:
            continue
        for b in range(regrouping.home.shape[0]):
            n = regrouping.home[b]
            if n == slowest:
                continue
            excess = regrouping.group_load[a] - regrouping.group_load[b]
            time = max(
                (node_load[slowest] - excess) / node_speed[slowest],
                (node_load[n] + excess) / node_speed[n],
            )
            for other in range(num_nodes):
                if other not in (slowest, n):
                    time = max(time, node_load[other] / node_speed[other])
            if time < best:
                best = time
                found = (a, b)
    return longest, longest - best, found[0], found[1]


@kernel
def _affordable_slots(regrouping: Regrouping, layer: LayerPlan, a: Int, b: Int) -> Int:
    """Count the slots of two groups; 0 if the groups may not swap.

    They may not if one has fewer slots than the other has experts, if the budget does not cover
    both, or if some slots are empty: those are filled first.
    """
    phy2log, gpus, budget = layer.phy2log, layer.gpus, layer.budget
    group_size = regrouping.logcnt.shape[0] // regrouping.home.shape[0]
    slots_of_a = 0
    slots_of_b = 0
    for g in range(gpus.size.shape[0]):
        here = 0
        for slot in range(gpus.first_slot[g], gpus.first_slot[g] + gpus.size[g]):
            if phy2log[slot] == EMPTY:
                return 0
            group = phy2log[slot] // group_size
            slots_of_a += group == a
            slots_of_b += group == b
            here += group in (a, b)
        if here > max(budget.left[g], 0):
            return 0
    if min(slots_of_a, slots_of_b) < group_size or slots_of_a + slots_of_b > total_left(budget):
        return 0
    return slots_of_a + slots_of_b


@kernel
def _refill(
    regrouping: Regrouping, layer: LayerPlan, node: Int, old_group: Int, new_group: Int
) -> None:
    """Give a node's slots of one group to the experts of another.

    Replicas are allocated by Adams' method, from one for each expert on. The heaviest goes to the
    GPU with the least load.
    """
    phy2log, weight = layer.phy2log, layer.weight
    first_slot, size = layer.gpus.first_slot, layer.gpus.size
    group_size = weight.shape[0] // regrouping.home.shape[0]
    node_gpus = size.shape[0] // regrouping.node_load.shape[0]
    first: Int = new_group * group_size
    logcnt = regrouping.logcnt
    placed = regrouping.placed
    gpu_load = regrouping.gpu_load
    logcnt[:] = 0
    for g in range(node * node_gpus, (node + 1) * node_gpus):
        for slot in range(first_slot[g], first_slot[g] + size[g]):
            if phy2log[slot] != EMPTY:
                logcnt[phy2log[slot]] += 1
    num_slots = 0
    for g in range(node * node_gpus, (node + 1) * node_gpus):
        gpu_load[g] = 0.0
        for slot in range(first_slot[g], first_slot[g] + size[g]):
            e = phy2log[slot]
            if e == EMPTY:
                continue
            if e // group_size == old_group:
                phy2log[slot] = EMPTY
                num_slots += 1
            else:
                gpu_load[g] += weight[e] / logcnt[e]
    for e in range(first, first + group_size):
        logcnt[e] = 1
        placed[e] = 0
    for _ in range(num_slots - group_size):
        neediest: Int = first
        for e in range(first + 1, first + group_size):
            if weight[e] * logcnt[neediest] > weight[neediest] * logcnt[e]:
                neediest = e
        logcnt[neediest] += 1
    for _ in range(num_slots):
        heaviest: Int = -1
        for e in range(first, first + group_size):
            if placed[e] < logcnt[e] and (
                heaviest < 0 or weight[e] / logcnt[e] > weight[heaviest] / logcnt[heaviest]
            ):
                heaviest = e
        lightest, opening = _lightest_opening(regrouping, layer, node, heaviest)
        phy2log[opening] = heaviest
        placed[heaviest] += 1
        gpu_load[lightest] += weight[heaviest] / logcnt[heaviest]


@kernel
def _lightest_opening(
    regrouping: Regrouping, layer: LayerPlan, node: Int, e: Int
) -> tuple[Int, Int]:
    """GPU of least load with an empty slot, and that slot; a GPU without expert ``e`` if any."""
    phy2log, first_slot, size = layer.phy2log, layer.gpus.first_slot, layer.gpus.size
    node_gpus = size.shape[0] // regrouping.node_load.shape[0]
    gpu_load = regrouping.gpu_load
    best: Int = -1
    best_slot: Int = -1
    best_holds = True
    for g in range(node * node_gpus, (node + 1) * node_gpus):
        opening: Int = -1
        holds = False
        for slot in range(first_slot[g], first_slot[g] + size[g]):
            if phy2log[slot] == EMPTY and opening < 0:
                opening = slot
            holds = holds or phy2log[slot] == e
        if opening < 0:
            continue
        lighter = best < 0 or (holds == best_holds and gpu_load[g] < gpu_load[best])
        if lighter or (best_holds and not holds):
            best = g
            best_slot = opening
            best_holds = holds
    return best, best_slot
