"""Sort of keys by the threads of a block: by rank if they are few, else in a network.

Twin of `cpu.py` and `simd.py`, which sort loads by the same keys.
"""

from __future__ import annotations

import numpy as np

from eplb_np._cuda.jit import device, sync
from eplb_np._cuda.team import Team, power_of_two, smaller
from eplb_np._numba.indexing import at
from eplb_np._numba.types import Int, Ints
from eplb_np.stages.decisions import NEVER

MOST_RANKED = 128
"""Up to this many keys, each thread compares its own with all others to find its rank. For more,
a network takes fewer comparisons, but waits more often."""


@device
def sort_keys(queues: Ints, now: Int, after: Int, count: Int, team: Team) -> None:
    """Sort the keys that begin at ``queues[after]``, ascending, to where ``queues[now]`` begins.

    Keys carry their index, so no two are equal. There must be room for 3 more keys at ``after``,
    and for the next power of two at ``now``.
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
    """Sort few keys: each thread counts the keys smaller than its own."""
    i = team.thread
    while i < count:
        key = queues[at(after + i)]
        queues[at(now + rank_of(key, queues, after, count, team))] = key
        i += team.size
    sync()


@device
def rank_of(key: Int, queues: Ints, first: Int, count: Int, team: Team) -> Int:
    """Count the keys smaller than ``key``, four at a time, because they are read side by side.

    The compiler must not know the step. It would unroll the loop to 64 keys, run out of registers
    and read them one by one.
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
