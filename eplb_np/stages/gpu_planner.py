"""The published policies on the GPU: from loads there to maps there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from eplb_np._cuda.arrays import output_arrays, to_host
from eplb_np._cuda.device import device_errors, numba_cuda, require_device
from eplb_np._cuda.launch import Forms, choose_threads, configured, launch
from eplb_np._loads.device import DeviceLoads
from eplb_np.maps.maps import Maps
from eplb_np.stages.planner import IS_HYBRID
from eplb_np.topology import Topology


def make_maps(
    weight: NDArray[np.float32], topology: Topology, policy: str, num_threads: int | None = None
) -> Maps:
    """Plan checked loads from the host [L, E] on the GPU; the maps come back to the host."""
    cuda = require_device()
    with device_errors():
        loads = DeviceLoads(cuda.to_device(weight), 0, None, "load", "experts")
        maps = plan_slots(loads, topology, policy)
        return Maps(*(to_host(array, 0) for array in maps))


def plan_slots(
    loads: DeviceLoads,
    topology: Topology,
    policy: str,
    dtype: DTypeLike = np.int64,
    scratch: Any = None,
    out: Sequence[Any] | None = None,
) -> Maps:
    """Plan on the GPU; the maps stay there."""
    from eplb_np.stages.cuda_kernels import PLAN_SLOTS

    num_layers, num_experts = loads.weight.shape
    slots = num_layers, topology.num_replicas
    shapes = {
        "phy2log": slots, "phyrank": slots, "logcnt": (num_layers, num_experts),
    }  # fmt: skip
    maps = Maps(*output_arrays(shapes, dtype, out, loads.stream))
    launch_plan(PLAN_SLOTS, loads, topology, policy, scratch, maps)
    return maps


def launch_plan(
    forms: Forms,
    loads: DeviceLoads,
    topology: Topology,
    policy: str,
    scratch: Any,
    results: tuple[Any, ...],
) -> None:
    """Launch one of the planning kernels, which writes to ``results``."""
    from eplb_np.stages.cuda_scratch import count_bits, scratch_bytes
    from eplb_np.stages.hierarchy.cuda import PlanSizes
    from eplb_np.stages.replication.decisions import tail_length

    num_layers, num_experts = loads.weight.shape
    num_groups, num_nodes = topology.packed_groups_and_nodes
    node_experts = num_experts // num_nodes
    node_replicas = topology.num_replicas // num_nodes
    num_extra = node_replicas - node_experts
    hybrid = IS_HYBRID[policy]
    num_tail = int(tail_length(num_extra)) if hybrid else 0
    num_items = max(node_replicas, num_groups)
    threads = choose_threads(num_items)
    num_bytes, room = scratch_bytes(num_experts, node_experts, node_replicas, num_items, threads)
    shift = count_bits(node_experts, node_replicas)
    sizes = PlanSizes(num_groups, num_nodes, topology.num_gpus, hybrid, num_tail, shift, room)
    args = loads.weight, sizes, *results
    launch(forms, (num_layers, num_nodes), threads, num_bytes, loads.stream, scratch, args)


def log2phy_of_counts(maps: Maps, loads: DeviceLoads) -> Any:
    """``log2phy`` as wide as the largest count; the host waits for the counts."""
    from eplb_np.maps.cuda import fill_log2phy

    num_layers, num_experts = loads.weight.shape
    width = int(to_host(maps.logcnt, loads.stream).max())
    shape = num_layers, num_experts, width
    log2phy = numba_cuda().device_array(shape, maps.phy2log.dtype, stream=loads.stream)
    threads = choose_threads(maps.phy2log.shape[1])
    configured(fill_log2phy, num_layers, threads, loads.stream)(maps.phy2log, maps.phyrank, log2phy)
    return log2phy
