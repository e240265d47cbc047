"""`PlanSummary`: a plan under a load, in a dozen numbers; and a plan as tables.

Letters: L layers, E logical experts, P slots, D GPUs, N nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._notebook import grid_html, rows_html, said_ids
from eplb_np.topology import Topology

SAME = 1e-9
"""Nodes whose times differ by no more than this share of the mean carry the same."""

SHOWN_LAYERS = 4
SHOWN_GPUS = 8
SHOWN_SLOTS = 12
"""Of how many layers and GPUs, and slots of each, a notebook shows the experts."""


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
    duplicates : int
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
    duplicates: int
    most_slots: int
    fewest_slots: int

    def _repr_html_(self) -> str:
        rows = {
            "GPU balancedness": f"{self.balancedness:.4f}, at most {self.at_most:.4f} for any plan",
            "worst layer": f"{self.worst_layer_id}, at {self.worst_layer_balancedness:.4f}",
            "busiest node": f"{self.node_share:.4f} times the load of the mean node",
            "replicas of an expert": f"{self.fewest_replicas} to {self.most_replicas}",
            "duplicates": said_duplicates(self.duplicates),
            "slots of a GPU": f"{self.fewest_slots} to {self.most_slots}",
        }
        if self.busiest_node_layers:
            rows["busiest node"] += (
                f"; node {self.busiest_node} in {self.busiest_node_layers} layers"
            )
        return rows_html("Summary of a plan", rows)


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
        duplicates=count_duplicates(placed.phy2log, topology),
        most_slots=int(slots.max()),
        fewest_slots=int(slots.min()),
    )


def count_duplicates(phy2log: NDArray[np.signedinteger[Any]], topology: Topology) -> int:
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


def plan_html(placed: Placed, policy: str) -> str:
    """Write what a notebook shows of a plan: its sizes, and the experts of its first slots."""
    topology, logcnt, ids = placed.topology, placed.logcnt, placed.layer_ids
    rows = {
        "layers": f"{len(ids)}, ids {said_ids(ids)}",
        "experts": f"{topology.num_experts} in {topology.num_replicas} slots of each layer",
        "GPUs": f"{topology.num_gpus} on {topology.num_nodes} nodes",
        "policy": f"{policy}, {topology.placement} placement",
        "replicas of an expert": f"{logcnt.min()} to {logcnt.max()}",
        "duplicates": said_duplicates(count_duplicates(placed.phy2log, topology)),
    }
    gpus = range(min(topology.num_gpus, SHOWN_GPUS))
    slots = [range(*topology.first_slots[gpu : gpu + 2].tolist()) for gpu in gpus]
    shown = zip(ids[:SHOWN_LAYERS], placed.phy2log, strict=False)
    return rows_html("Plan", rows) + grid_html(
        "Experts in the slots of the first layers and GPUs",
        ["layer", *(f"GPU {gpu}" for gpu in gpus)],
        ([layer, *(_said_experts(row, part) for part in slots)] for layer, row in shown),
    )


def said_duplicates(duplicates: int) -> str:
    """Say how many replicas are beyond the first of their expert on a GPU."""
    return f"{duplicates} replica{'' if duplicates == 1 else 's'} beyond the first on a GPU"


def _said_experts(row: NDArray[np.signedinteger[Any]], slots: range) -> str:
    experts = [str(row[slot]) if row[slot] >= 0 else "-" for slot in slots[:SHOWN_SLOTS]]
    return " ".join(experts) + (" ..." if len(slots) > SHOWN_SLOTS else "")


def slot_columns(
    placed: Placed, phyrank: NDArray[np.signedinteger[Any]]
) -> dict[str, NDArray[Any]]:
    """Return what is in each slot of each layer, as columns of L P entries."""
    num_layers, num_slots = phyrank.shape
    gpu = placed.topology.gpu_of_slot
    return {
        "layer_id": np.repeat(placed.layer_ids, num_slots),
        "slot": np.tile(np.arange(num_slots), num_layers),
        "gpu": np.tile(gpu, num_layers),
        "node": np.tile(gpu // placed.topology.gpus_per_node, num_layers),
        "expert": placed.phy2log.ravel(),
        "rank": phyrank.ravel(),
    }
