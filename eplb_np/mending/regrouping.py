"""Regrouping: groups go back to their nodes, over several proposals if the budget is too small.

Placement becomes hierarchical when GPUs come back, while the plan in use has replicas anywhere. A
replica on another node than its group's home is *foreign*. It stays, and serves, until its slot is
refilled. An expert that only has foreign replicas is *displaced*.

Fetches bring replicas home: first into empty slots, then into those of foreign and redundant
replicas; first of displaced experts, then of any. The last replica of an expert is overwritten
only in an exchange of two displaced experts, of which at least one comes home.

Letters: L layers, E logical experts, P slots, G groups, N nodes, D GPUs.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.arrays import doubles, ints
from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.maps.maps import EMPTY
from eplb_np.mending.budget import Budget, charge, may_fetch, total_left
from eplb_np.mending.group_swaps import (
    SCATTERED,
    Regrouping,
    empty_foreign_slots,
    find_homes,
    is_scattered,
    make_regrouping,
)
from eplb_np.mending.layer_plan import LayerPlan, layer_time, node_speeds, scale_loads
from eplb_np.mending.node import Node, make_node, read_node, write_node
from eplb_np.mending.repair import LAST_RESORT, fill_empty_slots, place_lost_experts
from eplb_np.topology import Gpus


@entry
def regroup_layers(
    load: Doubles,
    num_groups: Int,
    num_nodes: Int,
    gpus: Gpus,
    budget: Ints,
    phy2log: Ints,
    excess: Doubles,
) -> None:
    """Bring the groups of the layers home that `repair_layers` has left, within the budget.

    Those layers have an ``excess`` of `SCATTERED`; the arguments are those of `repair_layers`.
    Lost experts are placed first, in all layers, and only they may exceed the budget. Then each
    layer in turn is regrouped: at once if the budget allows it, else as far as it goes. Out:
    ``excess``, 0 for layers that are not regrouped yet, as those are not mended.
    """
    num_layers, num_experts = load.shape
    num_gpus = gpus.size.shape[0]
    regrouping = make_regrouping(num_groups, num_nodes, num_gpus, num_experts)
    node = make_node(num_experts, num_nodes, gpus)
    weight, logcnt = doubles(num_experts), ints(num_experts)
    saved, fetches = ints(phy2log.shape[1]), Budget(budget, ints(num_gpus + 1))
    for lost_only in (True, False):
        for i in range(num_layers):
            if excess[i] != SCATTERED:
                continue
            layer = LayerPlan(phy2log[i], saved, weight, logcnt, gpus, fetches)
            unit = scale_loads(load[i], node_speeds(gpus, regrouping.node_speed), weight)
            find_homes(regrouping, layer)
            if lost_only:
                _place_lost_experts(regrouping, layer)
                continue
            _regroup(regrouping, layer, node)
            find_homes(regrouping, layer)
            excess[i] = 0.0
            if not is_scattered(regrouping):
                excess[i] = max(layer_time(layer) - 1.0, 0.0) / unit


@kernel
def _regroup(regrouping: Regrouping, layer: LayerPlan, node: Node) -> None:
    """Bring the groups of a layer home, at once or step by step.

    Step by step, nothing is overwritten while slots are empty: a layer whose groups are home but
    whose GPU is not filled yet is much worse balanced than one that waits for its turn.
    """
    _count_replicas(regrouping, layer)
    if not _fits(regrouping, layer):
        for overwrite in (False, True):
            if overwrite and _has_empty_slot(layer):
                return
            _bring_displaced_home(regrouping, layer, overwrite)
            _refill(regrouping, layer, overwrite)
        return
    empty_foreign_slots(regrouping, layer)
    for n in range(regrouping.node_load.shape[0]):
        read_node(node, n, layer, regrouping.home)
        place_lost_experts(node.table, node.budget)
        fill_empty_slots(node.table, node.budget)
        write_node(node, n, layer)


@kernel
def _count_replicas(regrouping: Regrouping, layer: LayerPlan) -> None:
    """Count each expert's replicas, and those at home, and add up the GPU loads. O(P)."""
    phy2log, weight, first_slot = layer.phy2log, layer.weight, layer.gpus.first_slot
    logcnt, at_home, gpu_load = regrouping.logcnt, regrouping.placed, regrouping.gpu_load
    logcnt[:] = 0
    at_home[:] = 0
    for g in range(gpu_load.shape[0]):
        for slot in range(first_slot[g], first_slot[g + 1]):
            e = phy2log[slot]
            if e != EMPTY:
                logcnt[e] += 1
                at_home[e] += not _is_foreign(regrouping, e, g)
    for g in range(gpu_load.shape[0]):
        gpu_load[g] = 0.0
        for slot in range(first_slot[g], first_slot[g + 1]):
            e = phy2log[slot]
            if e != EMPTY:
                gpu_load[g] += weight[e] / logcnt[e]


