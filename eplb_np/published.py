"""The functions of the published algorithm, under their original names."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import as_size, check_enough_replicas, check_memory, check_multiple
from eplb_np._loads.host import as_load
from eplb_np.maps.log2phy import make_log2phy, width_for_any_plan
from eplb_np.planning import check_room, make_maps
from eplb_np.policies import POLICIES, PolicyName, check_policy, log2phy_width
from eplb_np.topology import Topology

MOST_STEPS = 2**63 - 1
"""As many swaps as the kernels' int64 can count."""


def rebalance_experts(
    weight: ArrayLike,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    policy: PolicyName = "hybrid",
    num_threads: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Plan which expert goes into each slot of each GPU, for every layer.

    Parameters
    ----------
    weight : array_like, shape [L, E], any real dtype
        Load of each logical expert of each layer, in any unit (usually tokens). Cast to
        float32.
    num_replicas : int
        Physical experts (slots) of a layer, P; a multiple of ``num_gpus``, at least E.
    num_groups : int
        Groups of consecutive logical experts; divides E.
    num_nodes : int
        Nodes; divides ``num_gpus``. If it does not divide ``num_groups``, the placement is
        global: planned as one group on one node (see `Plan.placement`).
    num_gpus : int
        GPUs; slot ``s`` belongs to GPU ``s // (num_replicas // num_gpus)``.
    policy : {"hybrid", "deepseek", "refined"}, default: "hybrid"
        ``"hybrid"``: Adams' allocation with a Sainte-Lague tail, LPT packing, refinement.
        ``"deepseek"``: the plans of deepseek-ai/EPLB if its sorts are made stable, except where
        groups nearly tie with sums above 2**24. ``"refined"``: local search for the best balance;
        takes about ten times as long.
        It puts an expert twice on a GPU only where that ends 0.2 % sooner, as with few slots of
        few experts, or where it cannot be avoided.
    num_threads : int, optional
        Threads over layers. By default 1 for plans of up to 131,072 slots over all layers, and
        one per CPU, at most 4, for larger plans. The result does not depend on it.

    Returns
    -------
    phy2log : ndarray, shape [L, P], int64
        Logical expert in each slot.
    log2phy : ndarray, shape [L, E, X], int64
        Slot of each replica of each expert by its rank, padded with -1. X is P - E + 1 for
        ``"hybrid"``, else the largest replica count.
    logcnt : ndarray, shape [L, E], int64
        Number of replicas of each expert.

    Raises
    ------
    ValueError
        If ``weight`` is not 2-D, is empty, of a dtype that is not real, or holds a load that is
        NaN, infinite, negative or beyond float32's range; if a size is not a positive integer,
        or two sizes do not fit; if ``policy`` is unknown. All of this is checked before any
        planning.

    See Also
    --------
    make_plan : The same plan as an object, which builds ``log2phy`` only on access.

    Notes
    -----
    Groups go to nodes, experts are replicated within their node, and the replicas are packed
    into the node's GPUs [1]_. Ties go to the lower index everywhere, and arithmetic is float32
    without reassociation, so results are byte-identical across runs, thread counts and machines.
    O(L (E + P log P)) at most.

    References
    ----------
    .. [1] DeepSeek-AI, "Expert Parallelism Load Balancer", deepseek-ai/EPLB, 2025.

    Examples
    --------
    >>> load = [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86]]
    >>> phy2log, log2phy, logcnt = rebalance_experts(load, 16, 4, 2, 8, policy="deepseek")
    >>> phy2log.tolist()
    [[5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1]]
    """
    load = as_load(weight)
    topology = Topology(load.shape[1], num_replicas, num_gpus, num_nodes, num_groups)
    check_policy(policy, topology)
    check_room(len(load), topology, log2phy=POLICIES[policy].log2phy_width is width_for_any_plan)
    phy2log, phyrank, logcnt = make_maps(load, topology, policy, num_threads)
    width = log2phy_width(topology, policy, logcnt)
    return phy2log, make_log2phy(phy2log, phyrank, load.shape[1], width), logcnt


def rebalance_experts_hierarchical(
    weight: ArrayLike,
    num_physical_experts: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    num_threads: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Plan hierarchically: whole groups to nodes, replicas within nodes, then replicas to GPUs.

    Parameters
    ----------
    weight : array_like, shape [L, E], any real dtype
        Load of each logical expert of each layer, in any unit. Cast to float32.
    num_physical_experts : int
        Physical experts (slots) of a layer, P; a multiple of ``num_gpus``, at least E.
    num_groups : int
        Groups of consecutive logical experts; divides E and is a multiple of ``num_nodes``.
    num_nodes : int
        Nodes; divides ``num_gpus``.
    num_gpus : int
        GPUs; slot ``s`` belongs to GPU ``s // (num_physical_experts // num_gpus)``.
    num_threads : int, optional
        Threads over layers; the default is that of `rebalance_experts`.

    Returns
    -------
    phy2log : ndarray, shape [L, P], int64
        Logical expert in each slot.
    phyrank : ndarray, shape [L, P], int64
        Rank of each slot's replica among the replicas of its expert, from 0.
    logcnt : ndarray, shape [L, E], int64
        Number of replicas of each expert.

    Raises
    ------
    ValueError
        As `rebalance_experts`, and if ``num_nodes`` does not divide ``num_groups``.

    See Also
    --------
    rebalance_experts : The same, but plans globally if ``num_nodes`` does not divide the groups.

    Notes
    -----
    This is the hybrid policy. Ties, arithmetic and complexity are as in `rebalance_experts`.

    Examples
    --------
    >>> phy2log, phyrank, logcnt = rebalance_experts_hierarchical([[9, 1, 5, 5]], 6, 2, 2, 2)
    >>> phy2log.tolist(), logcnt.tolist()
    ([[0, 0, 1, 3, 2, 2]], [[2, 1, 2, 1]])
    """
    load = as_load(weight)
    topology = Topology(load.shape[1], num_physical_experts, num_gpus, num_nodes, num_groups)
    topology.check_hierarchical()
    check_policy("hybrid", topology)
    check_room(len(load), topology)
    return tuple(make_maps(load, topology, "hybrid", num_threads))  # type: ignore[return-value]


