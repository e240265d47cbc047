"""The plan of one layer's node: groups to nodes, replicas, replicas to GPUs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._cuda.jit import device, sync
from eplb_np._cuda.memory import Memory
from eplb_np._cuda.team import Team, copy_row
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.maps.maps import EMPTY
from eplb_np.stages.cuda_scratch import Scratch, carve
from eplb_np.stages.decisions import adams_quotient, at
from eplb_np.stages.hierarchy.decisions import GPU_REFINE_STEPS, GROUP_REFINE_STEPS, NO_REFINE_STEPS
from eplb_np.stages.packing.cuda import pack_items
from eplb_np.stages.replication.cuda import allocate_replicas, donor_fixup, replicas_by_expert


@device
def replicas_by_grant(s: Scratch, team: Team) -> None:
    """DeepSeek policy: a first copy of every expert; the others stand there as granted."""
    e = team.thread
    while e < s.weight.shape[0]:
        s.owner[e] = e
        s.rank[e] = 0
        e += team.size
    sync()


@device
def weigh_replicas(weight: Floats, s: Scratch, team: Team) -> None:
    """Load of each replica, which are the items to pack."""
    i = team.thread
    while i < s.owner.shape[0]:
        e = s.owner[i]
        s.item_load[i] = adams_quotient(weight[at(e)], s.logcnt[at(e)])
        i += team.size


@device
def weigh_groups(num_groups: Int, s: Scratch, team: Team) -> None:
    """Load of each group: the items of the first packing."""
    group_size = s.layer_weight.shape[0] // num_groups
    g = team.thread
    while g < num_groups:
        total = 0.0
        e = g * group_size
        while e < (g + 1) * group_size:
            total += np.float64(s.layer_weight[at(e)])
            e += 1
        s.item_load[g] = np.float32(total)
        g += team.size


@device
def gather_node(node: Int, num_groups: Int, num_nodes: Int, s: Scratch, team: Team) -> None:
    """Experts of a node and their loads, group by group."""
    node_groups = num_groups // num_nodes
    group_size = s.expert.shape[0] // node_groups
    i = team.thread
    while i < s.expert.shape[0]:
        k = i // group_size
        expert = s.members[at(node * node_groups + k)] * group_size + i - k * group_size
        s.expert[i] = expert
        s.weight[i] = s.layer_weight[at(expert)]
        i += team.size
    sync()


@device
def replicate_node(
    num_extra: Int, hybrid: bool, num_tail: Int, shift: Int, s: Scratch, team: Team
) -> None:
    """Replicas of the node's experts and their loads: the items of the second packing."""
    allocate_replicas(num_extra, num_tail, shift, s, team)
    if hybrid:
        donor_fixup(s, team)
        replicas_by_expert(s, team)
    else:
        replicas_by_grant(s, team)
    weigh_replicas(s.weight, s, team)


@device
def plan_node(
    weight: Floats,
    node: Int,
    num_groups: Int,
    num_nodes: Int,
    node_gpus: Int,
    hybrid: bool,
    num_tail: Int,
    shift: Int,
    s: Scratch,
    team: Team,
) -> None:
    """Plan one node of a layer with loads ``weight`` [E] float32.

    Out: ``s.expert`` and ``s.logcnt`` of its experts, ``s.members`` the replica in each of its
    slots, ``s.owner`` and ``s.rank`` the replicas' experts and ranks.

    Groups go to nodes in every block of a layer anew: that is quicker than to wait for another
    block. Both packings are turns of one loop, or the compiler would write the code of packing
    twice, and a GPU has to fetch what it runs.
    """
    num_replicas = s.owner.shape[0]
    num_extra = num_replicas - s.expert.shape[0]
    copy_row(weight, s.layer_weight, team)
    sync()
    turn = 0
    while turn < 2:
        if turn == 0:
            if num_groups > num_nodes:  # else any group goes to any node
                weigh_groups(num_groups, s, team)
            num_items, num_packs, steps = num_groups, num_nodes, GROUP_REFINE_STEPS
        else:
            gather_node(node, num_groups, num_nodes, s, team)
            replicate_node(num_extra, hybrid, num_tail, shift, s, team)
            num_items, num_packs, steps = num_replicas, node_gpus, GPU_REFINE_STEPS
        pack_items(num_items, num_packs, steps if hybrid else NO_REFINE_STEPS, s, team)
        turn += 1


class PlanSizes(NamedTuple):
    """What a plan's kernel is told beside the loads."""

    num_groups: Int
    num_nodes: Int
    num_gpus: Int
    hybrid: bool
    num_tail: Int  # replicas of each node that go by Sainte-Lague's quotient
    shift: Int  # bits of a key's index for a count of replicas
    room: Int  # for keys, of `scratch_bytes`


@device
def plan_block(
    layer: Int,
    node: Int,
    team: Team,
    weight: Floats,
    sizes: PlanSizes,
    num_replicas: Int,
    memory: Memory,
) -> Scratch:
    """Plan one node of one layer in a block's memory, where the maps are written from."""
    num_experts = weight.shape[1]
    num_nodes = sizes.num_nodes
    node_replicas = num_replicas // num_nodes
    num_items = node_replicas if node_replicas > sizes.num_groups else sizes.num_groups
    s = carve(
        memory, num_experts, num_experts // num_nodes, node_replicas, num_items, sizes.room,
        team.size,
    )  # fmt: skip
    plan_node(
        weight[layer], node, sizes.num_groups, num_nodes, sizes.num_gpus // num_nodes,
        sizes.hybrid, sizes.num_tail, sizes.shift, s, team,
    )  # fmt: skip
    return s


@device
def write_counts(layer: Int, logcnt: Ints, s: Scratch, team: Team) -> None:
    """Write a node's part of ``logcnt`` [L, E]."""
    e = team.thread
    while e < s.expert.shape[0]:
        logcnt[layer, at(s.expert[e])] = s.logcnt[e]
        e += team.size


@device
def write_slots(
    layer: Int, node: Int, phy2log: Ints, phyrank: Ints, s: Scratch, team: Team
) -> None:
    """Write a node's part of ``phy2log`` and ``phyrank`` [L, P]."""
    first = node * s.owner.shape[0]
    place = team.thread
    while place < s.owner.shape[0]:
        replica = s.members[place]
        phy2log[layer, at(first + place)] = s.expert[at(s.owner[at(replica)])]
        phyrank[layer, at(first + place)] = s.rank[at(replica)]
        place += team.size


@device
def write_log2phy(
    layer: Int, node: Int, phy2log: Ints, log2phy: Ints, s: Scratch, team: Team
) -> None:
    """Write a node's part of ``phy2log`` [L, P] and ``log2phy`` [L, E, X]."""
    num_experts = s.expert.shape[0]
    width = log2phy.shape[2]
    # The places of all experts in turn, without a division for each.
    experts = team.size // width
    places = team.size % width
    e = team.thread // width
    r = team.thread % width
    while e < num_experts:
        log2phy[layer, at(s.expert[at(e)]), at(r)] = EMPTY
        e += experts
        r += places
        if r >= width:
            r -= width
            e += 1
    sync()
    first = node * s.owner.shape[0]
    place = team.thread
    while place < s.owner.shape[0]:
        replica = s.members[place]
        expert = s.expert[at(s.owner[at(replica)])]
        phy2log[layer, at(first + place)] = expert
        log2phy[layer, at(expert), at(s.rank[at(replica)])] = first + place
        place += team.size
