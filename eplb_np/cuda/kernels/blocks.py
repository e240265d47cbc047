"""The work of one block, wherever its memory is."""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._types import Floats, Int, Ints
from eplb_np.cuda.kernels._jit import device
from eplb_np.cuda.kernels.block import Team, copy_row
from eplb_np.cuda.kernels.hierarchy import plan_node
from eplb_np.cuda.kernels.outputs import write_packs, write_replicas
from eplb_np.cuda.kernels.packing import pack_items
from eplb_np.cuda.kernels.replication import allocate_replicas, donor_fixup, replicas_by_expert
from eplb_np.cuda.kernels.scratch import Memory, Scratch, carve


class PlanSizes(NamedTuple):
    """What a plan's kernel is told beside the loads."""

    num_groups: Int
    num_nodes: Int
    num_gpus: Int
    hybrid: bool
    num_tail: Int  # replicas of each node that go by Sainte-Lague's quotient
    shift: Int  # bits of a key's index for a count of replicas
    room: Int  # for keys, of `scratch_bytes`


class ReplicationSizes(NamedTuple):
    """What the kernel of replica allocation is told beside the loads; as in `PlanSizes`."""

    num_tail: Int
    shift: Int
    room: Int


class PackingSizes(NamedTuple):
    """What the kernel of packing is told beside the loads; room as in `PlanSizes`."""

    num_packs: Int
    refine_steps: Int
    room: Int


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
def replicate_block(
    row: Int,
    team: Team,
    weight: Floats,
    sizes: ReplicationSizes,
    phy2log: Ints,
    rank: Ints,
    logcnt: Ints,
    memory: Memory,
) -> None:
    """Replicas of one row, in order of logical expert."""
    num_experts = weight.shape[1]
    num_phy = phy2log.shape[1]
    s = carve(memory, 0, num_experts, num_phy, 0, sizes.room, team.size)
    copy_row(weight[row], s.weight, team)
    allocate_replicas(num_phy - num_experts, sizes.num_tail, sizes.shift, s, team)
    donor_fixup(s, team)
    replicas_by_expert(s, team)
    write_replicas(row, phy2log, rank, logcnt, s, team)


@device
def pack_block(
    row: Int,
    team: Team,
    weight: Floats,
    sizes: PackingSizes,
    pack_index: Ints,
    rank_in_pack: Ints,
    memory: Memory,
) -> None:
    """Packs of one row's items."""
    num_items = weight.shape[1]
    s = carve(memory, 0, 0, 0, num_items, sizes.room, team.size)
    copy_row(weight[row], s.item_load, team)
    pack_items(num_items, sizes.num_packs, sizes.refine_steps, s, team)
    write_packs(row, num_items // sizes.num_packs, pack_index, rank_in_pack, s, team)
