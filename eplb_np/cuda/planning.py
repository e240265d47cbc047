"""Whole plans on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from eplb_np._cuda.arrays import output_arrays, place
from eplb_np._cuda.device import device_errors, require_device
from eplb_np._loads.device import as_device_loads
from eplb_np.maps.log2phy import width_for_this_plan
from eplb_np.policies import POLICIES, PolicyName, check_policy
from eplb_np.stages.gpu_planner import launch_plan, log2phy_of_counts, plan_slots
from eplb_np.topology import Topology


def rebalance_experts(  # noqa: PLR0913
    weight: Any,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    policy: PolicyName = "hybrid",
    dtype: DTypeLike = np.int64,
    stream: Any = None,
    out: Sequence[Any] | None = None,
    scratch: Any = None,
    check: bool = True,
    on_host: bool = False,
) -> tuple[Any, Any, Any]:
    """Plan on the GPU which expert goes into each slot of each GPU, for every layer.

    Parameters
    ----------
    weight : array, shape [L, E], any real dtype
        Load of each logical expert of each layer: anything on the GPU with
        ``__cuda_array_interface__`` or DLPack, or anything on the host. On the GPU, C-contiguous
        float32 is used as it is, and other arrays are cast there.
    num_replicas : int
        Physical experts (slots) of a layer, P; a multiple of ``num_gpus``, at least E.
    num_groups : int
        Groups of consecutive logical experts; divides E.
    num_nodes : int
        Nodes; divides ``num_gpus``. If it does not divide ``num_groups``, the placement is
        global: one group, one node.
    num_gpus : int
        GPUs; slot ``s`` belongs to GPU ``s // (num_replicas // num_gpus)``.
    policy : {"hybrid", "deepseek"}, default: "hybrid"
        As on the CPU. The refined policy is a local search that runs on the CPU only.
    dtype : {int64, int32}, default: int64
        Integer type of the results, unless ``out`` is given.
    stream : optional
        Stream to work on: one of Numba's, CuPy's or PyTorch's, or its handle. By default the
        stream of ``weight`` if it names one, else the default stream.
    out : sequence of 3 arrays, optional
        Arrays on the GPU for the results, C-contiguous int64 or int32. ``log2phy`` then has
        X = P - E + 1 under either policy. With ``check=False`` and float32 loads on the GPU, the
        call then allocates nothing and waits for nothing: it can be captured in a CUDA graph.
    scratch : array, optional
        Working memory, 1-D int64 on the GPU, for layers too large for shared memory, such as
        those of 700 experts. If it is too small, an error says how much is needed.
    check : bool, default: True
        Whether to check loads that are on the GPU, which waits for the plan. Without the check,
        negative, infinite or NaN loads give a meaningless plan.
    on_host : bool, default: False
        Whether to return NumPy arrays.

    Returns
    -------
    phy2log : array, shape [L, P]
        Logical expert in each slot.
    log2phy : array, shape [L, E, X]
        Slot of each replica of an expert, by rank; -1 behind its last replica. X is P - E + 1
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
    for nothing in between. The exception is the deepseek policy without ``out``: its X depends on
    the counts, and the host waits for them.

    Ties and source are those of `eplb_np.rebalance_experts`.

    Examples
    --------
    >>> from eplb_np import cuda, rebalance_experts
    >>> sizes = ([[90, 30, 10, 10]], 6, 1, 1, 2)
    >>> if cuda.is_available():
    ...     phy2log, log2phy, logcnt = cuda.rebalance_experts(*sizes, on_host=True)
    ...     assert (phy2log == rebalance_experts(*sizes)[0]).all()
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
        if out is None and POLICIES[policy].log2phy_width is width_for_this_plan:
            maps = plan_slots(loads, topology, policy, dtype, scratch)
            results: Any = maps.phy2log, log2phy_of_counts(maps, loads), maps.logcnt
        else:
            from eplb_np.stages.cuda_kernels import PLAN_MAPS

            results = tuple(output_arrays(shapes, dtype, out, loads.stream))
            launch_plan(PLAN_MAPS, loads, topology, policy, scratch, results)
        loads.check()
        phy2log, log2phy, logcnt = place(results, loads.stream, on_host)
        return phy2log, log2phy, logcnt


def rebalance_experts_hierarchical(  # noqa: PLR0913
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
    """Plan hierarchically on the GPU: groups to nodes, replicas within nodes, replicas to GPUs.

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

    Examples
    --------
    >>> from eplb_np import cuda, rebalance_experts_hierarchical
    >>> sizes = ([[9, 1, 5, 5]], 6, 2, 2, 2)
    >>> if cuda.is_available():
    ...     phy2log, phyrank, logcnt = cuda.rebalance_experts_hierarchical(*sizes, on_host=True)
    ...     assert (phy2log == rebalance_experts_hierarchical(*sizes)[0]).all()
    """
    require_device()
    with device_errors():
        loads = as_device_loads(weight, stream, check)
        num_experts = loads.weight.shape[1]
        topology = Topology(num_experts, num_physical_experts, num_gpus, num_nodes, num_groups)
        topology.check_hierarchical()
        check_policy("hybrid", topology)
        maps = plan_slots(loads, topology, "hybrid", dtype, scratch, out)
        loads.check()
        return tuple(place(maps, loads.stream, on_host))


def check_gpu_policy(policy: str) -> None:
    """Raise ``ValueError`` for a policy that is unknown or plans on the CPU only."""
    check_policy(policy)
    if "cuda" not in POLICIES[policy].planners:
        raise ValueError(
            f"policy={policy!r} plans on the CPU only: give device='cpu', or "
            "policy='hybrid' or 'deepseek' for the GPU"
        )
