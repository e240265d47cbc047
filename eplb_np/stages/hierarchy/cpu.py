"""The whole plan of a layer, node by node: groups to nodes, replicas within nodes, to GPUs.

The twins are `simd.py`, for many small nodes at once, and `cuda.py`, by the threads of a block.

Letters: L layers, E logical experts, P physical experts (replicas, slots), G groups, N nodes,
D GPUs; n = E / N experts and p = P / N replicas of one node.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.arrays import floats, ints
from eplb_np._numba.jit import allocator, entry, kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.maps.maps import Maps
from eplb_np.stages.hierarchy.decisions import GPU_REFINE_STEPS, NO_REFINE_STEPS
from eplb_np.stages.hierarchy.nodes import (
    GroupScratch,
    Node,
    gather_node,
    make_group_scratch,
    pack_groups,
    replicas_by_expert,
    replicas_by_grant,
    weigh_replicas,
    write_node,
)
from eplb_np.stages.packing.cpu import PackScratch, make_pack_scratch, pack_sorted
from eplb_np.stages.priority_queue.cpu import num_leaves
from eplb_np.stages.replication.cpu import allocate_replicas, donor_fixup
from eplb_np.stages.replication.decisions import tail_length
from eplb_np.stages.sorting.cpu import sort_descending


class NodeScratch(NamedTuple):
    """A node, and working memory for its plan."""

    node: Node  # whose `order` is that of `packing`
    first: Ints  # [n] int64, an expert's first replica, or its next rank
    tree: Ints  # [2 * leaves(n)] int64, winner tree of the experts
    packing: PackScratch


@allocator
def make_node_scratch(num_experts: Int, num_replicas: Int, num_gpus: Int) -> NodeScratch:
    """Allocate a `NodeScratch`, once per call and not per layer."""
    packing = make_pack_scratch(num_replicas, num_gpus)
    node = Node(
        ints(num_experts),
        floats(num_experts),
        floats(num_experts),
        ints(num_experts),
        ints(num_experts),
        ints(num_replicas - num_experts),
        floats(num_replicas),
        ints(num_replicas),
        ints(num_replicas),
        packing.order,
        ints(num_replicas),
        ints(num_replicas),
    )
    return NodeScratch(node, ints(num_experts), ints(2 * num_leaves(num_experts)), packing)


@entry
def plan_layers(
    weight: Floats,
    num_groups: Int,
    num_nodes: Int,
    num_gpus: Int,
    hybrid: bool,
    phy2log: Ints,
    phyrank: Ints,
    logcnt: Ints,
) -> None:
    """Plan every layer, by the hybrid or the deepseek policy. Nothing is checked.

    Parameters
    ----------
    weight : ndarray, shape [L, E], float32
        Load of each logical expert, in any unit.
    num_groups, num_nodes, num_gpus : int
        As in `eplb_np.Topology`; ``num_nodes`` divides ``num_groups``. For a global plan, 1 and 1.
    hybrid : bool
        True for the hybrid policy, False for DeepSeek's.
    phy2log : ndarray, shape [L, P], int64
        Out: the logical expert in each slot.
    phyrank : ndarray, shape [L, P], int64
        Out: which of its expert's replicas is in the slot, from 0.
    logcnt : ndarray, shape [L, E], int64
        Out: number of replicas of each expert.

    Notes
    -----
    The plans of `eplb_np.rebalance_experts`, with its ties and its source. At most
    O(L (E + P log P)), in O(E + P) memory, whatever L.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np.kernels import plan_layers
    >>> phy2log, phyrank = np.empty((2, 1, 6), np.int64)
    >>> logcnt = np.empty((1, 4), np.int64)
    >>> plan_layers(np.float32([[90, 30, 10, 10]]), 1, 1, 2, True, phy2log, phyrank, logcnt)
    >>> phy2log.tolist(), logcnt.tolist()
    ([[0, 0, 2, 0, 1, 3]], [[3, 1, 1, 1]])
    """
    num_layers, num_experts = weight.shape
    node_experts = num_experts // num_nodes
    node_replicas = phy2log.shape[1] // num_nodes
    groups = make_group_scratch(num_groups, num_nodes)
    scratch = make_node_scratch(node_experts, node_replicas, num_gpus // num_nodes)
    for i in range(num_layers):
        maps = Maps(phy2log[i], phyrank[i], logcnt[i])
        plan_layer(weight[i], num_nodes, num_gpus, hybrid, maps, groups, scratch)


@kernel
def plan_layer(
    weight: Floats,
    num_nodes: Int,
    num_gpus: Int,
    hybrid: bool,
    maps: Maps,
    groups: GroupScratch,
    scratch: NodeScratch,
) -> None:
    """Plan one layer: arguments as `plan_layers`, without the layer axis."""
    pack_groups(weight, num_nodes, hybrid, groups)
    for index in range(num_nodes):
        gather_node(weight, groups.by_node, index, num_nodes, scratch.node)
        plan_node(num_gpus // num_nodes, hybrid, scratch)
        write_node(scratch.node, index, maps.phy2log.shape[0] // num_gpus, maps)


@kernel
def plan_node(num_gpus: Int, hybrid: bool, scratch: NodeScratch) -> None:
    """Plan the node of ``scratch``, which has ``num_gpus`` GPUs: its replicas, and their GPUs.

    Twin of `plan_nodes` in `simd.py` and of the function of this name in `cuda.py`.
    """
    node, first, tree, packing = scratch

    # Replicas within the node.
    num_extra = node.granted.shape[0]
    num_tail = tail_length(num_extra) if hybrid else 0
    allocate_replicas(node.weight, num_extra, num_tail, node.logcnt, node.granted, tree)
    if hybrid:
        donor_fixup(node.weight, node.logcnt)
    weigh_replicas(node)

    # Replicas to GPUs.
    load, order = node.average, node.by_average
    if not hybrid:
        replicas_by_grant(node, first)
        load, order = node.replica_weight, node.order
    sort_descending(load, order, packing.keys, packing.spare, packing.histogram)
    if hybrid:
        replicas_by_expert(node, first)
    refine_steps = GPU_REFINE_STEPS if hybrid else NO_REFINE_STEPS
    pack_sorted(node.replica_weight, num_gpus, refine_steps, node.pack, node.rank, packing)
