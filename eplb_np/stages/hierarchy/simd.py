"""Whole plans of many small nodes, stage by stage, all nodes of a batch in lockstep (`lanes`).

The plans are those of `hierarchy`, whose nodes go through all stages one after the other.

Letters: X nodes of a batch, of one layer or of several; n logical experts, p physical experts
(replicas, slots) and D GPUs of each.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.arrays import float_table, int_table, ints
from eplb_np._numba.jit import allocator, entry, kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.hierarchy.decisions import GPU_REFINE_STEPS
from eplb_np.stages.hierarchy.nodes import (
    gather_node,
    make_group_scratch,
    pack_groups,
    replicas_by_expert,
    replicas_by_grant,
    weigh_replicas,
    write_node,
)
from eplb_np.stages.packing.simd import pack_batch
from eplb_np.stages.refinement.simd import refine_batch
from eplb_np.stages.replication.cpu import donor_fixup
from eplb_np.stages.replication.decisions import tail_length
from eplb_np.stages.replication.simd import allocate_batch
from eplb_np.stages.simd_batch import WIDTH, Batch, make_batch
from eplb_np.stages.sorting.simd import sort_batch

FEWEST_NODES = 8


MOST_EXPERTS = 128
"""Of a node. Beyond, its lanes outgrow the first cache: 256 take a sixth more time in lockstep."""


def pays(num_nodes: int, num_experts: int, gpu_slots: int) -> bool:
    """Whether lockstep is faster for nodes of so many experts: from 8 of 64, or 16 of 128.

    With one slot on each GPU there is nothing to pack, and it does not apply.
    """
    enough_nodes = num_nodes >= max(FEWEST_NODES, num_experts // 8)
    return enough_nodes and num_experts <= MOST_EXPERTS and gpu_slots > 1


class NodesScratch(NamedTuple):
    """Working memory for the experts and replicas of X nodes."""

    expert: Ints  # [X, n] int64, logical expert at each node-local place
    weight: Floats  # [X, n] float32
    average: Floats  # [X, n] float32, load of each of an expert's replicas
    by_average: Ints  # [X, n] int64, experts by descending average
    logcnt: Ints  # [X, n] int64
    granted: Ints  # [X, p - n] int64, experts in the order of the grants
    replica_weight: Floats  # [X, p] float32
    replica_expert: Ints  # [X, p] int64
    replica_rank: Ints  # [X, p] int64
    order: Ints  # [X, p] int64, replicas by descending load
    members: Ints  # [X, p] int64, replicas by GPU
    pack: Ints  # [X, p] int64, GPU of each replica
    rank: Ints  # [X, p] int64, its rank there
    first: Ints  # [n] int64, an expert's first replica, or its next rank
    lanes: Batch


@allocator
def make_nodes_scratch(num_experts: Int, num_replicas: Int) -> NodesScratch:
    """Allocate a `NodesScratch`, once per call and not per layer."""
    return NodesScratch(
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
        int_table(WIDTH, num_replicas),
        ints(num_experts),
        make_batch(num_replicas),
    )


@kernel
def plan_nodes(num_nodes: Int, num_gpus: Int, hybrid: bool, batch: NodesScratch) -> None:
    """Plan the first ``num_nodes`` nodes of the batch, with ``num_gpus`` GPUs each."""
    lanes = batch.lanes
    num_extra = batch.granted.shape[1]
    num_tail = tail_length(num_extra) if hybrid else 0

    # Replicas within the nodes.
    allocate_batch(num_nodes, batch.weight, num_extra, num_tail, batch.logcnt, batch.granted, lanes)
    for x in range(num_nodes):
        if hybrid:
            donor_fixup(batch.weight[x], batch.logcnt[x])
        weigh_replicas(batch.weight[x], batch.logcnt[x], batch.average[x])

    # Replicas to GPUs.
    if hybrid:
        sort_batch(num_nodes, batch.average, batch.by_average, lanes)
    for x in range(num_nodes):
        if hybrid:
            replicas_by_expert(
                batch.average[x],
                batch.by_average[x],
                batch.logcnt[x],
                batch.first,
                batch.replica_weight[x],
                batch.replica_expert[x],
                batch.replica_rank[x],
                batch.order[x],
            )
        else:
            replicas_by_grant(
                batch.average[x],
                batch.granted[x],
                batch.first,
                batch.replica_weight[x],
                batch.replica_expert[x],
                batch.replica_rank[x],
            )
    if not hybrid:
        sort_batch(num_nodes, batch.replica_weight, batch.order, lanes)
    pack_batch(
        num_nodes,
        batch.replica_weight,
        batch.order,
        num_gpus,
        batch.pack,
        batch.rank,
        batch.members,
        lanes,
    )
    if hybrid:
        refine_batch(
            num_nodes,
            batch.replica_weight,
            num_gpus,
            GPU_REFINE_STEPS,
            batch.pack,
            batch.rank,
            batch.members,
            lanes,
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
    """`plan_layers` for many nodes of few experts: the same arguments, the same plan, sooner.

    Every GPU has more than one slot. Memory: O(E + P), whatever L.
    """
    num_layers, num_experts = weight.shape
    num_replicas = phy2log.shape[1]
    groups = make_group_scratch(num_groups, num_nodes)
    batch = make_nodes_scratch(num_experts // num_nodes, num_replicas // num_nodes)
    total = num_layers * num_nodes
    for start in range(0, total, WIDTH):
        size = min(WIDTH, total - start)
        for x in range(size):
            layer, node = (start + x) // num_nodes, (start + x) % num_nodes
            if node == 0:
                pack_groups(weight[layer], num_nodes, hybrid, groups)
            gather_node(
                weight[layer], groups.by_node, node, num_nodes, batch.expert[x], batch.weight[x]
            )
        plan_nodes(size, num_gpus // num_nodes, hybrid, batch)
        for x in range(size):
            layer, node = (start + x) // num_nodes, (start + x) % num_nodes
            write_node(
                node,
                num_replicas // num_gpus,
                batch.expert[x],
                batch.logcnt[x],
                batch.replica_expert[x],
                batch.replica_rank[x],
                batch.pack[x],
                batch.rank[x],
                phy2log[layer],
                phyrank[layer],
                logcnt[layer],
            )
