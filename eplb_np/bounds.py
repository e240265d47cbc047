"""A load that the busiest GPU of no plan can stay under."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import check_is
from eplb_np._loads.host import as_load
from eplb_np.topology import Topology

BISECTIONS = 60


def lower_bound(load: ArrayLike, topology: Topology) -> NDArray[np.float64]:
    """Lower bound on the largest GPU load of each layer, over all plans of a topology.

    Where GPUs differ in speed, it bounds the longest time, which is a GPU's load over its speed.

    Parameters
    ----------
    load : array_like, shape [L, E]
        Load of each logical expert, in any unit; split evenly over an expert's replicas.
    topology : Topology
        Sizes. Where its placement is hierarchical, the bound is over plans that keep groups
        whole and give each node equally many.

    Returns
    -------
    ndarray, shape [L], float64
        In the unit of ``load``, at speed 1.

    Raises
    ------
    ValueError
        If ``load`` is not a valid load, or not of ``topology.num_experts`` experts, or
        ``topology`` is none.

    Notes
    -----
    The largest of three bounds, each with its proof.

    1. *The mean.* The GPU loads sum up to the layer's load, so the longest time is at least the
       layer's load over the speed of all active GPUs together.
    2. *The largest replica.* A GPU carries at least each replica in it, and none is faster than
       the fastest. Let P be the slots of the active GPUs. Suppose no replica
       carries more than M. Then expert e has at least ``ceil(load[e] / M)`` replicas, and at
       least one. If these sum up to more than P, there is no such plan, so in every plan some
       replica, and its GPU, carries more than M. The bound is the largest such M that a
       bisection finds: a certificate in itself, whatever its last digits. (Rounding of
       ``load / M`` can only lower the ceiling, never raise it over the true one.)
    3. *The heaviest node*, where placement is hierarchical, with N nodes of k groups each: its
       load over the speed of the fastest node, bounded from the groups' loads sorted descending,
       g[0] >= g[1] >= ... For each j < k, the j N + 1 heaviest groups lie on N nodes, so some
       node has at least j + 1 of them, which weigh at least as much as the last j + 1 of these;
       its other k - j - 1 groups weigh at least as much as the lightest of all. Where k = 2 the
       bound is the exact optimum: pair the heaviest with the lightest, and so on inwards. For
       take any pair i, of g[i] and g[2 N - 1 - i]. Either two of the i + 1 heaviest groups share
       a node, whose load is then at least g[i - 1] + g[i]. Or they lie on different nodes,
       beside i + 1 different partners, of which the heaviest weighs at least g[2 N - 1 - i]; its
       node weighs at least g[i] more. In both cases some node is no lighter than the pair.

    Bounds hold up to the rounding of float64 sums.

    O(L E) for the second bound times a constant of 60 bisections.
    """
    check_is("topology", topology, Topology, "make one of the sizes")
    as_load(load, "load")
    weight = np.asarray(load).astype(np.float64)  # the bound is on the loads as given
    if weight.shape[1] != topology.num_experts:
        raise ValueError(
            f"load has {weight.shape[1]} experts, but the topology is for "
            f"num_experts={topology.num_experts}"
        )
    slots = topology.active_slots
    speed = np.where(slots > 0, 1.0 / topology.slowness, 0.0)
    bound: NDArray[np.float64] = np.maximum(
        weight.sum(axis=1) / speed.sum(), _largest_replica(weight, int(slots.sum())) / speed.max()
    )
    num_groups, num_nodes = topology.packed_groups_and_nodes
    if num_nodes > 1:
        group_load = weight.reshape(weight.shape[0], num_groups, -1).sum(axis=2)
        fastest = speed.reshape(num_nodes, -1).sum(axis=1).max()
        bound = np.maximum(bound, _heaviest_node(group_load, num_nodes) / fastest)
    return bound


def _largest_replica(weight: NDArray[np.float64], num_slots: int) -> NDArray[np.float64]:
    low = np.zeros(weight.shape[0])  # more than P replicas would be needed, or no load at all
    high = weight.max(axis=1)  # one replica of each is enough
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            needed = np.maximum(np.ceil(weight / middle[:, None]), 1).sum(axis=1)
        impossible = needed > num_slots
        low = np.where(impossible, middle, low)
        high = np.where(impossible, high, middle)
    return low


def _heaviest_node(group_load: NDArray[np.float64], num_nodes: int) -> NDArray[np.float64]:
    descending = -np.sort(-group_load, axis=1)
    node_groups = group_load.shape[1] // num_nodes
    bound: NDArray[np.float64]
    if node_groups == 2:
        bound = (descending + descending[:, ::-1]).max(axis=1)
        return bound
    bound = np.zeros(group_load.shape[0])
    for j in range(node_groups):
        heavy = descending[:, j * num_nodes - j : j * num_nodes + 1].sum(axis=1)
        light = descending[:, descending.shape[1] - (node_groups - j - 1) :].sum(axis=1)
        bound = np.maximum(bound, heavy + light)
    return bound
