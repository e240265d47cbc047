"""The whole plan of a layer: groups to nodes, replicas within nodes, replicas to GPUs.

Letters: L layers, E logical experts, P physical experts (replicas, slots), G groups, N nodes,
D GPUs; n = E / N experts and p = P / N replicas of one node.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._jit import allocator, entry, kernel
from eplb_np._types import Floats, Int, Ints
from eplb_np.kernels import tournament
from eplb_np.kernels.decisions import adams_quotient
from eplb_np.kernels.packing import (
    PackScratch,
    make_pack_scratch,
    pack_layer,
    pack_sorted,
    sort_items,
)
from eplb_np.kernels.replication import allocate_replicas, donor_fixup, tail_length

GROUP_REFINE_STEPS = np.int64(1)
GPU_REFINE_STEPS = np.int64(2)
NO_REFINE_STEPS = np.int64(0)


@kernel
def sum_groups(weight: Floats, group_load: Floats) -> None:
    """Load of each group: float64 sum of its consecutive experts, rounded once to float32."""
    group_size = weight.shape[0] // group_load.shape[0]
    for g in range(group_load.shape[0]):
        total = 0.0
        for e in range(g * group_size, (g + 1) * group_size):
            total += np.float64(weight[e])
        group_load[g] = np.float32(total)


@kernel
def replicas_by_expert(
    weight: Floats,
    count: Ints,
    average: Floats,
    first: Ints,
    replica_weight: Floats,
    replica_expert: Ints,
    replica_rank: Ints,
) -> None:
    """Hybrid policy: the replicas of an expert stand side by side.

    Out: ``average`` [n] load of each of an expert's replicas, ``first`` [n] its first replica;
    ``replica_weight``, ``replica_expert``, ``replica_rank`` [p].
    """
    replica = 0
    for e in range(weight.shape[0]):
        average[e] = adams_quotient(weight[e], count[e])
        first[e] = replica
        for r in range(count[e]):
            replica_weight[replica] = average[e]
            replica_expert[replica] = e
            replica_rank[replica] = r
            replica += 1


@kernel
def sort_replicas(average: Floats, count: Ints, first: Ints, scratch: PackScratch) -> None:
    """Replicas by descending load, ties to the lower one: sorting the experts sorts them.

    For all replicas of an expert weigh the same and are neighbours.
    """
    order = scratch.order
    keys = scratch.keys
    num_experts = average.shape[0]
    sort_items(average, scratch)
    for i in range(num_experts):
        keys[i] = order[i]
    position = 0
    for i in range(num_experts):
        e = keys[i]
        for r in range(count[e]):
            order[position] = first[e] + r
            position += 1


@kernel
def replicas_by_grant(
    weight: Floats,
    count: Ints,
    granted: Ints,
    next_rank: Ints,
    replica_weight: Floats,
    replica_expert: Ints,
    replica_rank: Ints,
) -> None:
    """DeepSeek policy: a first copy of every expert, then the extra ones as they were granted."""
    num_experts = weight.shape[0]
    for e in range(num_experts):
        next_rank[e] = 0
    for i in range(replica_expert.shape[0]):
        e = i if i < num_experts else granted[i - num_experts]
        replica_weight[i] = adams_quotient(weight[e], count[e])
        replica_expert[i] = e
        replica_rank[i] = next_rank[e]
        next_rank[e] += 1


class PlanScratch(NamedTuple):
    """Working memory for the plan of one layer, node after node."""

    group_load: Floats  # [G] float32
    group_node: Ints  # [G] int64
    group_rank: Ints  # [G] int64
    node_group: Ints  # [G] int64, groups by node, then by rank in the node
    groups: PackScratch  # packing groups into nodes
    expert: Ints  # [n] int64, logical expert at each node-local place
    weight: Floats  # [n] float32
    average: Floats  # [n] float32, load of each of an expert's replicas
    logcnt: Ints  # [n] int64
    first: Ints  # [n] int64, an expert's first replica
    granted: Ints  # [p - n] int64, experts in the order of the grants
    tree: Ints  # [2 * leaves(n)] int64, winner tree of the experts
    replica_weight: Floats  # [p] float32
    replica_expert: Ints  # [p] int64
    replica_rank: Ints  # [p] int64
    pack: Ints  # [p] int64
    rank: Ints  # [p] int64
    replicas: PackScratch  # packing a node's replicas into its GPUs


@allocator
def make_plan_scratch(
    num_experts: Int, num_replicas: Int, num_groups: Int, num_nodes: Int, num_gpus: Int
) -> PlanScratch:
    """Allocate a `PlanScratch`, once per call and not per layer."""
    node_experts = num_experts // num_nodes
    node_replicas = num_replicas // num_nodes
    return PlanScratch(
        np.empty(num_groups, np.float32),
        np.empty(num_groups, np.int64),
        np.empty(num_groups, np.int64),
        np.empty(num_groups, np.int64),
        make_pack_scratch(num_groups, num_nodes),
        np.empty(node_experts, np.int64),
        np.empty(node_experts, np.float32),
        np.empty(node_experts, np.float32),
        np.empty(node_experts, np.int64),
        np.empty(node_experts, np.int64),
        np.empty(node_replicas - node_experts, np.int64),
        np.empty(2 * tournament.num_leaves(node_experts), np.int64),
        np.empty(node_replicas, np.float32),
        np.empty(node_replicas, np.int64),
        np.empty(node_replicas, np.int64),
        np.empty(node_replicas, np.int64),
        np.empty(node_replicas, np.int64),
        make_pack_scratch(node_replicas, num_gpus // num_nodes),
    )


@kernel
def plan_layer(
    weight: Floats,
    num_nodes: Int,
    num_gpus: Int,
    hybrid: bool,
    phy2log: Ints,
    phyrank: Ints,
    logcnt: Ints,
    scratch: PlanScratch,
) -> None:
    """Plan one layer: arguments as `plan_layers`, without the layer axis."""
    expert = scratch.expert
    num_groups = scratch.group_load.shape[0]
    node_groups = num_groups // num_nodes
    group_size = expert.shape[0] // node_groups
    node_replicas = scratch.replica_weight.shape[0]
    gpu_slots = phy2log.shape[0] // num_gpus
    assign_groups(weight, num_nodes, hybrid, scratch)
    for node in range(num_nodes):
        for i in range(node_groups):
            first_expert = scratch.node_group[node * node_groups + i] * group_size
            for j in range(group_size):
                expert[i * group_size + j] = first_expert + j
                scratch.weight[i * group_size + j] = weight[first_expert + j]
        plan_node(num_gpus // num_nodes, hybrid, scratch)
        first_slot = node * node_replicas
        for i in range(node_replicas):
            slot = first_slot + scratch.pack[i] * gpu_slots + scratch.rank[i]
            phy2log[slot] = expert[scratch.replica_expert[i]]
            phyrank[slot] = scratch.replica_rank[i]
        for e in range(expert.shape[0]):
            logcnt[expert[e]] = scratch.logcnt[e]


@kernel
def assign_groups(weight: Floats, num_nodes: Int, hybrid: bool, scratch: PlanScratch) -> None:
    """Give each node equally many groups: ``scratch.node_group``, by node and rank."""
    num_groups = scratch.group_load.shape[0]
    node_groups = num_groups // num_nodes
    if node_groups > 1:
        sum_groups(weight, scratch.group_load)
    pack_layer(
        scratch.group_load,
        num_nodes,
        GROUP_REFINE_STEPS if hybrid else NO_REFINE_STEPS,
        scratch.group_node,
        scratch.group_rank,
        scratch.groups,
    )
    for g in range(num_groups):
        place = scratch.group_node[g] * node_groups + scratch.group_rank[g]
        scratch.node_group[place] = g


@kernel
def plan_node(num_gpus: Int, hybrid: bool, scratch: PlanScratch) -> None:
    """Replicate the experts of one node and pack the replicas into its GPUs."""
    weight = scratch.weight
    count = scratch.logcnt
    first = scratch.first
    replica_weight = scratch.replica_weight
    num_extra = scratch.granted.shape[0]
    num_tail = tail_length(num_extra) if hybrid else 0
    allocate_replicas(weight, num_extra, num_tail, count, scratch.granted, scratch.tree)
    if hybrid:
        donor_fixup(weight, count)
        replicas_by_expert(
            weight, count, scratch.average, first,
            replica_weight, scratch.replica_expert, scratch.replica_rank,
        )  # fmt: skip
        sort_replicas(scratch.average, count, first, scratch.replicas)
    else:
        replicas_by_grant(
            weight, count, scratch.granted, first,
            replica_weight, scratch.replica_expert, scratch.replica_rank,
        )  # fmt: skip
        sort_items(replica_weight, scratch.replicas)
    pack_sorted(
        replica_weight,
        num_gpus,
        GPU_REFINE_STEPS if hybrid else NO_REFINE_STEPS,
        scratch.pack,
        scratch.rank,
        scratch.replicas,
    )


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
    """Plan every row of ``weight`` [L, E] float32.

    ``hybrid`` is True for the hybrid policy and False for DeepSeek's. Out, all int64:
    ``phy2log`` [L, P] the logical expert in each slot, ``phyrank`` [L, P] which of that expert's
    replicas it is, ``logcnt`` [L, E]. Memory: O(E + P), whatever L.
    """
    num_layers, num_experts = weight.shape
    scratch = make_plan_scratch(num_experts, phy2log.shape[1], num_groups, num_nodes, num_gpus)
    for i in range(num_layers):
        plan_layer(
            weight[i], num_nodes, num_gpus, hybrid, phy2log[i], phyrank[i], logcnt[i], scratch
        )


@entry
def fill_log2phy(phy2log: Ints, phyrank: Ints, log2phy: Ints) -> None:
    """Slot of each replica of each expert: ``log2phy`` [L, E, X] int64, filled with -1 before."""
    for layer in range(phy2log.shape[0]):
        for slot in range(phy2log.shape[1]):
            log2phy[layer, phy2log[layer, slot], phyrank[layer, slot]] = slot
