"""The entry points of the published algorithm, under its own names."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._check import as_load
from eplb_np.policies import Policy, check_policy, log2phy_width, make_log2phy, make_maps
from eplb_np.topology import Topology


def rebalance_experts(
    weight: ArrayLike,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    policy: Policy = "hybrid",
    num_threads: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Plan which expert goes into each slot of each GPU, for every layer.

    Parameters
    ----------
    weight : array_like, shape [L, E], any real dtype
        Load of each logical expert of each layer, in any unit (tokens, usually). Cast to
        float32.
    num_replicas : int
        Physical experts (slots) of a layer, P; a multiple of ``num_gpus``, at least E.
    num_groups : int
        Groups of consecutive logical experts; divides E.
    num_nodes : int
        Nodes; divides ``num_gpus``. Where it does not divide ``num_groups``, the placement is
        global: one group, one node (`Plan.placement` says which it was).
    num_gpus : int
        GPUs; slot ``s`` belongs to GPU ``s // (num_replicas // num_gpus)``.
    policy : {"hybrid", "deepseek", "refined"}, default: "hybrid"
        ``"hybrid"``: Adams' allocation with a Sainte-Lague tail, LPT packing, refinement.
        ``"deepseek"``: the original of deepseek-ai/EPLB, bit for bit under stable ties.
        ``"refined"``: local search for the best balance, and no expert twice on a GPU where
        that can be; it takes some ten times as long.
    num_threads : int, optional
        Threads over layers. By default 1 for plans of up to 131,072 slots in all, and for
        larger ones as many as there are CPUs, at most 4. The result does not depend on it.

    Returns
    -------
    phy2log : ndarray, shape [L, P], int64
        Logical expert in each slot.
    log2phy : ndarray, shape [L, E, X], int64
        Slot of each replica of an expert, by its rank; -1 where there is none. X is P - E + 1
        for ``"hybrid"``, else the largest replica count.
    logcnt : ndarray, shape [L, E], int64
        Number of replicas of each expert.

    Raises
    ------
    ValueError
        If ``weight`` is not 2-D, is empty, of a dtype that is not real, or holds a load that is
        NaN, infinite, negative or beyond float32's range; if a size is not a positive integer,
        or two sizes do not fit; if ``policy`` is unknown. Nothing has been computed then.

    See Also
    --------
    make_plan : The same plan as an object, without the cost of ``log2phy``.

    Notes
    -----
    Groups go to nodes, experts are replicated within their node, and the replicas are packed
    into the node's GPUs [1]_. Ties go to the lower index everywhere, and arithmetic is float32
    without reassociation, so the result is the same bytes on every machine.
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
    """Plan hierarchically: whole groups to nodes, replicas within nodes, replicas to GPUs.

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
        Threads over layers, chosen as in `rebalance_experts`.

    Returns
    -------
    phy2log : ndarray, shape [L, P], int64
        Logical expert in each slot.
    phyrank : ndarray, shape [L, P], int64
        Which of its expert's replicas is in the slot, from 0.
    logcnt : ndarray, shape [L, E], int64
        Number of replicas of each expert.

    Raises
    ------
    ValueError
        As `rebalance_experts`, and if ``num_nodes`` does not divide ``num_groups``.

    See Also
    --------
    rebalance_experts : The entry point, which goes global where groups do not fit the nodes.

    Notes
    -----
    The hybrid policy; ties, arithmetic and complexity as in `rebalance_experts`.

    Examples
    --------
    >>> phy2log, phyrank, logcnt = rebalance_experts_hierarchical([[9, 1, 5, 5]], 6, 2, 2, 2)
    >>> phy2log.tolist(), logcnt.tolist()
    ([[0, 0, 1, 2, 2, 3]], [[2, 1, 2, 1]])
    """
    load = as_load(weight)
    topology = Topology(load.shape[1], num_physical_experts, num_gpus, num_nodes, num_groups)
    topology.check_hierarchical()
    check_policy("hybrid", topology)
    return tuple(make_maps(load, topology, "hybrid", num_threads))  # type: ignore[return-value]
