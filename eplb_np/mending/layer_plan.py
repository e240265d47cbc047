"""One layer while it is mended: its plan, its loads, and the fetches that are left.

Letters: E logical experts, P slots, D GPUs.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.maps.maps import EMPTY
from eplb_np.mending.budget import Budget, restore_budget, save_budget
from eplb_np.topology import Gpus


class LayerPlan(NamedTuple):
    """The plan of a layer, and what it is planned for."""

    phy2log: Ints  # [P] int64, logical expert in each slot
    saved: Ints  # [P] int64, the same at the last `save_layer`
    weight: Doubles  # [E] float64, expected loads in units of the mean GPU time
    logcnt: Ints  # [E] int64, scratch
    gpus: Gpus
    budget: Budget


@kernel
def scale_loads(load: Doubles, speed: float, weight: Doubles) -> float:
    """Convert loads to units of the mean GPU time; returns one unit of load in those.

    ``load`` [E] float64; ``speed`` that of all active GPUs together; out: ``weight`` [E] float64.
    """
    total = 0.0
    for e in range(load.shape[0]):
        total += load[e]
    unit = speed / total if total > 0.0 else 1.0
    for e in range(load.shape[0]):
        weight[e] = load[e] * unit
    return unit


@kernel
def count_active(gpus: Gpus) -> Int:
    """Count the GPUs that have slots and are not gone."""
    active = 0
    for g in range(gpus.size.shape[0]):
        if gpus.size[g] > 0:
            active += 1
    return active


@kernel
def layer_time(layer: LayerPlan) -> float:
    """Longest GPU time of a layer, without any allowance for noise."""
    phy2log, gpus, logcnt = layer.phy2log, layer.gpus, layer.logcnt
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
                total += layer.weight[e] / logcnt[e]
        longest = max(longest, total * gpus.slowness[g])
    return float(longest)


@kernel
def save_layer(layer: LayerPlan) -> None:
    """Remember the plan and the budget as they are now."""
    for slot in range(layer.phy2log.shape[0]):
        layer.saved[slot] = layer.phy2log[slot]
    save_budget(layer.budget)


@kernel
def restore_layer(layer: LayerPlan) -> None:
    """Go back to the plan and the budget of the last `save_layer`."""
    for slot in range(layer.phy2log.shape[0]):
        layer.phy2log[slot] = layer.saved[slot]
    restore_budget(layer.budget)


@kernel
def node_speeds(gpus: Gpus, speed: Doubles) -> float:
    """Sum the speeds of each node's active GPUs into ``speed`` [N]; returns the sum of all."""
    num_nodes = speed.shape[0]
    node_gpus = gpus.size.shape[0] // num_nodes
    total = 0.0
    for n in range(num_nodes):
        speed[n] = 0.0
        for g in range(n * node_gpus, (n + 1) * node_gpus):
            if gpus.size[g] > 0:
                speed[n] += 1.0 / gpus.slowness[g]
        total += speed[n]
    return total
