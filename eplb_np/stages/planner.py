"""The published policies on the CPU: choose a form of the stages, plan in blocks of layers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eplb_np._numba.threads import choose_num_threads, for_each_block
from eplb_np.maps.maps import Maps, empty_maps
from eplb_np.topology import Topology

IS_HYBRID = {"hybrid": True, "deepseek": False}
"""Whether a published policy has the Sainte-Lague tail, the fix-up and the refinement."""


def make_maps(
    weight: NDArray[np.float32], topology: Topology, policy: str, num_threads: int | None = None
) -> Maps:
    """Plan checked loads ``weight`` [L, E]."""
    from eplb_np.stages.hierarchy.cpu import plan_layers
    from eplb_np.stages.hierarchy.simd import pays, plan_layers_in_lockstep

    num_layers, num_experts = weight.shape
    num_replicas = topology.num_replicas
    num_groups, num_nodes = topology.packed_groups_and_nodes
    gpu_slots = num_replicas // topology.num_gpus
    in_batches = pays(num_layers * num_nodes, num_experts // num_nodes, gpu_slots)
    plan_rows = plan_layers_in_lockstep if in_batches else plan_layers
    maps = empty_maps(num_layers, topology)

    def plan(start: int, stop: int) -> None:
        plan_rows(
            weight[start:stop], num_groups, num_nodes, topology.num_gpus, IS_HYBRID[policy],
            *(array[start:stop] for array in maps),
        )  # fmt: skip

    threads = choose_num_threads(num_threads, num_layers, num_replicas)
    for_each_block(plan, num_layers, num_replicas, threads)
    return maps
