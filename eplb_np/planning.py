"""`make_plan`: from loads to a `Plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from eplb_np._arguments import as_size, check_is, check_memory, is_one_of, one_line
from eplb_np._loads.host import as_history
from eplb_np.dispatch.loads_to_come import Workloads
from eplb_np.forecast import Expected, LoadForecast
from eplb_np.maps.maps import Maps
from eplb_np.mending.limits import NO_LIMITS, MoveLimits, check_limits
from eplb_np.plan import Plan, check_layer_ids
from eplb_np.policies import (
    POLICIES,
    Device,
    PlannedSplit,
    PolicyName,
    check_planned_split,
    check_policy,
    function_named,
)
from eplb_np.topology import Topology


def make_plan(  # noqa: PLR0913
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
    policy: PolicyName = "refined",
    current: Plan | None = None,
    limits: MoveLimits | None = None,
    split: PlannedSplit = "even",
    dtype: DTypeLike | None = None,
    moe_layer_ids: Sequence[int] | None = None,
    num_threads: int | None = None,
    device: Device | Literal["auto"] = "cpu",
) -> Plan:
    """Plan which expert goes into each slot of each GPU, for every layer.

    Parameters
    ----------
    load : array_like, shape [L, E] or [W, L, E], any real dtype
        Load of each logical expert of each MoE layer, in any unit (usually tokens), in one
        window of time or in W windows, oldest first. From several windows, the load of the
        coming one is forecast; the loads themselves decide how far back the forecast looks. A
        layer may be all zero. Cast to float32.
    topology : Topology, optional
        Sizes of the deployment, instead of the sizes that follow; by default those of
        ``current``.
    num_replicas : int, optional
        Physical experts (slots) of a layer, P; at least E. A multiple of ``num_gpus``, except
        for the refined policy.
    num_gpus : int, optional
        GPUs of the deployment.
    num_nodes : int, default: 1
        Nodes; divides ``num_gpus``.
    num_groups : int, default: 1
        Groups of consecutive logical experts; divides E. If there are several nodes and
        ``num_nodes`` divides ``num_groups``, whole groups go to nodes. Otherwise the placement
        is global. `Plan.placement` says which it is.
    gpu_slots, gpu_speeds : sequence, optional
        Slots and speed of each GPU, if they differ, as in `Topology`; refined policy only.
    active_gpus : sequence of int or of bool, optional
        The GPUs that are available, as in `Topology`; replaces the active GPUs of ``topology``.
        Refined policy only.
    policy : {"refined", "hybrid", "deepseek"}, default: "refined"
        As in `rebalance_experts`, whose default is the published ``"hybrid"``.
    current : Plan, optional
        The plan in use. It is mended with few moves, instead of planning from scratch; refined
        policy only. A replica that stays on its GPU keeps its slot.
    limits : MoveLimits, optional
        Budget, price and tolerance of the moves from ``current`` to the new plan.
    split : {"even", "best", "certain"}, default: "even"
        How batches will be split over the replicas: evenly, or by a `Splitter`. With ``"best"``,
        replicas are placed so that the split has room in all the batches that may come; from
        windows of several workloads, in those of each. An even split of the forecast takes at
        most 2 % longer than otherwise. ``"certain"`` drops that guard, for engines that split
        every batch: it gains where there are fewer spare slots than GPUs. Refined policy only.
    dtype : {int64, int32}, optional
        Integer type of the plan's arrays; by default that of ``current``, or int64. JAX and
        TensorFlow expect int32.
    moe_layer_ids : sequence of int, optional
        Id in the model of each layer, ascending; by default those of ``current``, or 0 .. L - 1.
    num_threads : int, optional
        Threads over layers; the default is that of `rebalance_experts`. A budget of moves is
        spent layer by layer, on one thread.
    device : {"cpu", "cuda", "auto"}, default: "cpu"
        Where to plan. ``"cuda"`` makes the same plan on a GPU, for the hybrid and the deepseek
        policy. ``"auto"`` uses the GPU if there is a usable one that can make the plan, else the
        CPU. `Plan.device` says which it was. With ``"cuda"`` or ``"auto"``, ``load`` may be on
        the GPU.

    Returns
    -------
    Plan
        The plan. Its ``log2phy`` is built on first access.

    Raises
    ------
    ValueError
        If ``load`` is not a valid load; if a size is missing, wrong or does not fit another; if
        ``policy``, ``device`` or ``dtype`` is unknown; if ``moe_layer_ids`` does not fit the
        layers; if ``current`` is not a plan of the same layers, experts and slots; or if a
        policy other than the refined one is asked to mend, to plan for GPUs that differ, or for
        the best split; or if ``topology`` has bridges, and ``split`` is "even". All
        of this is checked before any planning.
    eplb_np.cuda.DeviceError
        If ``device="cuda"`` and no GPU is usable; the message says what is missing.

    See Also
    --------
    rebalance_experts : The same plan as the published program's three arrays.
    Rebalancer : Plans for a serving loop, window by window.

    Notes
    -----
    O(L (E + P log P)) at most, and O(W L E) for the forecast. Byte-identical across runs, thread
    counts and machines. Mending never makes a layer's longest GPU time under the forecast longer,
    unless it has to place a lost expert.

    docs/algorithm.md specifies every policy, with its ties and sources.

    Examples
    --------
    >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
    >>> plan.phy2log.tolist(), round(plan.balancedness([[90, 30, 10, 10]]), 3)
    ([[0, 1, 2, 0, 1, 3]], 1.0)
    >>> make_plan([[10, 30, 90, 10]], current=plan).phy2log.tolist()
    [[0, 1, 2, 2, 1, 3]]
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
        "num_replicas": num_replicas, "num_gpus": num_gpus,
        "num_nodes": as_size("num_nodes", num_nodes),
        "num_groups": as_size("num_groups", num_groups),
        "gpu_slots": gpu_slots, "gpu_speeds": gpu_speeds,
    }  # fmt: skip
    topology = _topology_of(num_experts, topology, sizes, active_gpus, current)
    check_policy(policy, topology)
    check_planned_split(split, policy, topology)
    check_limits(limits)
    check_room(num_layers, topology)
    if current is not None:
        check_current(current, num_layers, topology, policy)
        dtype = current.dtype if dtype is None else dtype
        moe_layer_ids = current.moe_layer_ids if moe_layer_ids is None else moe_layer_ids
    elif limits is not None:
        raise ValueError(
            "limits are given, but no plan to move from: give current, or leave out limits"
        )
    ids = range(num_layers) if moe_layer_ids is None else moe_layer_ids
    wanted = Wanted(
        topology,
        policy,
        limits or NO_LIMITS,
        as_integer_type(np.int64 if dtype is None else dtype),
        check_layer_ids(ids, num_layers),
        split,
    )
    in_use = None if current is None else current.phy2log
    expected = expect(history, mends=current is not None, split=split)
    return plan_next(expected, in_use, wanted, num_threads, device)


