"""The work of one block, wherever its memory is."""

from __future__ import annotations

from eplb_np._types import Floats, Int, Ints
from eplb_np.cuda.kernels._jit import device
from eplb_np.cuda.kernels.block import Team, copy_row
from eplb_np.cuda.kernels.hierarchy import plan_node
from eplb_np.cuda.kernels.outputs import write_packs, write_replicas
from eplb_np.cuda.kernels.packing import pack_items
from eplb_np.cuda.kernels.replication import allocate_replicas, donor_fixup, replicas_by_expert
from eplb_np.cuda.kernels.scratch import Scratch, carve


@device
def plan_block(
    layer: Int,
    node: Int,
    team: Team,
    weight: Floats,
    num_groups: Int,
    num_nodes: Int,
    num_gpus: Int,
    hybrid: bool,
    num_tail: Int,
    shift: Int,
    room: Int,
    phy2log: Ints,
    words: Ints,
    ints: Ints,
    floats: Floats,
) -> Scratch:
    """Plan one node of one layer in a block's memory, where the maps are written from."""
    num_experts = weight.shape[1]
    node_replicas = phy2log.shape[1] // num_nodes
    num_items = node_replicas if node_replicas > num_groups else num_groups
    s = carve(
        words, ints, floats, num_experts, num_experts // num_nodes, node_replicas, num_items,
        room, team.size,
    )  # fmt: skip
    plan_node(
        weight[layer], node, num_groups, num_nodes, num_gpus // num_nodes, hybrid, num_tail,
        shift, s, team,
    )  # fmt: skip
    return s


@device
def replicate_block(
    row: Int,
    team: Team,
    weight: Floats,
    num_tail: Int,
    shift: Int,
    room: Int,
    phy2log: Ints,
    rank: Ints,
    logcnt: Ints,
    words: Ints,
    ints: Ints,
    floats: Floats,
) -> None:
    """Replicas of one row, in order of logical expert."""
    num_experts = weight.shape[1]
    num_phy = phy2log.shape[1]
    s = carve(words, ints, floats, 0, num_experts, num_phy, 0, room, team.size)
    copy_row(weight[row], s.weight, team)
    allocate_replicas(num_phy - num_experts, num_tail, shift, s, team)
    donor_fixup(s, team)
    replicas_by_expert(s, team)
    write_replicas(row, phy2log, rank, logcnt, s, team)


@device
def pack_block(
    row: Int,
    team: Team,
    weight: Floats,
    num_packs: Int,
    refine_steps: Int,
    room: Int,
    pack_index: Ints,
    rank_in_pack: Ints,
    words: Ints,
    ints: Ints,
    floats: Floats,
) -> None:
    """Packs of one row's items."""
    num_items = weight.shape[1]
    s = carve(words, ints, floats, 0, 0, 0, num_items, room, team.size)
    copy_row(weight[row], s.item_load, team)
    pack_items(num_items, num_packs, refine_steps, s, team)
    write_packs(row, num_items // num_packs, pack_index, rank_in_pack, s, team)
