"""`PlanSummary`: a plan under a load, in a dozen numbers.

Letters: L layers, E logical experts, P slots, D GPUs, N nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np.topology import Topology

SAME = 1e-9
"""Nodes whose times differ by no more than this share of the mean carry the same."""


@dataclass(frozen=True)
class PlanSummary:
    """A plan under a load, in a dozen numbers. Made by `Plan.summary`.

    Parameters
    ----------
    balancedness : float
        GPU balancedness, as `Plan.balancedness`: 1 is perfect.
    at_most : float
        No plan of this topology has a higher one: by `Plan.lower_bound`.
    worst_layer_id : int
        Id of the layer that is balanced worst; of several, the lowest.
    worst_layer_balancedness : float
        Its GPU balancedness.
    node_share : float
        Load of the busiest node over that of the mean node, the mean over layers: 1 is perfect.
        Where GPUs differ in speed or are gone, a node's load over its speed.
    busiest_node : int
        The node that carries the most in most layers; of several, the lowest.
    busiest_node_layers : int
        Layers in which it carries more than any other node. 0 on one node, or if no node does.
    most_replicas, fewest_replicas : int
        Replicas of the expert that has the most, or the fewest, in any layer.
    doubles : int
        Replicas beyond the first of an expert on one GPU, in all layers: weights that a GPU holds
        twice.
    most_slots, fewest_slots : int
        Slots of the GPU that has the most, or the fewest, of those that are active.
    """

    balancedness: float
    at_most: float
    worst_layer_id: int
    worst_layer_balancedness: float
    node_share: float
    busiest_node: int
    busiest_node_layers: int
    most_replicas: int
    fewest_replicas: int
    doubles: int
    most_slots: int
    fewest_slots: int


class Placed(NamedTuple):
    """What a plan places where."""

    phy2log: NDArray[np.signedinteger[Any]]  # [L, P]
    logcnt: NDArray[np.signedinteger[Any]]  # [L, E]
    topology: Topology
    layer_ids: Sequence[int]  # of the L layers


def summarize(
    placed: Placed, gpu_load: NDArray[np.float64], bound: NDArray[np.float64]
) -> PlanSummary:
    """Summarize a plan with these GPU loads [L, D], and a bound [L] on the longest GPU times."""
    topology = placed.topology
    time = (gpu_load * topology.slowness).max(axis=1)
    at_once = gpu_load.sum(axis=1) / topology.active_speed
    by_layer = np.where(time > 0, at_once / np.where(time > 0, time, 1.0), 1.0)
    worst = int(by_layer.argmin())
    share, busiest, busiest_layers = _nodes(gpu_load, topology)
    slots = topology.active_slots[topology.active_slots > 0]
    return PlanSummary(
        balancedness=_ratio(at_once, time),
        at_most=_ratio(at_once, bound),
        worst_layer_id=placed.layer_ids[worst],
        worst_layer_balancedness=float(by_layer[worst]),
        node_share=share,
        busiest_node=busiest,
        busiest_node_layers=busiest_layers,
        most_replicas=int(placed.logcnt.max()),
        fewest_replicas=int(placed.logcnt.min()),
        doubles=count_doubles(placed.phy2log, topology),
        most_slots=int(slots.max()),
        fewest_slots=int(slots.min()),
    )


def count_doubles(phy2log: NDArray[np.signedinteger[Any]], topology: Topology) -> int:
    """Count the replicas [L, P] beyond the first of an expert on one GPU."""
    place = np.arange(len(phy2log))[:, None] * topology.num_gpus + topology.gpu_of_slot
    held = (place * topology.num_experts + phy2log)[phy2log >= 0]
    return int(held.size - np.unique(held).size)


def _ratio(mean: NDArray[np.float64], most: NDArray[np.float64]) -> float:
    total = float(most.sum())
    return float(mean.sum()) / total if total > 0 else 1.0


def _nodes(gpu_load: NDArray[np.float64], topology: Topology) -> tuple[float, int, int]:
    """Share of the busiest node, which node that mostly is, and in how many layers."""
    speed = np.where(topology.active_slots > 0, 1.0 / topology.slowness, 0.0)
    node_speed = speed.reshape(topology.num_nodes, -1).sum(axis=1)
    load = gpu_load.reshape(len(gpu_load), topology.num_nodes, -1).sum(axis=2)
    time = load / np.where(node_speed > 0, node_speed, 1.0)  # no load where all GPUs are gone
    mean = load.sum(axis=1) / topology.active_speed
    loaded = mean > 0
    share = time[loaded].max(axis=1) / mean[loaded]
    alone = (time >= (time.max(axis=1) - SAME * mean)[:, None]).sum(axis=1) == 1
    alone &= topology.num_nodes > 1
    layers = np.bincount(time[loaded & alone].argmax(axis=1), minlength=topology.num_nodes)
    busiest = int(layers.argmax())
    return float(share.mean()) if share.size else 1.0, busiest, int(layers[busiest])
