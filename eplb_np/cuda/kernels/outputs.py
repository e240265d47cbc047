"""What a block writes: its part of the maps."""

from __future__ import annotations

from eplb_np._types import Int, Ints
from eplb_np.cuda.kernels._jit import device, sync
from eplb_np.cuda.kernels.block import Team
from eplb_np.cuda.kernels.scratch import Scratch
from eplb_np.kernels.decisions import at

NO_SLOT = -1


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
        log2phy[layer, at(s.expert[at(e)]), at(r)] = NO_SLOT
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
def write_replicas(
    row: Int, phy2log: Ints, rank: Ints, logcnt: Ints, s: Scratch, team: Team
) -> None:
    """Replicas of a row in order of logical expert: ``phy2log``, ``rank`` [X, P]."""
    i = team.thread
    while i < s.owner.shape[0]:
        phy2log[row, i] = s.owner[i]
        rank[row, i] = s.rank[i]
        i += team.size
    e = team.thread
    while e < s.logcnt.shape[0]:
        logcnt[row, e] = s.logcnt[e]
        e += team.size


@device
def write_packs(
    row: Int, capacity: Int, pack_index: Ints, rank_in_pack: Ints, s: Scratch, team: Team
) -> None:
    """Pack and rank of each item of a row: ``pack_index``, ``rank_in_pack`` [X, n]."""
    place = team.thread
    while place < s.members.shape[0]:
        item = at(s.members[place])
        pack_index[row, item] = place // capacity
        rank_in_pack[row, item] = place % capacity
        place += team.size