def expect(history: NDArray[np.float32], *, mends: bool, split: PlannedSplit) -> Expected:
    """Forecast the next window's loads from a history [W, L, E], as a planner takes them."""
    num_layers, num_experts = history.shape[1:]
    if not mends and len(history) == 1:
        expected = Expected(history[0])
    else:
        forecast = LoadForecast(num_layers, num_experts)
        forecast.observe(history)
        expected = forecast.expected()
    if split != "even":
        workloads = Workloads(num_layers, num_experts)
        for window in history:
            workloads.observe(window)
        expected = workloads.added_to(expected)
    return expected


class Wanted(NamedTuple):
    """Properties that the plan must have, already checked."""

    topology: Topology
    policy: str
    limits: MoveLimits
    dtype: np.dtype[Any]
    moe_layer_ids: tuple[int, ...]
    split: PlannedSplit


def plan_next(
    expected: Expected,
    in_use: NDArray[np.signedinteger[Any]] | None,
    wanted: Wanted,
    num_threads: int | None = None,
    device: Device | Literal["auto"] = "cpu",
) -> Plan:
    """Plan for the expected load: from scratch, or by mending the plan in use.

    Of the plan in use, ``phy2log`` [L, P] is given. In it slots may be empty, and experts lost.
    """
    policy = POLICIES[wanted.policy]
    made_on: Device = "cpu"
    if wanted.split != "even" and policy.split_planner is not None:
        certain = wanted.split == "certain"
        maps: Maps = function_named(policy.split_planner)(
            expected, in_use, wanted.topology, wanted.limits, certain, num_threads
        )
    elif in_use is not None and policy.mender is not None:
        maps = function_named(policy.mender)(
            expected, in_use, wanted.topology, wanted.limits, num_threads
        )
    else:
        weight = expected.load.astype(np.float32, copy=False)
        maps, made_on = _make_maps_on(device, weight, wanted.topology, wanted.policy, num_threads)
    return Plan._of_maps(
        maps, wanted.topology, wanted.policy, wanted.moe_layer_ids, wanted.dtype, made_on
    )


def make_maps(
    weight: NDArray[np.float32], topology: Topology, policy: str, num_threads: int | None = None
) -> Maps:
    """Plan checked loads ``weight`` [L, E] on the CPU with one of `POLICIES`."""
    try:
        maps: Maps = function_named(POLICIES[policy].planners["cpu"])(
            weight, topology, policy, num_threads
        )
    except MemoryError:
        slots = len(weight) * topology.num_replicas
        raise MemoryError(
            f"not enough memory: a plan of {len(weight)} layers of {topology.num_replicas} slots "
            f"needs about {slots * 24 / 1e9:.3g} GB"
        ) from None
    return maps


def check_room(num_layers: int, topology: Topology, log2phy: bool = False) -> None:
    """Raise ``ValueError`` if the machine has no room for a plan, or for it and its ``log2phy``."""
    num_slots, num_experts = topology.num_replicas, topology.num_experts
    numbers = 2 * num_slots + num_experts
    if log2phy:
        numbers += num_experts * (num_slots - num_experts + 1)
    check_memory(f"a plan of {num_layers} layers of {num_slots} slots", num_layers * numbers)


