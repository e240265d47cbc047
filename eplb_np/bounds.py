"""A lower bound on the load of the busiest GPU, whatever the plan."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import check_is
from eplb_np._loads.host import as_load
from eplb_np.topology import Topology

BISECTIONS = 60


def lower_bound(load: ArrayLike, topology: Topology) -> NDArray[np.float64]:
    """Lower bound on the largest GPU load of each layer, over all plans of a topology.

    Where GPUs differ in speed, the bound is on the longest time: a GPU's load over its speed.

    Parameters
    ----------
    load : array_like, shape [L, E]
        Load of each logical expert, in any unit. An expert's replicas share its load evenly.
    topology : Topology
        Sizes of the deployment. Where its placement is hierarchical, the bound is over plans
        that keep groups whole and give each node the same number of groups. With bridges, it is
        over all plans.

    Returns
    -------
    ndarray, shape [L], float64
        In the unit of ``load``, at speed 1.

    Raises
    ------
    ValueError
        If ``load`` is not a valid load of ``topology.num_experts`` experts, or ``topology`` is
        not a `Topology`.

    Notes
    -----
    The result is the largest of three bounds. Each comes with its proof.

    1. *The mean.* The GPU loads add up to the layer's load, so the longest time is at least the
       layer's load over the speed of all active GPUs together.
    2. *The largest replica.* A GPU carries at least each replica in it, and none is faster than
       the fastest GPU. Let P be the number of slots of the active GPUs. Suppose no replica
       carries more than M. Then expert e has at least ``ceil(load[e] / M)`` replicas, and at
       least one. If these add up to more than P, no such plan exists, so in every plan some
       replica, and its GPU, carries more than M. The bound is the largest such M that a
       bisection finds. Any such M is a valid bound, however precise the bisection. (Rounding of
       ``load / M`` can lower the ceiling, but never raise it above the true one.)
    3. *The heaviest node*, where placement is hierarchical, with N nodes of k groups each: its
       load over the speed of the fastest node, bounded from the groups' loads sorted descending,
       g[0] >= g[1] >= ... For each j < k, the j N + 1 heaviest groups lie on N nodes, so some
       node has at least j + 1 of them, which weigh at least as much as the lightest j + 1 of
       them. The node's other k - j - 1 groups weigh at least as much as the k - j - 1 lightest
       groups of all. Where k = 2 the bound is the exact optimum: pair the heaviest group with
       the lightest, the second heaviest with the second lightest, and so on. Proof: take any
       pair i, g[i] and g[2 N - 1 - i]. Either two of the i + 1 heaviest groups share a node,
       whose load is then at least g[i - 1] + g[i]. Or they lie on different nodes, with i + 1
       different partners. The heaviest of these partners weighs at least g[2 N - 1 - i], and
       the other group on its node at least g[i]. In both cases some node is at least as heavy
       as the pair.

    The bounds hold up to the rounding of float64 sums. O(60 L E): the second bound takes 60
    bisection steps.

    Examples
    --------
    >>> from eplb_np import Topology, lower_bound
    >>> topology = Topology(num_experts=4, num_replicas=6, num_gpus=2)
    >>> lower_bound([[90, 30, 10, 10]], topology).tolist()  # the mean of two GPUs
    [70.0]
    >>> lower_bound([[90, 1, 1, 1]], Topology(4, 4, num_gpus=4)).round(6).tolist()  # one slot each
    [90.0]
    """
    check_is("topology", topology, Topology, "build one from the sizes")
    as_load(load, "load")
    weight = np.asarray(load).astype(np.float64)  # not the float32 that kernels plan from
    if weight.shape[1] != topology.num_experts:
        raise ValueError(
            f"load has {weight.shape[1]} experts, but the topology is for "
            f"num_experts={topology.num_experts}: give loads and a topology of the same experts"
        )
    slots = topology.active_slots
    speed = np.where(slots > 0, 1.0 / topology.slowness, 0.0)
    bound: NDArray[np.float64] = weight.sum(axis=1) / speed.sum()
    replica = _largest_replica(weight, int(slots.sum()), bound * speed.max())
    bound = np.maximum(bound, replica / speed.max())
    num_groups, num_nodes = topology.packed_groups_and_nodes
    if num_nodes > 1 and topology.bridges == 0:
        group_load = weight.reshape(weight.shape[0], num_groups, -1).sum(axis=2)
        fastest = speed.reshape(num_nodes, -1).sum(axis=1).max()
        bound = np.maximum(bound, _heaviest_node(group_load, num_nodes) / fastest)
    return bound


def _largest_replica(
    weight: NDArray[np.float64], num_slots: int, least: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bound the largest replica of each layer; 0 where ``least`` is no smaller, for speed."""
    bound = np.zeros(weight.shape[0])
    larger = _needed(weight, least) > num_slots
    weight = weight[larger]
    low = np.zeros(weight.shape[0])  # needs more than P replicas
    high = weight.max(axis=1, initial=0.0)  # one replica of each expert is enough
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        impossible = _needed(weight, middle) > num_slots
        low = np.where(impossible, middle, low)
        high = np.where(impossible, high, middle)
    bound[larger] = low
    return bound


def _needed(weight: NDArray[np.float64], most: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replicas of each layer that are needed so that none carries more than ``most``."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        needed: NDArray[np.float64] = np.maximum(np.ceil(weight / most[:, None]), 1).sum(axis=1)
    return needed


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
