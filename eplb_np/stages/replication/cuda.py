"""Replica allocation by the threads of a block.

Twin of `cpu.py`, which allocates row by row, and of `simd.py`. Letters: X rows, E logical experts,
P physical experts (replicas).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._cuda.jit import device, sync
from eplb_np._cuda.memory import Memory
from eplb_np._cuda.team import Team, copy_row, smaller, smallest_of_block
from eplb_np._numba.indexing import at
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.cuda_scratch import Scratch, carve
from eplb_np.stages.decisions import (
    NEVER,
    adams_quotient,
    heaviest_first,
    key_index,
    lightest_first,
)
from eplb_np.stages.priority_queue.cuda import end_queue, replace_two
from eplb_np.stages.replication.decisions import grant_quotient, is_lower
from eplb_np.stages.sorting.cuda import sort_keys


class ReplicationSizes(NamedTuple):
    """What the allocation kernel is told besides the loads; fields as in `PlanSizes`."""

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
    """Allocate one row in a block's memory, replicas in order of logical expert."""
    num_experts = weight.shape[1]
    num_phy = phy2log.shape[1]
    s = carve(memory, 0, num_experts, num_phy, 0, sizes.room, team.size)
    copy_row(weight[row], s.weight, team)
    allocate_replicas(num_phy - num_experts, sizes.num_tail, sizes.shift, s, team)
    donor_fixup(s, team)
    replicas_by_expert(s, team)
    write_replicas(row, phy2log, rank, logcnt, s, team)


@device
def allocate_replicas(num_extra: Int, num_tail: Int, shift: Int, s: Scratch, team: Team) -> None:
    """Grant ``num_extra`` replicas one by one to the experts of ``s.weight``.

    The first ``num_extra - num_tail`` go by Adams' quotient, the rest by Sainte-Lague's. Out:
    ``s.logcnt``, ``s.owner`` and ``s.rank``. Twin of the function of this name in `cpu.py` and of
    `allocate_batch` in `simd.py`.
    """
    e = team.thread
    while e < s.weight.shape[0]:
        s.logcnt[e] = 1
        e += team.size
    sync()
    num_adams = num_extra - num_tail
    turn = 0
    while turn < 2:  # a loop, so that the code of the grants exists only once
        adams = turn == 0
        first = np.int64(0) if adams else num_adams
        stop = num_adams if adams else num_extra
        grant_replicas(first, stop, adams, shift, s, team)
        turn += 1


@device
def grant_replicas(first: Int, stop: Int, adams: bool, shift: Int, s: Scratch, team: Team) -> None:
    """Grant replicas ``first`` .. ``stop - 1`` by one kind of quotient.

    A key's index is the expert and, in its last ``shift`` bits, the expert's count. So a thread
    that reads the key knows the count, and does not read an array that another thread changes.
    Out: ``s.logcnt``, and in ``s.owner`` and ``s.rank`` who got each replica and its rank.
    """
    if first == stop:
        return
    num_experts = s.weight.shape[0]
    e = team.thread
    while e < num_experts:
        count = s.logcnt[e]
        index = (np.int64(e) << shift) | count
        s.spare[e] = heaviest_first(grant_quotient(s.weight[e], count, adams), index)
        e += team.size
    now: Int = np.int64(0)
    after: Int = s.keys.shape[0]
    sort_keys(s.queues, now, after, num_experts, team)

    # With k grants left, only the first k experts can win one.
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
    """Key of an expert with one more replica."""
    index = key_index(expert_key)
    count = (index & ((np.int64(1) << shift) - 1)) + 1
    weight = s.weight[at(index >> shift)]
    return heaviest_first(grant_quotient(weight, count, adams), index + 1)


@device
def note_replica(expert_key: Int, replica: Int, shift: Int, s: Scratch) -> None:
    """Write down a replica's expert and rank."""
    index = key_index(expert_key)
    count = index & ((np.int64(1) << shift) - 1)
    s.owner[at(replica)] = index >> shift
    s.rank[at(replica)] = count
    s.logcnt[at(index >> shift)] = count + 1


@device
def donor_fixup(s: Scratch, team: Team) -> None:
    """Move one replica from the largest average to the smallest, if that lowers the largest.

    It never does (docs/algorithm.md): the donor's own new average already decides against it. So
    the averages of the others are not compared. Twin of the function of this name in `cpu.py`.
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
        if is_lower(new, old):
            s.logcnt[at(donor)] = count - 1
            s.logcnt[at(receiver)] += 1
    sync()


@device
def replicas_by_expert(s: Scratch, team: Team) -> None:
    """Hybrid policy: the replicas of an expert lie side by side; fills ``s.owner``, ``s.rank``.

    Each thread takes a run of experts. All threads find out together where their replicas begin,
    in rounds that each sum twice as many runs as the one before (Hillis and Steele, 1986). Twin
    of the function of this name in `hierarchy/nodes.py`.
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


@device
def write_replicas(
    row: Int, phy2log: Ints, rank: Ints, logcnt: Ints, s: Scratch, team: Team
) -> None:
    """Write a row's ``phy2log`` and ``rank`` [X, P] and ``logcnt`` [X, E]."""
    i = team.thread
    while i < s.owner.shape[0]:
        phy2log[row, i] = s.owner[i]
        rank[row, i] = s.rank[i]
        i += team.size
    e = team.thread
    while e < s.logcnt.shape[0]:
        logcnt[row, e] = s.logcnt[e]
        e += team.size