def check_device(device: str, policy: str, mends: bool) -> None:
    """Raise ``ValueError`` for an unknown device, or a GPU for a plan that only the CPU makes."""
    if not is_one_of(device, ("cpu", "cuda", "auto")):
        raise ValueError(f"device={one_line(device)} is unknown: give one of 'cpu', 'cuda', 'auto'")
    if device != "cuda":
        return
    check_policy(policy)
    if mends or "cuda" not in POLICIES[policy].planners:
        raise ValueError(
            f"policy={policy!r}{' with a current plan' if mends else ''} plans on the CPU only: "
            "give device='cpu' or 'auto', or policy='hybrid' or 'deepseek'"
        )


def _make_maps_on(
    device: str,
    weight: NDArray[np.float32],
    topology: Topology,
    policy: str,
    num_threads: int | None,
) -> tuple[Maps, Device]:
    """Plan on the requested device, and return the device that was used."""
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
    """Topology of the deployment, however the caller gave it."""
    if (
        sizes["num_replicas"] is sizes["num_gpus"] is None
        and sizes["gpu_slots"] is sizes["gpu_speeds"] is None
        and sizes["num_nodes"] == sizes["num_groups"] == 1
    ):
        if topology is None and current is not None:
            topology = current.topology
    elif topology is not None:
        raise ValueError("both topology and sizes are given: give one or the other")
    if topology is None:
        if sizes["num_replicas"] is None or sizes["num_gpus"] is None:
            raise ValueError(
                f"num_replicas={one_line(sizes['num_replicas'])} and "
                f"num_gpus={one_line(sizes['num_gpus'])}: "
                "give both, or a Topology instead"
            )
        return Topology(num_experts, active_gpus=active_gpus, **sizes)
    check_is("topology", topology, Topology, "pass sizes by keyword, as in num_replicas=288")
    if topology.num_experts != num_experts:
        raise ValueError(
            f"load has {num_experts} experts, but the topology is for "
            f"num_experts={topology.num_experts}: give a Topology with num_experts={num_experts}"
        )
    return topology if active_gpus is None else replace(topology, active_gpus=active_gpus)


def check_is_plan(current: Plan) -> None:
    """Raise ``ValueError`` unless the plan in use is a `Plan`."""
    check_is("current", current, Plan, "give the plan in use, or read it with Plan.load")


def check_current(current: Plan, num_layers: int, sizes: Topology, policy: str) -> None:
    """Raise ``ValueError`` unless the plan in use can be mended for these sizes."""
    if POLICIES[policy].mender is None:
        raise ValueError(
            f"policy={policy!r} only plans from scratch, and cannot mend current: "
            "give policy='refined', or leave out current"
        )
    old = current.topology
    if current.num_layers != num_layers or old.num_experts != sizes.num_experts:
        raise ValueError(
            f"current has [layers, experts] = ({current.num_layers}, {old.num_experts}), but a "
            f"plan for ({num_layers}, {sizes.num_experts}) is wanted: give a plan of that shape"
        )
    if not np.array_equal(old.first_slots, sizes.first_slots):
        raise ValueError(
            f"current ({old.num_replicas} slots on {old.num_gpus} GPUs) and topology "
            f"({sizes.num_replicas} slots on {sizes.num_gpus} GPUs) must have the same slots on "
            "every GPU: exclude GPUs with active_gpus, or plan from scratch"
        )


def as_integer_type(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype of a plan's arrays, or raise ``ValueError`` unless it is int64 or int32."""
    try:
        integer = np.dtype(dtype)
    except Exception:  # noqa: BLE001 - objects raise anything here
        integer = None
    if integer not in (np.int64, np.int32):
        raise ValueError(f"dtype={one_line(dtype)} is not supported: give int64 or int32")
    return integer


def in_order_plan(num_layers: int, topology: Topology, *, dtype: DTypeLike = np.int64) -> Plan:
    """Make the plan that serving stacks start with: experts in order, then again from the first.

    Parameters
    ----------
    num_layers : int
        Number of layers, L.
    topology : Topology
        Sizes of the deployment. Groups and nodes are ignored.
    dtype : {int64, int32}, default: int64
        Integer type of the plan's arrays.

    Returns
    -------
    Plan
        Slot ``s`` of every layer holds expert ``s % num_experts``.

    Raises
    ------
    ValueError
        If ``num_layers`` is not a positive integer, ``topology`` is not a `Topology`, or
        ``dtype`` is neither int64 nor int32.

    Notes
    -----
    O(L P).

    Examples
    --------
    >>> in_order_plan(1, Topology(num_experts=4, num_replicas=6, num_gpus=2)).phy2log.tolist()
    [[0, 1, 2, 3, 0, 1]]
    """
    check_is("topology", topology, Topology, "build one from the sizes")
    shape = (as_size("num_layers", num_layers), topology.num_replicas)
    integer = as_integer_type(dtype)
    check_room(shape[0], topology)
    slot = np.arange(topology.num_replicas, dtype=integer)
    phy2log = np.broadcast_to(slot % topology.num_experts, shape)
    phyrank = np.broadcast_to(slot // topology.num_experts, shape)
    return Plan(phy2log, phyrank, topology, "in_order")
