"""Groups to nodes, and what a node's plan is made of: shared by `cpu.py` and `simd.py`.

The functions take one node at a time. Their twins in `cuda.py` have the same names.

Letters: E logical experts, P slots, G groups, N nodes of a layer; n = E / N logical experts and
p = P / N replicas of one node.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.arrays import floats, ints
from eplb_np._numba.indexing import at
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.maps.maps import Maps
from eplb_np.stages.decisions import adams_quotient
from eplb_np.stages.hierarchy.decisions import GROUP_REFINE_STEPS, NO_REFINE_STEPS, group_load
from eplb_np.stages.packing.cpu import PackScratch, make_pack_scratch, pack_sorted
from eplb_np.stages.sorting.cpu import sort_descending


class Node(NamedTuple):
    """Experts and replicas of one node. In SIMD batches, an axis of nodes comes in front."""

    expert: Ints  # [n] int64, logical expert at each node-local place
    weight: Floats  # [n] float32
    average: Floats  # [n] float32, load of each of an expert's replicas
    by_average: Ints  # [n] int64, experts by descending average
    logcnt: Ints  # [n] int64
    granted: Ints  # [p - n] int64, experts in the order of the grants
    replica_weight: Floats  # [p] float32
    replica_expert: Ints  # [p] int64
    replica_rank: Ints  # [p] int64
    order: Ints  # [p] int64, replicas by descending load
    pack: Ints  # [p] int64, GPU of each replica
    rank: Ints  # [p] int64, its rank there


class GroupScratch(NamedTuple):
    """Working memory for giving groups to nodes."""

    load: Floats  # [G] float32
    node: Ints  # [G] int64
    rank: Ints  # [G] int64
    by_node: Ints  # [G] int64, groups by node, then by rank in the node
    packing: PackScratch


@allocator
def make_group_scratch(num_groups: Int, num_nodes: Int) -> GroupScratch:
    """Allocate a `GroupScratch`, once per call and not per layer."""
    return GroupScratch(
        floats(num_groups),
        ints(num_groups),
        ints(num_groups),
        ints(num_groups),
        make_pack_scratch(num_groups, num_nodes),
    )


@kernel
def pack_groups(weight: Floats, num_nodes: Int, hybrid: bool, groups: GroupScratch) -> None:
    """Give the groups of a layer to nodes; out: ``groups.by_node``."""
    num_groups = groups.load.shape[0]
    node_groups = num_groups // num_nodes
    if node_groups > 1:
        sum_groups(weight, groups.load)
        sorting = groups.packing
        sort_descending(groups.load, sorting.order, sorting.keys, sorting.spare, sorting.histogram)
    refine_steps = GROUP_REFINE_STEPS if hybrid else NO_REFINE_STEPS
    pack_sorted(groups.load, num_nodes, refine_steps, groups.node, groups.rank, groups.packing)
    for g in range(num_groups):
        groups.by_node[groups.node[g] * node_groups + groups.rank[g]] = g


@kernel
def sum_groups(weight: Floats, load: Floats) -> None:
    """Load of each group: ``weight`` [E]; out: ``load`` [G]."""
    group_size = weight.shape[0] // load.shape[0]
    for g in range(load.shape[0]):
        load[g] = group_load(weight, g, group_size)


@kernel
def gather_node(weight: Floats, by_node: Ints, index: Int, num_nodes: Int, node: Node) -> None:
    """Write the experts of node ``index``, group by group, and their loads.

    ``weight`` [E], ``by_node`` [G]; out: ``node.expert``, ``node.weight``.
    """
    node_groups = by_node.shape[0] // num_nodes
    group_size = node.expert.shape[0] // node_groups
    for i in range(node_groups):
        first_expert = by_node[index * node_groups + i] * group_size
        for j in range(group_size):
            node.expert[i * group_size + j] = first_expert + j
            node.weight[i * group_size + j] = weight[first_expert + j]


@kernel
def weigh_replicas(node: Node) -> None:
    """Load of each of an expert's replicas; out: ``node.average``."""
    for e in range(node.weight.shape[0]):
        node.average[e] = adams_quotient(node.weight[e], node.logcnt[e])


@kernel
def replicas_by_expert(node: Node, first: Ints) -> None:
    """Hybrid policy: the replicas of an expert lie side by side.

    They have the same load, so the order of the experts by their averages is that of the replicas.
    In: ``average``, ``by_average``, ``logcnt``; out: ``replica_weight``, ``replica_expert``,
    ``replica_rank``, ``order``; scratch: ``first`` [n] int64, an expert's first replica.
    """
    logcnt = node.logcnt
    replica = 0
    for e in range(logcnt.shape[0]):
        first[at(e)] = replica
        replica += logcnt[at(e)]
    position = 0
    for i in range(logcnt.shape[0]):
        e = node.by_average[at(i)]
        replica = first[at(e)]
        for rank in range(logcnt[at(e)]):
            node.replica_weight[at(replica)] = node.average[at(e)]
            node.replica_expert[at(replica)] = e
            node.replica_rank[at(replica)] = rank
            node.order[at(position)] = replica
            replica += 1
            position += 1


@kernel
def replicas_by_grant(node: Node, next_rank: Ints) -> None:
    """DeepSeek policy: a first replica of every expert, then the extra ones as they were granted.

    In: ``average``, ``granted``; out: ``replica_weight``, ``replica_expert``, ``replica_rank``;
    scratch: ``next_rank`` [n] int64.
    """
    num_experts = node.average.shape[0]
    for e in range(num_experts):
        next_rank[e] = 0
    for i in range(node.replica_expert.shape[0]):
        e = i if i < num_experts else node.granted[i - num_experts]
        node.replica_weight[i] = node.average[e]
        node.replica_expert[i] = e
        node.replica_rank[i] = next_rank[e]
        next_rank[e] += 1


@kernel
def write_node(node: Node, index: Int, gpu_slots: Int, maps: Maps) -> None:
    """Write the part of node ``index`` in its layer's maps, of [P], [P] and [E]."""
    num_replicas = node.pack.shape[0]
    for i in range(num_replicas):
        slot = index * num_replicas + node.pack[i] * gpu_slots + node.rank[i]
        maps.phy2log[at(slot)] = node.expert[at(node.replica_expert[i])]
        maps.phyrank[at(slot)] = node.replica_rank[i]
    for e in range(node.expert.shape[0]):
        maps.logcnt[at(node.expert[e])] = node.logcnt[e]
