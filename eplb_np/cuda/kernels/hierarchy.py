"""The plan of one layer's node: groups to nodes, replicas, replicas to GPUs."""

from __future__ import annotations

import numpy as np

from eplb_np._types import Floats, Int
from eplb_np.cuda.kernels._jit import device, sync
from eplb_np.cuda.kernels.block import Team, copy_row
from eplb_np.cuda.kernels.packing import pack_items
from eplb_np.cuda.kernels.replication import (
    allocate_replicas,
    donor_fixup,
    replicas_by_expert,
    replicas_by_grant,
    weigh_replicas,
)
from eplb_np.cuda.kernels.scratch import Scratch
from eplb_np.kernels.decisions import at
from eplb_np.kernels.packing import GPU_REFINE_STEPS, GROUP_REFINE_STEPS, NO_REFINE_STEPS


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
