"""Named ways to make a plan, each a short composition of stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from eplb_np._threads import choose_num_threads, for_each_block
from eplb_np.topology import Topology

Policy = Literal["hybrid", "deepseek", "refined"]
Device = Literal["cpu", "cuda"]


class Maps(NamedTuple):
    """What every policy makes: the experts in the slots, their ranks, the counts."""

    phy2log: NDArray[Any]
    phyrank: NDArray[Any]
    logcnt: NDArray[Any]


def check_policy(policy: str, topology: Topology | None = None) -> None:
    """Raise ``ValueError`` for an unknown policy, or one that cannot plan for the topology."""
    if policy not in get_args(Policy):
        known = ", ".join(repr(name) for name in get_args(Policy))
        raise ValueError(f"policy={policy!r} is unknown: give one of {known}")
    if topology is not None and policy != "refined":
        topology.check_plain(policy)


def make_maps(
    weight: NDArray[np.float32], topology: Topology, policy: str, num_threads: int | None = None
) -> Maps:
    """Plan checked loads ``weight`` [L, E]; groups are kept together as ``topology`` says."""
    num_layers, num_experts = weight.shape
    num_replicas = topology.num_replicas
    num_groups, num_nodes = topology.packed_groups_and_nodes
    phy2log = np.empty((num_layers, num_replicas), np.int64)
    phyrank = np.empty((num_layers, num_replicas), np.int64)
    logcnt = np.empty((num_layers, num_experts), np.int64)

    plan_rows: Callable[..., None]
    options: tuple[Any, ...]
    if policy == "refined":
        from eplb_np.kernels.refined import refine_layers as plan_rows

        options = topology.first_slots, topology.active_slots, topology.slowness
    else:
        from eplb_np.kernels import hierarchy, lockstep

        gpu_slots = num_replicas // topology.num_gpus
        in_lockstep = lockstep.pays(num_layers * num_nodes, num_experts // num_nodes, gpu_slots)
        plan_rows = lockstep.plan_layers_in_lockstep if in_lockstep else hierarchy.plan_layers
        options = topology.num_gpus, policy == "hybrid"

    def plan(start: int, stop: int) -> None:
        plan_rows(
            weight[start:stop], num_groups, num_nodes, *options,
            phy2log[start:stop], phyrank[start:stop], logcnt[start:stop],
        )  # fmt: skip

    threads = choose_num_threads(num_threads, num_layers, num_replicas)
    for_each_block(plan, num_layers, num_replicas, threads)
    return Maps(phy2log, phyrank, logcnt)


def log2phy_width(topology: Topology, policy: str, logcnt: NDArray[np.integer]) -> int:
    """Length of ``log2phy``'s last axis, as the published programs have it.

    The hybrid one leaves room for an expert that takes every redundant slot, the others for the
    expert with most replicas.
    """
    if policy == "hybrid":
        return topology.num_replicas - topology.num_experts + 1
    return int(logcnt.max())


def make_log2phy(
    phy2log: NDArray[np.int64], phyrank: NDArray[np.int64], num_experts: int, width: int
) -> NDArray[np.int64]:
    """Slot of each replica of each expert, [L, E, width] int64, -1 where there is none."""
    from eplb_np.kernels.hierarchy import fill_log2phy

    log2phy = np.empty((phy2log.shape[0], num_experts, width), np.int64)
    log2phy.view(np.uint8).fill(0xFF)  # NO_SLOT is all ones; np.full takes 1.7 times as long
    fill_log2phy(phy2log, phyrank, log2phy)
    return log2phy


NO_SLOT = -1
"""What ``log2phy`` holds where an expert has no further replica."""
