"""The whole plan of many small nodes, stage by stage, in SIMD batches.

Twin of `cpu.py`, where each node goes through all stages alone, and of `cuda.py`. The plans are
the same.

Letters: X nodes of a batch, of one layer or of several; n logical experts, p physical experts
(replicas, slots) and D GPUs of each.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.arrays import float_table, int_table, ints
from eplb_np._numba.jit import allocator, entry, kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.maps.maps import Maps
from eplb_np.stages.hierarchy.decisions import GPU_REFINE_STEPS
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
from eplb_np.stages.packing.simd import pack_batch
from eplb_np.stages.refinement.cpu import Packing
from eplb_np.stages.refinement.simd import refine_batch
from eplb_np.stages.replication.cpu import donor_fixup
from eplb_np.stages.replication.decisions import tail_length
from eplb_np.stages.replication.simd import allocate_batch
from eplb_np.stages.simd_batch import WIDTH, Batch, make_batch
from eplb_np.stages.sorting.simd import sort_batch

FEWEST_NODES = 8


MOST_NODE_EXPERTS = 128
"""Beyond this, a batch outgrows the first cache: nodes of 256 experts take a sixth more time."""


def pays(num_nodes: int, num_experts: int, gpu_slots: int) -> bool:
    """Whether batches are faster for nodes of ``num_experts``: from 8 of 64, or 16 of 128.

    With one slot per GPU there is nothing to pack, and batches do not apply.
    """
    enough_nodes = num_nodes >= max(FEWEST_NODES, num_experts // 8)
    return enough_nodes and num_experts <= MOST_NODE_EXPERTS and gpu_slots > 1


class NodesScratch(NamedTuple):
    """X nodes, and working memory for their plans."""

    nodes: Node  # each array with an axis [X] in front
    members: Ints  # [X, p] int64, replicas by GPU
    first: Ints  # [n] int64, an expert's first replica, or its next rank
    batch: Batch


@allocator
def make_nodes_scratch(num_experts: Int, num_replicas: Int) -> NodesScratch:
    """Allocate a `NodesScratch`, once per call and not per layer."""
    nodes = Node(
        int_table(WIDTH, num_experts),
        float_table(WIDTH, num_experts),
        float_table(WIDTH, num_experts),
        int_table(WIDTH, num_experts),
        int_table(WIDTH, num_experts),
        int_table(WIDTH, num_replicas - num_experts),
        float_table(WIDTH, num_replicas),
        int_table(WIDTH, num_replicas),
        int_table(WIDTH, num_replicas),
        int_table(WIDTH, num_replicas),
        int_table(WIDTH, num_replicas),
        int_table(WIDTH, num_replicas),
    )
    members = int_table(WIDTH, num_replicas)
    return NodesScratch(nodes, members, ints(num_experts), make_batch(num_replicas))


@kernel
def node_of(nodes: Node, x: Int) -> Node:
    """One of X nodes, as views.

    For kernels alone, which count no references to arrays: entries would count these wrongly.
    """
    return Node(
        nodes.expert[x],
        nodes.weight[x],
        nodes.average[x],
        nodes.by_average[x],
        nodes.logcnt[x],
        nodes.granted[x],
        nodes.replica_weight[x],
        nodes.replica_expert[x],
        nodes.replica_rank[x],
        nodes.order[x],
        nodes.pack[x],
        nodes.rank[x],
    )


@entry
def plan_layers_in_lockstep(
    weight: Floats,
    num_groups: Int,
    num_nodes: Int,
    num_gpus: Int,
    hybrid: bool,
    phy2log: Ints,
    phyrank: Ints,
    logcnt: Ints,
) -> None:
    """Plan every layer as `plan_layers` does, sooner for many nodes of few experts.

    Parameters
    ----------
    weight : ndarray, shape [L, E], float32
        Load of each logical expert, in any unit.
    num_groups, num_nodes, num_gpus : int
        As for `plan_layers`. Every GPU has more than one slot.
    hybrid : bool
        True for the hybrid policy, False for DeepSeek's.
    phy2log, phyrank : ndarray, shape [L, P], int64
        Out: as for `plan_layers`.
    logcnt : ndarray, shape [L, E], int64
        Out: as for `plan_layers`.

    Notes
    -----
    The same plans, in SIMD batches of nodes. Complexity and memory are those of `plan_layers`.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np.kernels import plan_layers_in_lockstep
    >>> weight = np.tile(np.float32([90, 30, 10, 10]), (8, 1))
    >>> phy2log, phyrank = np.empty((2, 8, 6), np.int64)
    >>> logcnt = np.empty((8, 4), np.int64)
    >>> plan_layers_in_lockstep(weight, 1, 1, 2, True, phy2log, phyrank, logcnt)
    >>> phy2log[7].tolist()
    [0, 0, 2, 0, 1, 3]
    """
    groups = make_group_scratch(num_groups, num_nodes)
    scratch = make_nodes_scratch(weight.shape[1] // num_nodes, phy2log.shape[1] // num_nodes)
    maps = Maps(phy2log, phyrank, logcnt)
    plan_in_batches(weight, num_nodes, num_gpus, hybrid, maps, groups, scratch)


@kernel
def plan_in_batches(
    weight: Floats,
    num_nodes: Int,
    num_gpus: Int,
    hybrid: bool,
    maps: Maps,
    groups: GroupScratch,
    scratch: NodesScratch,
) -> None:
    """Plan the nodes of all layers, `WIDTH` at a time."""
    phy2log, phyrank, logcnt = maps
    total = weight.shape[0] * num_nodes
    for start in range(0, total, WIDTH):
        size = min(WIDTH, total - start)
        for x in range(size):
            layer, index = (start + x) // num_nodes, (start + x) % num_nodes
            if index == 0:
                pack_groups(weight[layer], num_nodes, hybrid, groups)
            node = node_of(scratch.nodes, x)
            gather_node(weight[layer], groups.by_node, index, num_nodes, node)
        plan_nodes(size, num_gpus // num_nodes, hybrid, scratch)
        for x in range(size):
            layer, index = (start + x) // num_nodes, (start + x) % num_nodes
            layer_maps = Maps(phy2log[layer], phyrank[layer], logcnt[layer])
            node = node_of(scratch.nodes, x)
            write_node(node, index, phy2log.shape[1] // num_gpus, layer_maps)


@kernel
def plan_nodes(num_nodes: Int, num_gpus: Int, hybrid: bool, scratch: NodesScratch) -> None:
    """Plan the first ``num_nodes`` nodes of ``scratch``, which have ``num_gpus`` GPUs each.

    Twin of `plan_node` in `cpu.py`.
    """
    nodes, members, first, batch = scratch

    # Replicas within the nodes.
    num_extra = nodes.granted.shape[1]
    num_tail = tail_length(num_extra) if hybrid else 0
    allocate_batch(num_nodes, nodes.weight, num_extra, num_tail, nodes.logcnt, nodes.granted, batch)
    for x in range(num_nodes):
        if hybrid:
            donor_fixup(nodes.weight[x], nodes.logcnt[x])
        weigh_replicas(node_of(nodes, x))

    # Replicas to GPUs.
    if hybrid:
        sort_batch(num_nodes, nodes.average, nodes.by_average, batch)
    for x in range(num_nodes):
        if hybrid:
            replicas_by_expert(node_of(nodes, x), first)
        else:
            replicas_by_grant(node_of(nodes, x), first)
    if not hybrid:
        sort_batch(num_nodes, nodes.replica_weight, nodes.order, batch)
    packing = Packing(nodes.pack, nodes.rank, members)
    pack_batch(num_nodes, nodes.replica_weight, nodes.order, num_gpus, packing, batch)
    if hybrid:
        refine_batch(num_nodes, nodes.replica_weight, num_gpus, GPU_REFINE_STEPS, packing, batch)