@kernel
def _has_empty_slot(layer: LayerPlan) -> bool:
    """Whether a GPU that is there has an empty slot."""
    gpus = layer.gpus
    for g in range(gpus.size.shape[0]):
        for slot in range(gpus.first_slot[g], gpus.first_slot[g] + gpus.size[g]):
            if layer.phy2log[slot] == EMPTY:
                return True
    return False


@kernel
def _home(regrouping: Regrouping, e: Int) -> Int:
    """Home node of an expert's group."""
    group_size = regrouping.logcnt.shape[0] // regrouping.home.shape[0]
    node: Int = regrouping.home[e // group_size]
    return node


@kernel
def _is_foreign(regrouping: Regrouping, e: Int, g: Int) -> bool:
    """Whether GPU g is on another node than the home of expert ``e``."""
    node_gpus = regrouping.gpu_load.shape[0] // regrouping.node_load.shape[0]
    return bool(_home(regrouping, e) != g // node_gpus)


@kernel
def _fits(regrouping: Regrouping, layer: LayerPlan) -> bool:
    """Whether every GPU may refill all its foreign and empty slots now.

    If a node lacks more experts than it has such slots, redundant replicas have to go as well. It
    is not known on which GPUs, so each must be able to fetch that many more.
    """
    phy2log, gpus, left = layer.phy2log, layer.gpus, layer.budget.left
    num_nodes = regrouping.node_load.shape[0]
    node_gpus = gpus.size.shape[0] // num_nodes
    total: Int = 0
    for n in range(num_nodes):
        beyond: Int = 0  # experts that the node lacks, less the slots for them
        for e in range(regrouping.logcnt.shape[0]):
            beyond += _home(regrouping, e) == n and regrouping.placed[e] == 0
        for g in range(n * node_gpus, (n + 1) * node_gpus):
            for slot in range(gpus.first_slot[g], gpus.first_slot[g] + gpus.size[g]):
                e = phy2log[slot]
                if e == EMPTY or _is_foreign(regrouping, e, g):
                    beyond -= 1
                    total += 1
        beyond = max(beyond, 0)
        total += beyond
        for g in range(n * node_gpus, (n + 1) * node_gpus):
            needed = beyond
            for slot in range(gpus.first_slot[g], gpus.first_slot[g] + gpus.size[g]):
                e = phy2log[slot]
                needed += e == EMPTY or _is_foreign(regrouping, e, g)
            if gpus.size[g] > 0 and needed > max(left[g], 0):
                return False
    return bool(total <= max(total_left(layer.budget), 0))


@kernel
def _put(regrouping: Regrouping, layer: LayerPlan, e: Int, slot: Int, g: Int) -> None:
    """Let GPU g fetch expert ``e`` into a slot."""
    layer.phy2log[slot] = e
    charge(layer.budget, g, 1)
    _count_replicas(regrouping, layer)


@kernel
def _place_lost_experts(regrouping: Regrouping, layer: LayerPlan) -> None:
    """Place every expert that has no replica, the heaviest first.

    At home if possible. If the budget leaves no slot there, elsewhere; if it leaves none at all,
    the budget is exceeded. A layer has a slot for every expert, so while one is lost, some slot is
    empty or redundant.
    """
    num_nodes = regrouping.node_load.shape[0]
    _count_replicas(regrouping, layer)
    while True:
        lost: Int = -1
        for e in range(layer.weight.shape[0]):
            if regrouping.logcnt[e] == 0 and (lost < 0 or layer.weight[e] > layer.weight[lost]):
                lost = e
        if lost < 0:
            return
        home = _home(regrouping, lost)
        slot: Int = -1
        g: Int = -1
        for choice in range(4):
            first, end = (home, home + 1) if choice % 2 == 0 else (0, num_nodes)
            slot, g = _best_opening(regrouping, layer, first, end, choice < 2)
            if slot >= 0:
                break
        if slot < 0:
            return
        _put(regrouping, layer, lost, slot, g)


@kernel
def _best_opening(
    regrouping: Regrouping, layer: LayerPlan, first_node: Int, end_node: Int, affordable: bool
) -> tuple[Int, Int]:
    """Find a slot for an expert that these nodes do not hold, and its GPU; -1 if there is none.

    An empty slot if there is one; else that of a foreign replica, on the GPU that ends soonest
    without it; else that of a redundant replica, of the expert whose other replicas stay lightest.
    Only on GPUs that may still fetch, if it must be ``affordable``.
    """
    phy2log, weight, gpus = layer.phy2log, layer.weight, layer.gpus
    node_gpus = gpus.size.shape[0] // regrouping.node_load.shape[0]
    best = np.inf
    found: Int = -1
    found_gpu: Int = -1
    for g in range(first_node * node_gpus, end_node * node_gpus):
        if affordable and not may_fetch(layer.budget, g):
            continue
        for slot in range(gpus.first_slot[g], gpus.first_slot[g] + gpus.size[g]):
            e = phy2log[slot]
            if e == EMPTY:
                cost = regrouping.gpu_load[g] * gpus.slowness[g] - LAST_RESORT
            elif _is_foreign(regrouping, e, g):
                if regrouping.logcnt[e] < 2:
                    continue
                cost = regrouping.gpu_load[g] - weight[e] / regrouping.logcnt[e]
                cost *= gpus.slowness[g]
            else:
                if regrouping.placed[e] < 2:
                    continue
                cost = weight[e] / (regrouping.logcnt[e] - 1) + LAST_RESORT
            if cost < best or found < 0:
                best = cost
                found = slot
                found_gpu = g
    return found, found_gpu


@kernel
def _bring_displaced_home(regrouping: Regrouping, layer: LayerPlan, overwrite: bool) -> None:
    """Give displaced experts a replica at home while the budget lasts, the heaviest first.

    Into empty slots, or else, to ``overwrite``, into those of other replicas.
    """
    weight = layer.weight
    tried = layer.logcnt
    tried[:] = 0
    while total_left(layer.budget) > 0:
        e: Int = -1
        for other in range(weight.shape[0]):
            displaced = regrouping.placed[other] == 0 and regrouping.logcnt[other] > 0
            if displaced and not tried[other] and (e < 0 or weight[other] > weight[e]):
                e = other
        if e < 0:
            return
        home = _home(regrouping, e)
        tried[e] = 1
        slot, g = _best_opening(regrouping, layer, home, home + 1, True)
        if slot >= 0 and (overwrite or layer.phy2log[slot] == EMPTY):
            _put(regrouping, layer, e, slot, g)
            tried[:] = 0  # replicas elsewhere may be overwritten now
            continue
        if not overwrite:
            continue
        slot, g = _best_opening(regrouping, layer, home, home + 1, False)
        if slot < 0 and _exchange(regrouping, layer, e):
            tried[:] = 0


@kernel
def _exchange(regrouping: Regrouping, layer: LayerPlan, e: Int) -> bool:
    """Exchange a displaced expert with one on its home node, if the budget allows two fetches.

    If possible, the other one is at home where this one is. Returns whether they were exchanged.
    """
    phy2log, gpus, budget = layer.phy2log, layer.gpus, layer.budget
    node_gpus = gpus.size.shape[0] // regrouping.node_load.shape[0]
    if total_left(budget) < 2:
        return False
    home = _home(regrouping, e)
    slot: Int = -1
    gpu: Int = -1
    other_slot: Int = -1
    other_gpu: Int = -1
    comes_home = False
    for g in range(gpus.size.shape[0]):
        if not may_fetch(budget, g):
            continue
        for s in range(gpus.first_slot[g], gpus.first_slot[g] + gpus.size[g]):
            if phy2log[s] != e:
                continue
            for k in range(home * node_gpus, (home + 1) * node_gpus):
                if not may_fetch(budget, k):
                    continue
                for t in range(gpus.first_slot[k], gpus.first_slot[k] + gpus.size[k]):
                    b = phy2log[t]
                    if b == EMPTY or not _is_foreign(regrouping, b, k):
                        continue
                    both = not _is_foreign(regrouping, b, g)
                    if slot < 0 or (both and not comes_home):
                        slot, gpu, other_slot, other_gpu, comes_home = s, g, t, k, both
    if slot < 0:
        return False
    b = phy2log[other_slot]
    _put(regrouping, layer, e, other_slot, other_gpu)
    _put(regrouping, layer, b, slot, gpu)
    return True


@kernel
def _refill(regrouping: Regrouping, layer: LayerPlan, overwrite: bool) -> None:
    """Fill slots with replicas of experts at home there, while the budget lasts.

    The empty slots, or else, to ``overwrite``, those of foreign replicas.
    """
    phy2log, gpus = layer.phy2log, layer.gpus
    for g in range(gpus.size.shape[0]):
        for slot in range(gpus.first_slot[g], gpus.first_slot[g] + gpus.size[g]):
            if not may_fetch(layer.budget, g):
                break
            e = phy2log[slot]
            if e == EMPTY:
                refill = not overwrite
            else:
                refill = overwrite and _is_foreign(regrouping, e, g) and regrouping.logcnt[e] > 1
            if refill:
                _put(regrouping, layer, _neediest(regrouping, layer, slot, g), slot, g)


@kernel
def _neediest(regrouping: Regrouping, layer: LayerPlan, slot: Int, g: Int) -> Int:
    """Choose an expert for a slot as `fill_empty_slots` does.

    Of the experts at home there that GPU g does not hold, the one with the heaviest replicas of
    those that do not make g the slowest GPU; else the one that adds least.
    """
    phy2log, weight, gpus = layer.phy2log, layer.weight, layer.gpus
    logcnt, gpu_load = regrouping.logcnt, regrouping.gpu_load
    longest = 0.0
    for k in range(gpu_load.shape[0]):
        longest = max(longest, gpu_load[k] * gpus.slowness[k])
    room = longest / gpus.slowness[g] - gpu_load[g]
    old = phy2log[slot]
    if old != EMPTY:
        room += weight[old] / logcnt[old]
    heaviest = -1.0
    neediest: Int = -1
    least = np.inf
    lightest: Int = -1
    for e in range(weight.shape[0]):
        if _is_foreign(regrouping, e, g):
            continue
        holds = False
        for s in range(gpus.first_slot[g], gpus.first_slot[g] + gpus.size[g]):
            holds = holds or phy2log[s] == e
        load = weight[e] / max(logcnt[e], 1)
        added = weight[e] / (logcnt[e] + 1)
        if not holds and added <= room and load > heaviest:
            heaviest = load
            neediest = e
        added += LAST_RESORT if holds else 0.0
        if lightest < 0 or added < least:
            least = added
            lightest = e
    return neediest if neediest >= 0 else lightest
