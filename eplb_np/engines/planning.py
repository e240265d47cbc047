"""The plan that an engine asks for: of what it hands over and of nothing else.

In most engines each rank plans for itself, and nothing is compared afterwards. So a plan here is a
function of its arguments: the same bytes on every machine, whatever a process has planned before.

Letters: W windows, L layers, E logical experts, P slots.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import as_size, check_multiple
from eplb_np._loads.host import as_array, as_history
from eplb_np.maps.maps import EMPTY, count_replicas, rank_by_slots
from eplb_np.mending.limits import NO_LIMITS, MoveLimits
from eplb_np.plan import Plan
from eplb_np.planning import Wanted, expect, plan_next
from eplb_np.policies import PlannedSplit
from eplb_np.topology import Topology

FEW_TOKENS = 10_000
"""Of a layer: windows of so many are as noisy as mending assumes where it knows nothing."""


class Wishes(NamedTuple):
    """What a user wants of the plans, the same on every rank."""

    limits: MoveLimits = NO_LIMITS
    split: PlannedSplit = "even"


def topology_for(
    num_experts: int, num_replicas: int, num_gpus: int, num_nodes: int = 1, num_groups: int = 1
) -> Topology:
    """Return the sizes as engines mean them: what does not divide is left out, not refused.

    Nodes that do not divide the GPUs, and groups that do not divide the experts, count as one.
    Raises ``ValueError`` unless all GPUs have the same number of slots, as engines assume.
    """
    gpus, slots = as_size("num_gpus", num_gpus), as_size("num_replicas", num_replicas)
    check_multiple("num_replicas", slots, "num_gpus", gpus, least=num_experts)
    nodes, groups = as_size("num_nodes", num_nodes), as_size("num_groups", num_groups)
    return Topology(
        num_experts, slots, gpus,
        nodes if gpus % nodes == 0 else 1,
        groups if num_experts % groups == 0 else 1,
    )  # fmt: skip


def plan_for(load: ArrayLike, topology: Topology, in_use: ArrayLike | None, wishes: Wishes) -> Plan:
    """Plan from loads [W, L, E], or [L, E], oldest window first.

    With the map in use [L, P'], it is changed only where that pays. Of a map that is wider, as
    before GPUs were taken away, the first slots count; a narrower one is of the first slots.
    Ids out of range, as -1, are empty slots. A map of other layers is no help, and all is planned
    from scratch. Where loads tell nothing, a map in use that holds every expert stays as it is.
    """
    history = as_history(load, "the load")
    num_layers = history.shape[1]
    slots = None if in_use is None else _as_slots(in_use, num_layers, topology)
    wanted = Wanted(
        topology, "refined",
        # Engines want every slot filled, so a map with empty slots is filled whatever that takes.
        wishes.limits if slots is not None and (slots >= 0).all() else NO_LIMITS,
        np.dtype(np.int64), tuple(range(num_layers)), wishes.split,
    )  # fmt: skip
    if slots is not None and _tells_nothing(history) and _is_complete(slots, topology):
        return Plan(slots, rank_by_slots(slots), topology, "in use")
    served = history[history.any(axis=(1, 2))]
    if not len(served):
        served = np.ones_like(history[:1])
    expected = expect(served, mends=slots is not None, split=wishes.split)
    if len(served) == 1:
        expected = expected._replace(noise=_noise_of_counts(served[0]))
    return plan_next(expected, slots, wanted)


def _noise_of_counts(load: NDArray[np.float32]) -> float:
    """Noise of a window [L, E] and of the next one; 0, which is unknown, if it is no count of many.

    A single window does not show its noise. But the share of an expert in T tokens varies by share
    / T. A plan then follows what so many tokens say; of few, mending assumes less noise than this.
    """
    tokens = float(load.sum(dtype=np.float64)) / len(load)  # exact, in whatever order it is summed
    if tokens < FEW_TOKENS or (load != np.floor(load)).any():
        return 0.0
    return 2.0 / tokens


def _tells_nothing(history: NDArray[np.float32]) -> bool:
    """Whether all experts of a layer have the same load, as in the runs before serving begins."""
    return bool((history == history[:, :, :1]).all())


def _is_complete(slots: NDArray[np.int64], topology: Topology) -> bool:
    return bool((slots >= 0).all() and count_replicas(slots, topology.num_experts).all())


def _as_slots(in_use: ArrayLike, num_layers: int, topology: Topology) -> NDArray[np.int64] | None:
    """Return a map as [L, P], with empty slots where it says nothing; None if it is no help."""
    given: NDArray[Any] = as_array(in_use, "the map in use")
    if given.ndim != 2 or len(given) != num_layers or given.dtype.kind not in "iu":
        return None
    slots = np.full((num_layers, topology.num_replicas), EMPTY)
    width = min(given.shape[1], topology.num_replicas)
    slots[:, :width] = given[:, :width]
    slots[(slots < 0) | (slots >= topology.num_experts)] = EMPTY
    return slots
