"""The whole plan of a layer: groups to nodes, replicas within nodes, replicas to GPUs.

Letters: L layers, E logical experts, P physical experts (replicas, slots), G groups, N nodes,
D GPUs; n = E / N experts and p = P / N replicas of one node.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.arrays import floats, ints
from eplb_np._numba.jit import allocator, entry, kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.hierarchy.decisions import GPU_REFINE_STEPS, NO_REFINE_STEPS
from eplb_np.stages.hierarchy.nodes import (
    GroupScratch,
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
    """Working memory for the experts and replicas of one node."""

    expert: Ints  # [n] int64, logical expert at each node-local place
    weight: Floats  # [n] float32
    average: Floats  # [n] float32, load of each of an expert's replicas
    by_average: Ints  # [n] int64, experts by descending average
    logcnt: Ints  # [n] int64
    first: Ints  # [n] int64, an expert's first replica, or its next rank
    granted: Ints  # [p - n] int64, experts in the order of the grants
    tree: Ints  # [2 * leaves(n)] int64, winner tree of the experts
    replica_weight: Floats  # [p] float32
    replica_expert: Ints  # [p] int64
    replica_rank: Ints  # [p] int64
    pack: Ints  # [p] int64
    rank: Ints  # [p] int64
    packing: PackScratch


@allocator
def make_node_scratch(num_experts: Int, num_replicas: Int, num_gpus: Int) -> NodeScratch:
    """Allocate a `NodeScratch`, once per call and not per layer."""
    return NodeScratch(
        ints(num_experts),
        floats(num_experts),
        floats(num_experts),
        ints(num_experts),
        ints(num_experts),
        ints(num_experts),
        ints(num_replicas - num_experts),
        ints(2 * num_leaves(num_experts)),
        floats(num_replicas),
        ints(num_replicas),
        ints(num_replicas),
        ints(num_replicas),
        ints(num_replicas),
        make_pack_scratch(num_replicas, num_gpus),
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
    groups: GroupScratch,
    local: NodeScratch,
) -> None:
    """Plan one layer: arguments as `plan_layers`, without the layer axis."""
    pack_groups(weight, num_nodes, hybrid, groups)
    num_extra = local.granted.shape[0]
    num_tail = tail_length(num_extra) if hybrid else 0
    sorting = local.packing
    for node in range(num_nodes):
        gather_node(weight, groups.by_node, node, num_nodes, local.expert, local.weight)

        # Replicas within the node.
        allocate_replicas(
            local.weight, num_extra, num_tail, local.logcnt, local.granted, local.tree
        )
        if hybrid:
            donor_fixup(local.weight, local.logcnt)
        weigh_replicas(local.weight, local.logcnt, local.average)

        # Replicas to GPUs.
        load, order = local.average, local.by_average
        if not hybrid:
            replicas_by_grant(
                local.average,
                local.granted,
                local.first,
                local.replica_weight,
                local.replica_expert,
                local.replica_rank,
            )
            load, order = local.replica_weight, sorting.order
        sort_descending(load, order, sorting.keys, sorting.spare, sorting.histogram)
        if hybrid:
            replicas_by_expert(
                local.average,
                local.by_average,
                local.logcnt,
                local.first,
                local.replica_weight,
                local.replica_expert,
                local.replica_rank,
                sorting.order,
            )
        pack_sorted(
            local.replica_weight,
            num_gpus // num_nodes,
            GPU_REFINE_STEPS if hybrid else NO_REFINE_STEPS,
            local.pack,
            local.rank,
            local.packing,
        )
        write_node(
            node,
            phy2log.shape[0] // num_gpus,
            local.expert,
            local.logcnt,
            local.replica_expert,
            local.replica_rank,
            local.pack,
            local.rank,
            phy2log,
            phyrank,
            logcnt,
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
    node_experts = num_experts // num_nodes
    node_replicas = phy2log.shape[1] // num_nodes
    groups = make_group_scratch(num_groups, num_nodes)
    local = make_node_scratch(node_experts, node_replicas, num_gpus // num_nodes)
    for i in range(num_layers):
        plan_layer(
            weight[i], num_nodes, num_gpus, hybrid, phy2log[i], phyrank[i], logcnt[i], groups, local
        )
