"""The whole plan of one node of a layer, by the threads of a block.

Twin of `cpu.py`, which plans layer by layer, and of `simd.py`. Functions with the name of one in
`nodes.py` are its twins.

Letters: L layers, E logical experts, P physical experts (replicas, slots), X replicas that
``log2phy`` has room for.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._cuda.jit import device, sync
from eplb_np._cuda.memory import Memory
from eplb_np._cuda.team import Team, copy_row
from eplb_np._numba.indexing import at
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.maps.maps import EMPTY
from eplb_np.stages.cuda_scratch import Scratch, carve
from eplb_np.stages.decisions import adams_quotient
from eplb_np.stages.hierarchy.decisions import (
    GPU_REFINE_STEPS,
    GROUP_REFINE_STEPS,
    NO_REFINE_STEPS,
    group_load,
)
from eplb_np.stages.packing.cuda import pack_items
from eplb_np.stages.replication.cuda import allocate_replicas, donor_fixup, replicas_by_expert


class PlanSizes(NamedTuple):
    """What a planning kernel is told besides the loads."""

    num_groups: Int
    num_nodes: Int
    num_gpus: Int
    hybrid: bool
    num_tail: Int  # replicas of each node that go by Sainte-Lague's quotient
    shift: Int  # bits of a key's index that hold a count of replicas
    room: Int  # for keys, from `scratch_bytes`


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
    """Plan one node of one layer in a block's memory, which is returned to write the maps from."""
    num_experts = weight.shape[1]
    num_nodes = sizes.num_nodes
    node_replicas = num_replicas // num_nodes
    num_items = node_replicas if node_replicas > sizes.num_groups else sizes.num_groups
    s = carve(
        memory, num_experts, num_experts // num_nodes, node_replicas, num_items, sizes.room,
        team.size,
    )  # fmt: skip
    plan_node(weight[layer], node, sizes, s, team)
    return s


@device
def plan_node(weight: Floats, node: Int, sizes: PlanSizes, s: Scratch, team: Team) -> None:
    """Plan one node of a layer with loads ``weight`` [E] float32.

    Out: ``s.expert`` and ``s.logcnt`` of its experts, ``s.members`` the replica in each of its
    slots, ``s.owner`` and ``s.rank`` the replicas' experts and ranks. Twin of `plan_layer` in
    `cpu.py`.

    Every block of a layer packs the groups itself: that is quicker than waiting for another block.
    Both packings are turns of one loop. Otherwise the compiler would write the code of the packing
    twice, and a GPU has to fetch the code that it runs.
    """
    num_groups, num_nodes, hybrid = sizes.num_groups, sizes.num_nodes, sizes.hybrid
    copy_row(weight, s.layer_weight, team)
    sync()
    turn = 0
    while turn < 2:
        if turn == 0:
            if num_groups > num_nodes:  # else any group goes to any node
                sum_groups(num_groups, s, team)
            num_items, num_packs, steps = num_groups, num_nodes, GROUP_REFINE_STEPS
        else:
            gather_node(node, sizes, s, team)
            replicate_node(sizes, s, team)
            num_items, num_packs = s.owner.shape[0], sizes.num_gpus // num_nodes
            steps = GPU_REFINE_STEPS
        pack_items(num_items, num_packs, steps if hybrid else NO_REFINE_STEPS, s, team)
        turn += 1


@device
def sum_groups(num_groups: Int, s: Scratch, team: Team) -> None:
    """Load of each group: the items of the first packing."""
    group_size = s.layer_weight.shape[0] // num_groups
    g = team.thread
    while g < num_groups:
        s.item_load[g] = group_load(s.layer_weight, g, group_size)
        g += team.size


@device
def gather_node(node: Int, sizes: PlanSizes, s: Scratch, team: Team) -> None:
    """Experts of a node and their loads, group by group."""
    node_groups = sizes.num_groups // sizes.num_nodes
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
def replicate_node(sizes: PlanSizes, s: Scratch, team: Team) -> None:
    """Replicas of the node's experts and their loads: the items of the second packing."""
    num_extra = s.owner.shape[0] - s.expert.shape[0]
    allocate_replicas(num_extra, sizes.num_tail, sizes.shift, s, team)
    if sizes.hybrid:
        donor_fixup(s, team)
        replicas_by_expert(s, team)
    else:
        replicas_by_grant(s, team)
    weigh_replicas(s, team)


@device
def replicas_by_grant(s: Scratch, team: Team) -> None:
    """DeepSeek policy: a first replica of every expert; the extra ones are in place as granted."""
    e = team.thread
    while e < s.weight.shape[0]:
        s.owner[e] = e
        s.rank[e] = 0
        e += team.size
    sync()


@device
def weigh_replicas(s: Scratch, team: Team) -> None:
    """Load of each replica: the items of the second packing."""
    i = team.thread
    while i < s.owner.shape[0]:
        e = s.owner[i]
        s.item_load[i] = adams_quotient(s.weight[at(e)], s.logcnt[at(e)])
        i += team.size


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
    # Step through the places of all experts without a division for each.
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


@device
def write_counts(layer: Int, logcnt: Ints, s: Scratch, team: Team) -> None:
    """Write a node's part of ``logcnt`` [L, E]."""
    e = team.thread
    while e < s.expert.shape[0]:
        logcnt[layer, at(s.expert[e])] = s.logcnt[e]
        e += team.size
