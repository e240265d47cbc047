"""A sorted queue of keys in shared memory: made by a sort, and kept sorted by all threads at once.

Queues are at two places of one array, now at one and after a step at the other. (Two arrays that
change roles would hide from the compiler that both are in shared memory.)
"""

from __future__ import annotations

import numpy as np

from eplb_np._types import Int, Ints
from eplb_np.cuda.kernels._jit import device, sync
from eplb_np.cuda.kernels.block import Team, larger, power_of_two, smaller
from eplb_np.kernels.decisions import NEVER, at

MOST_RANKED = 128
"""So many keys, at most, each thread compares with its own to find their ranks; a network sorts
more with fewer comparisons, but waits more often."""


@device
def sort_keys(queues: Ints, now: Int, after: Int, count: Int, team: Team) -> None:
    """Sort the keys from ``queues[after]`` on, ascending, to where ``queues[now]`` begins.

    Keys carry their index, so no two are equal. There must be room for 3 keys more at ``after``,
    and at ``now`` for as many as make a power of two.
    """
    if team.thread < 3:
        queues[at(after + count + team.thread)] = NEVER
    sync()
    if count <= MOST_RANKED:
        sort_by_rank(queues, now, after, count, team)
    else:
        sort_in_network(queues, now, after, count, team)


@device
def sort_by_rank(queues: Ints, now: Int, after: Int, count: Int, team: Team) -> None:
    """Sort few keys: each thread counts the keys that are smaller than its own."""
    i = team.thread
    while i < count:
        key = queues[at(after + i)]
        queues[at(now + rank_of(key, queues, after, count, team))] = key
        i += team.size
    sync()


@device
def rank_of(key: Int, queues: Ints, first: Int, count: Int, team: Team) -> Int:
    """Count the keys that are smaller than one: four in a turn, as they are read side by side.

    The compiler must not know the step: it would write out 64 keys, and for want of registers
    read them one by one.
    """
    rank: Int = np.int64(0)
    step = smaller(team.size, np.int64(4))
    i = first
    while i < first + count:
        a = queues[at(i)]
        b = queues[at(i + 1)]
        c = queues[at(i + 2)]
        d = queues[at(i + 3)]
        rank = rank + (a < key) + (b < key) + (c < key) + (d < key)
        i += step
    return rank


@device
def sort_in_network(queues: Ints, now: Int, after: Int, count: Int, team: Team) -> None:
    """Sort many keys by Batcher's bitonic network.

    No step depends on the keys, and neighbouring threads touch neighbouring memory.
    """
    size = power_of_two(count)
    i = team.thread
    while i < size:
        queues[at(now + i)] = queues[at(after + i)] if i < count else NEVER
        i += team.size
    pairs = size >> 1
    span = np.int64(2)
    while span <= size:
        stride = span >> 1
        while stride > 0:
            sync()
            i = team.thread
            while i < pairs:
                low = now + 2 * i - (i & (stride - 1))
                a = queues[at(low)]
                b = queues[at(low + stride)]
                if (a > b) == (((low - now) & span) == 0):
                    queues[at(low)] = b
                    queues[at(low + stride)] = a
                i += team.size
            stride >>= 1
        span <<= 1
    sync()


@device
def end_queue(queues: Ints, now: Int, after: Int, length: Int, team: Team) -> None:
    """Let NEVER follow twice on the last of ``length`` keys, at both places."""
    if team.thread < 2:
        queues[at(now + length + team.thread)] = NEVER
        queues[at(after + length + team.thread)] = NEVER
    sync()


@device
def replace_two(
    queues: Ints, now: Int, after: Int, length: Int, own: Int, key: Int, then: Int, team: Team
) -> Int:
    """Put another key, not smaller, in the place of a sorted queue's first, and do so once more.

    What the first ``length`` threads do; others have nothing to do but to wait at the barrier
    behind it, and must not keep the GPU busy.

    The queue begins at ``queues[now]``, ascending, and will begin at ``queues[after]``; at both
    places NEVER follows twice on its last key. ``own`` is the key at the thread's place. Returns
    what is there then.

    A systolic priority queue: each key looks at its neighbours and at the new keys, and knows
    what stands in its place afterwards. So a step takes one barrier, however long the queue is; a
    minimum by halves would take one for each half, and a winner tree a load for each level.
    """
    i = team.thread
    own = after_two(own, queues[at(now + i + 1)], queues[at(now + i + 2)], key, then)
    queues[at(after + i)] = own
    i += team.size
    while i < length:
        queues[at(after + i)] = after_two(
            queues[at(now + i)], queues[at(now + i + 1)], queues[at(now + i + 2)], key, then
        )
        i += team.size
    return own


@device
def after_two(own: Int, behind: Int, further: Int, key: Int, then: Int) -> Int:
    """Key that stands in the place of ``own``, with two behind it, once two keys were put in."""
    own = smaller(behind, larger(own, key))
    behind = smaller(further, larger(behind, key))
    return smaller(behind, larger(own, then))