def replicate_experts(
    weight: ArrayLike, num_phy: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Choose the number of replicas of every logical expert, by its load.

    Parameters
    ----------
    weight : array_like, shape [X, E], any real dtype
        Load of each logical expert, in any unit; rows are planned independently. Cast to
        float32.
    num_phy : int
        Number of physical experts (replicas) of a row, at least E.

    Returns
    -------
    phy2log : ndarray, shape [X, num_phy], int64
        Logical expert of each physical expert, ascending: an expert's replicas are adjacent.
    rank : ndarray, shape [X, num_phy], int64
        Rank of each physical expert among the replicas of its logical expert, from 0.
    logcnt : ndarray, shape [X, E], int64
        Number of replicas of each logical expert, at least 1.

    Raises
    ------
    ValueError
        If ``weight`` is not 2-D, is empty, of a dtype that is not real, or holds a load that is
        NaN, infinite, negative or beyond float32's range; if ``num_phy`` is not an integer or
        less than E.

    See Also
    --------
    balanced_packing : The next stage, which places the replicas.

    Notes
    -----
    Every expert starts with one replica. Each further replica goes to the expert with the
    largest ``load / count`` (Adams' divisor method [1]_), except for the last tenth, which goes
    by Sainte-Lague's ``load / (2 count + 1)``. A final step would move a replica from the
    expert with the largest load per replica to the one with the smallest, if that lowered the
    largest; it never does. Ties go to the lower expert. O(E + (P - E) log E) for each row.

    References
    ----------
    .. [1] M. L. Balinski and H. P. Young, "Fair Representation", 2nd ed., Brookings, 2001.

    Examples
    --------
    >>> phy2log, rank, logcnt = replicate_experts([[90, 30, 10]], 5)
    >>> logcnt.tolist(), phy2log.tolist()
    ([[3, 1, 1]], [[0, 0, 0, 1, 2]])
    """
    load = as_load(weight)
    num_layers, num_experts = load.shape
    num_replicas = as_size("num_phy", num_phy)
    check_enough_replicas(num_replicas, num_experts)
    check_memory(
        f"{num_layers} rows of {num_replicas} replicas",
        num_layers * (2 * num_replicas + num_experts),
    )
    from eplb_np.stages.replication.cpu import replicate_layers

    phy2log = np.empty((num_layers, num_replicas), np.int64)
    rank = np.empty((num_layers, num_replicas), np.int64)
    logcnt = np.empty((num_layers, num_experts), np.int64)
    replicate_layers(load, phy2log, rank, logcnt)
    return phy2log, rank, logcnt


def balanced_packing(
    weight: ArrayLike, num_packs: int, refine_steps: int = 2
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pack the items of each row into packs of equal size and nearly equal load.

    Parameters
    ----------
    weight : array_like, shape [X, n], any real dtype
        Load of each item, in any unit; rows are packed independently. Cast to float32.
    num_packs : int
        Number of packs; divides n.
    refine_steps : int, default: 2
        Maximum number of swaps between the heaviest and the lightest pack after packing; 0 for
        none.

    Returns
    -------
    pack_index : ndarray, shape [X, n], int64
        Pack of each item.
    rank_in_pack : ndarray, shape [X, n], int64
        Position of each item in its pack, from 0.

    Raises
    ------
    ValueError
        If ``weight`` is not 2-D, is empty, of a dtype that is not real, or holds a load that is
        NaN, infinite, negative or beyond float32's range; if a size is not an integer or too
        small, or ``num_packs`` does not divide n.

    See Also
    --------
    replicate_experts : The previous stage, which chooses the replicas.

    Notes
    -----
    Longest processing time first (LPT) [1]_, with packs of equal size: items are taken by
    descending load, and each goes to the lightest pack that is not full. The refinement follows:
    up to ``refine_steps`` times, the heaviest and the lightest pack exchange the two items that
    bring their loads closest together, as long as that narrows the gap. Ties go to the lower
    index. With one item per pack, item i goes to pack i. O(n log num_packs) for each row.

    References
    ----------
    .. [1] R. L. Graham, "Bounds on multiprocessing timing anomalies", SIAM Journal on Applied
       Mathematics 17(2), 1969.

    Examples
    --------
    >>> pack_index, rank_in_pack = balanced_packing([[9, 7, 5, 4, 3, 2]], 2)
    >>> pack_index.tolist(), rank_in_pack.tolist()
    ([[0, 1, 1, 0, 1, 0]], [[0, 0, 1, 1, 2, 2]])
    """
    load = as_load(weight, columns="items")
    packs = as_size("num_packs", num_packs)
    steps = min(as_size("refine_steps", refine_steps, minimum=0, maximum=None), MOST_STEPS)
    check_multiple("the number of items", load.shape[1], "num_packs", packs)
    from eplb_np.stages.packing.cpu import pack_layers

    pack_index = np.empty(load.shape, np.int64)
    rank_in_pack = np.empty(load.shape, np.int64)
    pack_layers(load, packs, steps, pack_index, rank_in_pack)
    return pack_index, rank_in_pack
