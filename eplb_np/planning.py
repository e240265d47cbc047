"""`make_plan`: from loads to a `Plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from eplb_np._arguments import as_size, check_is
from eplb_np._loads.host import as_history
from eplb_np.forecast import Expected, LoadForecast
from eplb_np.maps.maps import Maps
from eplb_np.mending.limits import NO_LIMITS, MoveLimits, check_limits
from eplb_np.plan import Plan, check_layer_ids
from eplb_np.policies import POLICIES, Device, PolicyName, check_policy, function_named
from eplb_np.topology import Topology


def make_plan(
    load: ArrayLike,
    topology: Topology | None = None,
    *,
    num_replicas: int | None = None,
    num_gpus: int | None = None,
    num_nodes: int = 1,
    num_groups: int = 1,
    gpu_slots: Sequence[int] | None = None,
    gpu_speeds: Sequence[float] | None = None,
    active_gpus: Sequence[int] | None = None,
    policy: PolicyName = "hybrid",
    current: Plan | None = None,
    limits: MoveLimits | None = None,
    dtype: DTypeLike | None = None,
    moe_layer_ids: Sequence[int] | None = None,
    num_threads: int | None = None,
    device: Device | Literal["auto"] = "cpu",
) -> Plan:
    """Plan which expert goes into each slot of each GPU, for every layer.

    Parameters
    ----------
    load : array_like, shape [L, E] or [W, L, E], any real dtype
        Load of each logical expert of each MoE layer, in any unit (tokens, usually), in one
        window of time or in W, the oldest first. From several windows, the load of the coming
        one is forecast; how far back that looks is decided by the loads themselves. A layer of
        zeros is legal. Cast to float32.
    topology : Topology, optional
        Sizes of the deployment, in place of those that follow; by default those of ``current``.
    num_replicas : int, optional
        Physical experts (slots) of a layer, P; at least E. A multiple of ``num_gpus``, but for
        the refined policy.
    num_gpus : int, optional
        GPUs of the deployment.
    num_nodes : int, default: 1
        Nodes; divides ``num_gpus``.
    num_groups : int, default: 1
        Groups of consecutive logical experts; divides E. Where ``num_nodes`` divides it, whole
        groups go to nodes; elsewhere the placement is global, and `Plan.placement` says so.
    gpu_slots, gpu_speeds : sequence, optional
        Slots and speed of each GPU, where they differ, as in `Topology`; refined policy only.
    active_gpus : sequence of int or of bool, optional
        The GPUs that are there, as in `Topology`, or in place of those that ``topology`` has;
        refined policy only.
    policy : {"hybrid", "deepseek", "refined"}, default: "hybrid"
        As in `rebalance_experts`.
    current : Plan, optional
        The plan in use, to be mended with few moves instead of planning from scratch; refined
        policy only. What keeps its expert keeps its slot.
    limits : MoveLimits, optional
        Budget, price and tolerance of the moves away from ``current``.
    dtype : {int64, int32}, optional
        Integer type of the plan's arrays; by default int64, or that of ``current``. JAX and
        TensorFlow want int32.
    moe_layer_ids : sequence of int, optional
        Id in the model of each layer, ascending; by default 0 .. L - 1, or those of ``current``.
    num_threads : int, optional
        Threads over layers, chosen as in `rebalance_experts`. A budget of moves is spent layer
        by layer, on one thread.
    device : {"cpu", "cuda", "auto"}, default: "cpu"
        Where to plan. ``"cuda"`` is a GPU, for the hybrid and the deepseek policy: the same plan,
        and ``load`` may be there. ``"auto"`` is the GPU where there is one that works and can
        make the plan, else the CPU; `Plan.device` says which it was.

    Returns
    -------
    Plan
        The plan; its ``log2phy`` is built only when asked for.

    Raises
    ------
    ValueError
        If ``load`` is not a valid load, a size is missing, wrong or does not fit another,
        ``policy`` or ``dtype`` is unknown, ``moe_layer_ids`` do not fit the layers, ``current``
        is no plan of these layers, experts and slots, or another policy than the refined one
        is to mend, or to plan for GPUs that differ. Nothing has been computed then.
    eplb_np.cuda.DeviceError
        If ``device="cuda"`` and there is no usable GPU; the message says what is missing.

    See Also
    --------
    rebalance_experts : The same plan as the published program's three arrays.
    Rebalancer : Plans for a serving loop, window by window.

    Notes
    -----
    O(L (E + P log P)) at most, and O(W L E) for the forecast; the same bytes on every run and
    thread count, and on every machine but where mending rests on its exponentials. Mending
    makes no layer's longest GPU time under the forecast longer, but where an expert has to be
    seated anew.

    Examples
    --------
    >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
    >>> plan.phy2log.tolist(), round(plan.balancedness([[90, 30, 10, 10]]), 3)
    ([[0, 0, 3, 0, 1, 2]], 1.0)
    >>> make_plan([[10, 30, 90, 10]], current=plan, policy="refined").phy2log.tolist()
    [[2, 0, 3, 2, 1, 2]]
    """
    if current is not None:
        check_is_plan(current)
    check_device(device, policy, current is not None)
    if device != "cpu":
        from eplb_np._loads.device import as_host_load

        load = as_host_load(load)
    history = as_history(load, "load")
    num_layers, num_experts = history.shape[1:]
    sizes = {
        "num_replicas": num_replicas, "num_gpus": num_gpus, "num_nodes": num_nodes,
        "num_groups": num_groups, "gpu_slots": gpu_slots, "gpu_speeds": gpu_speeds,
    }  # fmt: skip
    topology = _topology_of(num_experts, topology, sizes, active_gpus, current)
    check_policy(policy, topology)
    check_limits(limits)
    if current is not None:
        check_current(current, num_layers, topology, policy)
        dtype = current.dtype if dtype is None else dtype
        moe_layer_ids = current.moe_layer_ids if moe_layer_ids is None else moe_layer_ids
    elif limits is not None:
        raise ValueError("limits of moves are given, but no plan to move from: give current")
    ids = range(num_layers) if moe_layer_ids is None else moe_layer_ids
    wanted = Wanted(
        topology,
        policy,
        limits or NO_LIMITS,
        as_integer_type(np.int64 if dtype is None else dtype),
        check_layer_ids(ids, num_layers),
    )
    if current is None and len(history) == 1:
        expected = Expected(history[0])
    else:
        forecast = LoadForecast(num_layers, num_experts)
        forecast.observe(history)
        expected = forecast.expected()
    return plan_next(expected, current, wanted, num_threads, device)


class Wanted(NamedTuple):
    """What a plan is to be like, all of it checked."""

    topology: Topology
    policy: str
    limits: MoveLimits
    dtype: np.dtype[Any]
    moe_layer_ids: tuple[int, ...]


def plan_next(
    expected: Expected,
    current: Plan | None,
    wanted: Wanted,
    num_threads: int | None = None,
    device: Device | Literal["auto"] = "cpu",
) -> Plan:
    """Plan for what is expected: from scratch, or by mending the plan in use."""
    policy = POLICIES[wanted.policy]
    made_on: Device = "cpu"
    if current is not None and policy.mender is not None:
        maps: Maps = function_named(policy.mender)(
            expected, current.phy2log, wanted.topology, wanted.limits, num_threads
        )
    else:
        weight = expected.load.astype(np.float32, copy=False)
        maps, made_on = _make_maps_on(device, weight, wanted.topology, wanted.policy, num_threads)
    if wanted.dtype != np.int64:
        maps = Maps(*(array.astype(wanted.dtype) for array in maps))
    return Plan._of_maps(maps, wanted.topology, wanted.policy, wanted.moe_layer_ids, made_on)


def make_maps(
    weight: NDArray[np.float32], topology: Topology, policy: str, num_threads: int | None = None
) -> Maps:
    """Plan checked loads ``weight`` [L, E] on the CPU with one of `POLICIES`."""
    maps: Maps = function_named(POLICIES[policy].planners["cpu"])(
        weight, topology, policy, num_threads
    )
    return maps


def check_device(device: str, policy: str, mends: bool) -> None:
    """Raise ``ValueError`` for an unknown device, or a GPU for what only the CPU plans."""
    if device not in ("cpu", "cuda", "auto"):
        raise ValueError(f"device={device!r} is unknown: give one of 'cpu', 'cuda', 'auto'")
    if device != "cuda":
        return
    check_policy(policy)
    if mends or "cuda" not in POLICIES[policy].planners:
        raise ValueError(
            f"policy={policy!r}{' with a current plan' if mends else ''} plans on the CPU only: "
            "give device='cpu' or 'auto', or another policy"
        )


def _make_maps_on(
    device: str,
    weight: NDArray[np.float32],
    topology: Topology,
    policy: str,
    num_threads: int | None,
) -> tuple[Maps, Device]:
    """Plan on the device that was asked for, and say on which it was."""
    gpu_planner = POLICIES[policy].planners.get("cuda")
    if device != "cpu" and gpu_planner is not None:
        from eplb_np._cuda.device import DeviceError

        try:
            return function_named(gpu_planner)(weight, topology, policy, num_threads), "cuda"
        except DeviceError:
            if device == "cuda":
                raise
    return make_maps(weight, topology, policy, num_threads), "cpu"


def _topology_of(
    num_experts: int,
    topology: Topology | None,
    sizes: dict[str, Any],
    active_gpus: Sequence[int] | None,
    current: Plan | None,
) -> Topology:
    """Topology of the deployment, from whatever way it was given."""
    if sizes["num_nodes"] == sizes["num_groups"] == 1 and all(
        sizes[name] is None for name in ("num_replicas", "num_gpus", "gpu_slots", "gpu_speeds")
    ):
        if topology is None and current is not None:
            topology = current.topology
    elif topology is not None:
        raise ValueError("both a topology and sizes are given: give one or the other")
    if topology is None:
        if sizes["num_replicas"] is None or sizes["num_gpus"] is None:
            raise ValueError(
                f"num_replicas={sizes['num_replicas']} and num_gpus={sizes['num_gpus']}: "
                "give both, or a Topology in their place"
            )
        return Topology(num_experts, active_gpus=active_gpus, **sizes)
    check_is("topology", topology, Topology, "give sizes by name, as in num_replicas=288")
    if topology.num_experts != num_experts:
        raise ValueError(
            f"load has {num_experts} experts, but the topology is for "
            f"num_experts={topology.num_experts}: give a Topology of {num_experts} experts"
        )
    return topology if active_gpus is None else replace(topology, active_gpus=active_gpus)


def check_is_plan(current: Plan) -> None:
    """Raise ``ValueError`` where something else than a plan is said to be in use."""
    check_is("current", current, Plan, "give the plan in use, or Plan.load it")


def check_current(current: Plan, num_layers: int, sizes: Topology, policy: str) -> None:
    """Raise ``ValueError`` unless a plan in use can be mended for these sizes."""
    if POLICIES[policy].mender is None:
        raise ValueError(
            f"policy={policy!r} plans from scratch and takes no current plan: "
            "give policy='refined' to mend it"
        )
    old = current.topology
    if current.num_layers != num_layers or old.num_experts != sizes.num_experts:
        raise ValueError(
            f"load is of {num_layers} layers and {sizes.num_experts} experts, but current of "
            f"{current.num_layers} and {old.num_experts}: give the plan of these layers"
        )
    if not np.array_equal(old.first_slots, sizes.first_slots):
        raise ValueError(
            f"current has {old.num_replicas} slots on {old.num_gpus} GPUs, to be mended for "
            f"{sizes.num_replicas} on {sizes.num_gpus}, or others of each GPU: a plan can be "
            "mended for the same slots only, so leave GPUs out by active_gpus, or plan anew"
        )


def as_integer_type(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype of a plan's arrays, or raise ``ValueError`` where it is none."""
    try:
        integer = np.dtype(dtype)
    except TypeError:
        integer = None
    if integer not in (np.int64, np.int32):
        raise ValueError(f"dtype={dtype!r} is not a plan's integer type: give int64 or int32")
    return integer


