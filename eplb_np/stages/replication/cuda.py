"""Replica allocation by the threads of a block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._cuda.jit import device, sync
from eplb_np._cuda.memory import Memory
from eplb_np._cuda.team import Team, copy_row, smaller, smallest_of_block
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.cuda_scratch import Scratch, carve
from eplb_np.stages.decisions import (
    NEVER,
    adams_quotient,
    at,
    heaviest_first,
    key_index,
    lightest_first,
    sainte_lague_quotient,
)
from eplb_np.stages.priority_queue.cuda import end_queue, replace_two
from eplb_np.stages.replication.decisions import FIXUP_MARGIN
from eplb_np.stages.sorting.cuda import sort_keys


@device
def quotient(weight: np.float32, count: Int, adams: bool) -> np.float32:
    """Quotient that decides who gets the next replica."""
    if adams:
        return adams_quotient(weight, count)
    return sainte_lague_quotient(weight, count)


@device
def grant_replicas(first: Int, stop: Int, adams: bool, shift: Int, s: Scratch, team: Team) -> None:
    """Grant replicas ``first`` .. ``stop - 1`` by one kind of quotient.

    A key's index is the expert and, in its last ``shift`` bits, the expert's count: whoever
    reads the key knows the count, and needs no array that another thread is about to change.
    Out: ``s.logcnt``, and in ``s.owner`` and ``s.rank`` who got each replica and which it was.
    """
    if first == stop:
        return
    num_experts = s.weight.shape[0]
    e = team.thread
    while e < num_experts:
        count = s.logcnt[e]
        index = (np.int64(e) << shift) | count
        s.spare[e] = heaviest_first(quotient(s.weight[e], count, adams), index)
        e += team.size
    now: Int = np.int64(0)
    after: Int = s.keys.shape[0]
    sort_keys(s.queues, now, after, num_experts, team)

    # No more experts than there are grants can be anybody's choice.
    length = smaller(num_experts, stop - first)
    end_queue(s.queues, now, after, length, team)
    own = s.queues[at(smaller(team.thread, length))]
    replica = first
    while replica < stop:
        if team.thread < length:
            heaviest = s.queues[at(now)]
            key = with_replica(heaviest, adams, shift, s)
            following = smaller(s.queues[at(now + 1)], key)
            then = with_replica(following, adams, shift, s)
            if team.thread == 0:
                note_replica(heaviest, num_experts + replica, shift, s)
                if replica + 1 < stop:
                    note_replica(following, num_experts + replica + 1, shift, s)
            own = replace_two(s.queues, now, after, length, own, key, then, team)
        sync()
        now, after = after, now
        replica += 2


@device
def with_replica(expert_key: Int, adams: bool, shift: Int, s: Scratch) -> Int:
    """Key of an expert with one replica more."""
    index = key_index(expert_key)
    count = (index & ((np.int64(1) << shift) - 1)) + 1
    return heaviest_first(quotient(s.weight[at(index >> shift)], count, adams), index + 1)


@device
def note_replica(expert_key: Int, replica: Int, shift: Int, s: Scratch) -> None:
    """Note whose a replica is, and which of its expert's."""
    index = key_index(expert_key)
    count = index & ((np.int64(1) << shift) - 1)
    s.owner[at(replica)] = index >> shift
    s.rank[at(replica)] = count
    s.logcnt[at(index >> shift)] = count + 1


@device
def donor_fixup(s: Scratch, team: Team) -> None:
    """Move one replica from the largest average to the smallest, if that lowers the largest.

    It never does (docs/algorithm.md): the donor's own new average already decides. So this
    is where it would be made, and the averages of the others are not looked at.
    """
    heaviest: Int = NEVER
    lightest: Int = NEVER
    e = team.thread
    while e < s.weight.shape[0]:
        average = adams_quotient(s.weight[e], s.logcnt[e])
        heaviest = smaller(heaviest, heaviest_first(average, e))
        lightest = smaller(lightest, lightest_first(average, e))
        e += team.size
    heaviest, lightest = smallest_of_block(heaviest, lightest, s.weight.shape[0], s.team_keys, team)
    donor = key_index(heaviest)
    receiver = key_index(lightest)
    if team.thread == 0 and donor != receiver and s.logcnt[at(donor)] > 1:
        count = s.logcnt[at(donor)]
        old = adams_quotient(s.weight[at(donor)], count)
        new = adams_quotient(s.weight[at(donor)], count - 1)
        if np.float64(new) + FIXUP_MARGIN < np.float64(old):
            s.logcnt[at(donor)] = count - 1
            s.logcnt[at(receiver)] += 1
    sync()


@device
def allocate_replicas(num_extra: Int, num_tail: Int, shift: Int, s: Scratch, team: Team) -> None:
    """Count of each expert of ``s.weight``: ``num_tail`` of the extra replicas by Sainte-Lague."""
    e = team.thread
    while e < s.weight.shape[0]:
        s.logcnt[e] = 1
        e += team.size
    sync()
    num_adams = num_extra - num_tail
    turn = 0
    while turn < 2:  # in a loop, the code of grants is there once
        adams = turn == 0
        first = np.int64(0) if adams else num_adams
        stop = num_adams if adams else num_extra
        grant_replicas(first, stop, adams, shift, s, team)
        turn += 1


@device
def replicas_by_expert(s: Scratch, team: Team) -> None:
    """Hybrid policy: the replicas of an expert stand side by side; fills owner and rank.

    Each thread takes a run of experts. Where its replicas begin, all find out together, in
    rounds that each add up twice as many runs as the one before (Hillis and Steele, 1986).
    """
    thread, threads = team
    num_experts = s.weight.shape[0]
    run = (num_experts + threads - 1) // threads
    start = smaller(thread * run, num_experts)
    stop = smaller(start + run, num_experts)
    own: Int = np.int64(0)
    e = start
    while e < stop:
        own += s.logcnt[at(e)]
        e += 1
    total = own
    now: Int = np.int64(0)
    after: Int = threads
    s.team_keys[at(thread)] = total
    reach: Int = np.int64(1)
    while reach < threads:
        sync()
        if thread >= reach:
            total += s.team_keys[at(now + thread - reach)]
        s.team_keys[at(after + thread)] = total
        now, after = after, now
        reach *= 2
    replica = total - own
    e = start
    while e < stop:
        r = np.int64(0)
        while r < s.logcnt[at(e)]:
            s.owner[at(replica)] = e
            s.rank[at(replica)] = r
            replica += 1
            r += 1
        e += 1
    sync()


class ReplicationSizes(NamedTuple):
    """What the kernel of replica allocation is told beside the loads; as in `PlanSizes`."""

    num_tail: Int
    shift: Int
    room: Int


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
