"""Whole plans on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from eplb_np.cuda._arrays import DeviceLoads, as_device_loads, output_arrays, place, to_host
from eplb_np.cuda._device import device_errors, numba_cuda, require_device
from eplb_np.cuda._launch import choose_threads, configured, count_bits, launch
from eplb_np.policies import Maps, Policy, check_policy
from eplb_np.topology import Topology


def rebalance_experts(
    weight: Any,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    policy: Policy = "hybrid",
    dtype: DTypeLike = np.int64,
    stream: Any = None,
    out: Sequence[Any] | None = None,
    scratch: Any = None,
    check: bool = True,
    on_host: bool = False,
) -> tuple[Any, Any, Any]:
    """Plan which expert goes into each slot of each GPU, for every layer, on the GPU.

    Parameters
    ----------
    weight : array, shape [L, E], any real dtype
        Load of each logical expert of each layer: anything on the GPU with
        ``__cuda_array_interface__`` or DLPack, or anything on the host. On the GPU, C-contiguous
        float32 is taken as it is, and the rest is cast there.
    num_replicas : int
        Physical experts (slots) of a layer, P; a multiple of ``num_gpus``, at least E.
    num_groups : int
        Groups of consecutive logical experts; divides E.
    num_nodes : int
        Nodes; divides ``num_gpus``. Where it does not divide ``num_groups``, the placement is
        global: one group, one node.
    num_gpus : int
        GPUs; slot ``s`` belongs to GPU ``s // (num_replicas // num_gpus)``.
    policy : {"hybrid", "deepseek"}, default: "hybrid"
        As on the CPU. The refined policy is a search for the CPU only.
    dtype : {int64, int32}, default: int64
        Integer type of the results, where ``out`` does not say it.
    stream : optional
        Stream to work on: one of Numba's, CuPy's or PyTorch's, or its handle. By default the one
        that ``weight`` names as its own, else the default stream.
    out : sequence of 3 arrays, optional
        Arrays on the GPU for the results, C-contiguous int64 or int32. With ``check=False`` and
        float32 loads on the GPU, nothing is allocated then, and nothing waited for: the call can
        be captured in a CUDA graph. ``log2phy`` has X = P - E + 1 here under either policy.
    scratch : array, optional
        One axis of int64 on the GPU: the working memory, where a layer is too large for shared
        memory, as one of 700 experts is. An error says how much is needed.
    check : bool, default: True
        Whether loads that are on the GPU are looked through, which waits for the plan. Loads
        that are not finite or negative make a plan of no value otherwise.
    on_host : bool, default: False
        Whether to return NumPy arrays.

    Returns
    -------
    phy2log : array, shape [L, P]
        Logical expert in each slot.
    log2phy : array, shape [L, E, X]
        Slot of each replica of an expert, by its rank; -1 where there is none. X is P - E + 1
        for ``"hybrid"``, else the largest replica count.
    logcnt : array, shape [L, E]
        Number of replicas of each expert. All three are arrays on the GPU, with
        ``__cuda_array_interface__``, or on the host.

    Raises
    ------
    ValueError
        As `eplb_np.rebalance_experts`; if ``policy`` is the refined one, or ``out``, ``scratch``
        or ``stream`` do not fit.
    DeviceError
        If there is no usable GPU, or it fails; the message says what is missing.

    See Also
    --------
    eplb_np.rebalance_experts : The same plan, byte for byte, on the CPU.

    Notes
    -----
    One block of threads plans one node of one layer, all stages in one kernel, so the host waits
    for nothing in between. Only the deepseek policy's X it must know: without ``out`` it waits
    for the counts.
    """
    require_device()
    check_gpu_policy(policy)
    with device_errors():
        loads = as_device_loads(weight, stream, check)
        num_layers, num_experts = loads.weight.shape
        topology = Topology(num_experts, num_replicas, num_gpus, num_nodes, num_groups)
        check_policy(policy, topology)
        width = topology.num_replicas - num_experts + 1
        shapes = {
            "phy2log": (num_layers, topology.num_replicas),
            "log2phy": (num_layers, num_experts, width),
            "logcnt": (num_layers, num_experts),
        }
        if out is None and policy == "deepseek":
            maps = _plan_slots(loads, topology, policy, dtype, scratch)
            results: Any = maps.phy2log, _log2phy_of_counts(maps, loads), maps.logcnt
        else:
            results = tuple(output_arrays(shapes, dtype, out, loads.stream))
            _launch_plan("plan_maps", loads, topology, policy, scratch, results)
        loads.check()
        phy2log, log2phy, logcnt = place(results, loads.stream, on_host)
        return phy2log, log2phy, logcnt


def rebalance_experts_hierarchical(
    weight: Any,
    num_physical_experts: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    dtype: DTypeLike = np.int64,
    stream: Any = None,
    out: Sequence[Any] | None = None,
    scratch: Any = None,
    check: bool = True,
    on_host: bool = False,
) -> tuple[Any, Any, Any]:
    """Plan hierarchically on the GPU: whole groups to nodes, replicas within nodes, to GPUs.

    Parameters
    ----------
    weight : array, shape [L, E], any real dtype
        Load of each logical expert of each layer, as in `rebalance_experts`.
    num_physical_experts : int
        Physical experts (slots) of a layer, P; a multiple of ``num_gpus``, at least E.
    num_groups : int
        Groups of consecutive logical experts; divides E and is a multiple of ``num_nodes``.
    num_nodes : int
        Nodes; divides ``num_gpus``.
    num_gpus : int
        GPUs; slot ``s`` belongs to GPU ``s // (num_physical_experts // num_gpus)``.
    dtype, stream, out, scratch, check, on_host : optional
        As in `rebalance_experts`.

    Returns
    -------
    phy2log : array, shape [L, P]
        Logical expert in each slot.
    phyrank : array, shape [L, P]
        Which of its expert's replicas is in the slot, from 0.
    logcnt : array, shape [L, E]
        Number of replicas of each expert.

    Raises
    ------
    ValueError
        As `rebalance_experts`, and if ``num_nodes`` does not divide ``num_groups``.
    DeviceError
        If there is no usable GPU, or it fails; the message says what is missing.

    Notes
    -----
    The hybrid policy. The results are those of `eplb_np.rebalance_experts_hierarchical`.
    """
    require_device()
    with device_errors():
        loads = as_device_loads(weight, stream, check)
        num_experts = loads.weight.shape[1]
        topology = Topology(num_experts, num_physical_experts, num_gpus, num_nodes, num_groups)
        topology.check_hierarchical()
        check_policy("hybrid", topology)
        maps = _plan_slots(loads, topology, "hybrid", dtype, scratch, out)
        loads.check()
        return tuple(place(maps, loads.stream, on_host))


def check_gpu_policy(policy: str) -> None:
    """Raise ``ValueError`` for a policy that plans on the CPU only, or that there is not."""
    check_policy(policy)
    if policy == "refined":
        raise ValueError(
            "policy='refined' plans on the CPU only: give device='cpu', or "
            "policy='hybrid' or 'deepseek' for the GPU"
        )


def make_maps_on_gpu(weight: NDArray[np.float32], topology: Topology, policy: str) -> Maps:
    """Plan checked loads from the host [L, E] on the GPU; the maps come back to the host."""
    cuda = require_device()
    with device_errors():
        loads = DeviceLoads(cuda.to_device(weight), 0, None, "load", "experts")
        maps = _plan_slots(loads, topology, policy, np.int64, None)
        return Maps(*(to_host(array, 0) for array in maps))


def _plan_slots(
    loads: DeviceLoads,
    topology: Topology,
    policy: str,
    dtype: DTypeLike,
    scratch: Any,
    out: Sequence[Any] | None = None,
) -> Maps:
    num_layers, num_experts = loads.weight.shape
    slots = num_layers, topology.num_replicas
    shapes = {
        "phy2log": slots, "phyrank": slots, "logcnt": (num_layers, num_experts),
    }  # fmt: skip
    maps = Maps(*output_arrays(shapes, dtype, out, loads.stream))
    _launch_plan("plan_slots", loads, topology, policy, scratch, maps)
    return maps


def _launch_plan(
    name: str,
    loads: DeviceLoads,
    topology: Topology,
    policy: str,
    scratch: Any,
    results: tuple[Any, ...],
) -> None:
    from eplb_np.cuda.kernels.blocks import PlanSizes
    from eplb_np.cuda.kernels.scratch import scratch_bytes

    num_layers, num_experts = loads.weight.shape
    num_groups, num_nodes = topology.packed_groups_and_nodes
    node_experts = num_experts // num_nodes
    node_replicas = topology.num_replicas // num_nodes
    num_extra = node_replicas - node_experts
    num_tail = max(1, num_extra // 10) if policy == "hybrid" and num_extra > 0 else 0
    num_items = max(node_replicas, num_groups)
    threads = choose_threads(num_items)
    num_bytes, room = scratch_bytes(num_experts, node_experts, node_replicas, num_items, threads)
    shift = count_bits(node_experts, node_replicas)
    sizes = PlanSizes(
        num_groups, num_nodes, topology.num_gpus, policy == "hybrid", num_tail, shift, room
    )
    args = loads.weight, sizes, *results
    launch(name, (num_layers, num_nodes), threads, num_bytes, loads.stream, scratch, args)


def _log2phy_of_counts(maps: Maps, loads: DeviceLoads) -> Any:
    """``log2phy`` as wide as the largest count, which the host waits for."""
    num_layers, num_experts = loads.weight.shape
    width = int(to_host(maps.logcnt, loads.stream).max())
    shape = num_layers, num_experts, width
    log2phy = numba_cuda().device_array(shape, maps.phy2log.dtype, stream=loads.stream)
    threads = choose_threads(maps.phy2log.shape[1])
    configured("fill_log2phy", num_layers, threads, loads.stream)(
        maps.phy2log, maps.phyrank, log2phy
    )
    return log2phy
