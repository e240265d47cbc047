"""What a node's plan is made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.arrays import floats, ints
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.decisions import adams_quotient, at
from eplb_np.stages.hierarchy.decisions import GROUP_REFINE_STEPS, NO_REFINE_STEPS
from eplb_np.stages.packing.cpu import PackScratch, make_pack_scratch, pack_sorted
from eplb_np.stages.sorting.cpu import sort_descending


@kernel
def sum_groups(weight: Floats, group_load: Floats) -> None:
    """Load of each group: float64 sum of its consecutive experts, rounded once to float32."""
    group_size = weight.shape[0] // group_load.shape[0]
    for g in range(group_load.shape[0]):
        total = 0.0
        for e in range(g * group_size, (g + 1) * group_size):
            total += np.float64(weight[e])
        group_load[g] = np.float32(total)


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
def gather_node(
    weight: Floats, by_node: Ints, node: Int, num_nodes: Int, expert: Ints, local_weight: Floats
) -> None:
    """Write a node's experts, and their loads, group by group."""
    node_groups = by_node.shape[0] // num_nodes
    group_size = expert.shape[0] // node_groups
    for i in range(node_groups):
        first_expert = by_node[node * node_groups + i] * group_size
        for j in range(group_size):
            expert[i * group_size + j] = first_expert + j
            local_weight[i * group_size + j] = weight[first_expert + j]


@kernel
def weigh_replicas(weight: Floats, logcnt: Ints, average: Floats) -> None:
    """Load of each of an expert's replicas; all [n]."""
    for e in range(weight.shape[0]):
        average[e] = adams_quotient(weight[e], logcnt[e])


@kernel
def replicas_by_expert(
    average: Floats,
    by_average: Ints,
    logcnt: Ints,
    first: Ints,
    replica_weight: Floats,
    replica_expert: Ints,
    replica_rank: Ints,
    order: Ints,
) -> None:
    """Hybrid policy: the replicas of an expert stand side by side.

    They weigh the same, so the order of the experts by their averages is that of the replicas.
    In: ``average``, ``by_average``, ``logcnt`` [n]; out: the last four [p]; scratch: ``first`` [n].
    """
    replica = 0
    for e in range(logcnt.shape[0]):
        first[at(e)] = replica
        replica += logcnt[at(e)]
    position = 0
    for i in range(logcnt.shape[0]):
        e = by_average[at(i)]
        replica = first[at(e)]
        for rank in range(logcnt[at(e)]):
            replica_weight[at(replica)] = average[at(e)]
            replica_expert[at(replica)] = e
            replica_rank[at(replica)] = rank
            order[at(position)] = replica
            replica += 1
            position += 1


@kernel
def replicas_by_grant(
    average: Floats,
    granted: Ints,
    next_rank: Ints,
    replica_weight: Floats,
    replica_expert: Ints,
    replica_rank: Ints,
) -> None:
    """DeepSeek policy: a first copy of every expert, then the extra ones as they were granted.

    In: ``average`` [n], ``granted`` [p - n]; out: the last three [p]; scratch: ``next_rank`` [n].
    """
    num_experts = average.shape[0]
    for e in range(num_experts):
        next_rank[e] = 0
    for i in range(replica_expert.shape[0]):
        e = i if i < num_experts else granted[i - num_experts]
        replica_weight[i] = average[e]
        replica_expert[i] = e
        replica_rank[i] = next_rank[e]
        next_rank[e] += 1


@kernel
def write_node(
    node: Int,
    gpu_slots: Int,
    expert: Ints,
    local_logcnt: Ints,
    replica_expert: Ints,
    replica_rank: Ints,
    pack: Ints,
    rank: Ints,
    phy2log: Ints,
    phyrank: Ints,
    logcnt: Ints,
) -> None:
    """Write a node's part of its layer's ``phy2log`` [P], ``phyrank`` [P] and ``logcnt`` [E]."""
    num_replicas = pack.shape[0]
    for i in range(num_replicas):
        slot = node * num_replicas + pack[i] * gpu_slots + rank[i]
        phy2log[at(slot)] = expert[at(replica_expert[i])]
        phyrank[at(slot)] = replica_rank[i]
    for e in range(expert.shape[0]):
        logcnt[at(expert[e])] = local_logcnt[e]