def in_order_plan(num_layers: int, topology: Topology, *, dtype: DTypeLike = np.int64) -> Plan:
    """Plan that serving stacks start with: experts in order, redundant slots round robin.

    Parameters
    ----------
    num_layers : int
        Number of layers, L.
    topology : Topology
        Sizes of the deployment. The plan does not look at groups and nodes.
    dtype : {int64, int32}, default: int64
        Integer type of the plan's arrays.

    Returns
    -------
    Plan
        Slot ``s`` of every layer holds expert ``s % num_experts``.

    Raises
    ------
    ValueError
        If ``num_layers`` is not a positive integer, ``topology`` is none, or ``dtype`` is another.

    Examples
    --------
    >>> in_order_plan(1, Topology(num_experts=4, num_replicas=6, num_gpus=2)).phy2log.tolist()
    [[0, 1, 2, 3, 0, 1]]
    """
    check_is("topology", topology, Topology, "make one of the sizes")
    shape = (as_size("num_layers", num_layers), topology.num_replicas)
    integer = as_integer_type(dtype)
    slot = np.arange(topology.num_replicas, dtype=integer)
    phy2log = np.broadcast_to(slot % topology.num_experts, shape)
    phyrank = np.broadcast_to(slot // topology.num_experts, shape)
    return Plan(phy2log, phyrank, topology, "in_order")
