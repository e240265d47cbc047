"""`make_plan`: from loads to a `Plan`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from eplb_np._check import as_load, as_size
from eplb_np.plan import Plan, check_layer_ids
from eplb_np.policies import Maps, Policy, check_policy, make_maps
from eplb_np.topology import Topology


def make_plan(
    load: ArrayLike,
    topology: Topology | None = None,
    *,
    num_replicas: int | None = None,
    num_gpus: int | None = None,
    num_nodes: int = 1,
    num_groups: int = 1,
    policy: Policy = "hybrid",
    dtype: DTypeLike = np.int64,
    moe_layer_ids: Sequence[int] | None = None,
    num_threads: int | None = None,
) -> Plan:
    """Plan which expert goes into each slot of each GPU, for every layer.

    Parameters
    ----------
    load : array_like, shape [L, E], any real dtype
        Load of each logical expert of each MoE layer, in any unit (tokens, usually). A layer of
        zeros is legal. Cast to float32.
    topology : Topology, optional
        Sizes of the deployment, in place of the four that follow.
    num_replicas : int, optional
        Physical experts (slots) of a layer, P; a multiple of ``num_gpus``, at least E.
    num_gpus : int, optional
        GPUs of the deployment.
    num_nodes : int, default: 1
        Nodes; divides ``num_gpus``.
    num_groups : int, default: 1
        Groups of consecutive logical experts; divides E. Where ``num_nodes`` divides it, whole
        groups go to nodes; elsewhere the placement is global, and `Plan.placement` says so.
    policy : {"hybrid", "deepseek", "refined"}, default: "hybrid"
        As in `rebalance_experts`.
    dtype : {int64, int32}, default: int64
        Integer type of the plan's arrays. JAX and TensorFlow want int32.
    moe_layer_ids : sequence of int, optional
        Id in the model of each layer, ascending; by default 0 .. L - 1.
    num_threads : int, optional
        Threads over layers, chosen as in `rebalance_experts`.

    Returns
    -------
    Plan
        The plan; its ``log2phy`` is built only when asked for.

    Raises
    ------
    ValueError
        If ``load`` is not a valid load, a size is missing, wrong or does not fit another,
        ``policy`` or ``dtype`` is unknown, or ``moe_layer_ids`` do not fit the layers. Nothing
        has been computed then.

    See Also
    --------
    rebalance_experts : The same plan as the published program's three arrays.

    Notes
    -----
    O(L (E + P log P)) at most; the same bytes on every machine and thread count.

    Examples
    --------
    >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
    >>> plan.phy2log.tolist(), round(plan.balancedness([[90, 30, 10, 10]]), 3)
    ([[0, 0, 3, 0, 1, 2]], 1.0)
    """
    weight = as_load(load, "load")
    sizes = _topology(weight.shape[1], topology, num_replicas, num_gpus, num_nodes, num_groups)
    check_policy(policy)
    integer = _integer_type(dtype)
    num_layers = weight.shape[0]
    ids = range(num_layers) if moe_layer_ids is None else moe_layer_ids
    ids = check_layer_ids(ids, num_layers)
    maps = make_maps(weight, sizes, policy, num_threads)
    if integer != np.int64:
        maps = Maps(*(array.astype(integer) for array in maps))
    return Plan._of_maps(maps, sizes, policy, ids)


def _topology(
    num_experts: int,
    topology: Topology | None,
    num_replicas: int | None,
    num_gpus: int | None,
    num_nodes: int,
    num_groups: int,
) -> Topology:
    if topology is None:
        if num_replicas is None or num_gpus is None:
            raise ValueError(
                f"num_replicas={num_replicas} and num_gpus={num_gpus}: "
                "give both, or a Topology in their place"
            )
        return Topology(num_experts, num_replicas, num_gpus, num_nodes, num_groups)
    if (num_replicas, num_gpus, num_nodes, num_groups) != (None, None, 1, 1):
        raise ValueError("both a topology and sizes are given: give one or the other")
    if not isinstance(topology, Topology):
        raise ValueError(
            f"topology={topology!r} is no Topology: give sizes by name, as in num_replicas=288"
        )
    if topology.num_experts != num_experts:
        raise ValueError(
            f"load has {num_experts} experts, but the topology is for "
            f"num_experts={topology.num_experts}: give a Topology of {num_experts} experts"
        )
    return topology


def _integer_type(dtype: DTypeLike) -> np.dtype[Any]:
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
        If ``num_layers`` is not a positive integer or ``dtype`` is another.

    Examples
    --------
    >>> in_order_plan(1, Topology(num_experts=4, num_replicas=6, num_gpus=2)).phy2log.tolist()
    [[0, 1, 2, 3, 0, 1]]
    """
    shape = (as_size("num_layers", num_layers), topology.num_replicas)
    integer = _integer_type(dtype)
    slot = np.arange(topology.num_replicas, dtype=integer)
    phy2log = np.broadcast_to(slot % topology.num_experts, shape)
    phyrank = np.broadcast_to(slot // topology.num_experts, shape)
    return Plan(phy2log, phyrank, topology, "in_order")
