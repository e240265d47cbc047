"""What the threads of a block do together.

Loops over what the threads share out say ``while``, here and in all kernels. How often
``range(start, stop, step)`` turns is a division of 64-bit integers, before each loop; and once the
compiler knows it, it writes the loop out four times. A kernel runs once through its code and has
to fetch it: with ``range`` it would be more than twice as long.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._types import Floats, Int, Ints
from eplb_np.cuda.kernels._jit import device, sync
from eplb_np.kernels.decisions import at


class Team(NamedTuple):
    """A thread of a block, and how many there are: a power of two."""

    thread: Int
    size: Int


@device
def smaller(a: Int, b: Int) -> Int:
    """Smaller of two keys."""
    return a if a < b else b


@device
def larger(a: Int, b: Int) -> Int:
    """Larger of two keys."""
    return a if a > b else b


@device
def power_of_two(number: Int) -> Int:
    """Smallest power of two that is not below a number."""
    power = np.int64(1)
    while power < number:
        power *= 2
    return power


@device
def smallest_of_block(first: Int, second: Int, keys: Ints, team: Team) -> tuple[Int, Int]:
    """Smallest of the keys that all threads bring, for two questions at once.

    ``keys`` [2 * team.size] int64 is scratch. All threads get both answers.
    """
    thread, size = team
    keys[at(thread)] = first
    keys[at(size + thread)] = second
    half = size // 2
    while half > 0:
        sync()
        if thread < half:
            keys[at(thread)] = smaller(keys[at(thread)], keys[at(thread + half)])
            other = size + thread
            keys[at(other)] = smaller(keys[at(other)], keys[at(other + half)])
        half //= 2
    sync()
    first = keys[0]
    second = keys[at(size)]
    sync()  # the next to use the scratch may be ahead of those that still read
    return first, second


@device
def sort_keys(keys: Ints, size: Int, team: Team) -> None:
    """Sort ``keys[:size]`` ascending; ``size`` is a power of two.

    Batcher's bitonic network: no step depends on the keys, and neighbouring threads touch
    neighbouring memory. Keys carry their index, so there are no equals to keep in order.
    """
    span = np.int64(2)
    while span <= size:
        stride = span // 2
        while stride > 0:
            sync()
            i = team.thread
            while i < size // 2:
                low = 2 * i - (i & (stride - 1))
                a = keys[at(low)]
                b = keys[at(low + stride)]
                if (a > b) == ((low & span) == 0):
                    keys[at(low)] = b
                    keys[at(low + stride)] = a
                i += team.size
            stride //= 2
        span *= 2
    sync()


@device
def replace_first(
    queues: Ints, now: Int, after: Int, length: Int, own: Int, behind: Int, key: Int, team: Team
) -> Int:
    """Take the first key of a sorted queue out and put another, not smaller, in its place.

    What the first ``length`` threads do; others have nothing to do but to wait at the barrier
    behind it, and must not keep the GPU busy.

    The queue begins at ``queues[now]``, ascending, and will begin at ``queues[after]``; at both
    places NEVER follows its last key. (Two arrays that change roles would hide from the compiler
    that both are in shared memory.) ``own`` is the key at the thread's place and ``behind`` the
    next one, read by the caller before it had made the new key, as the reads take as long as
    that. Returns what is at the thread's place then.

    A systolic priority queue: each key looks at its neighbour and at the new key, and knows what
    stands in its place afterwards. So a step takes one barrier, however long the queue is; a
    minimum by halves would take one for each half, and a winner tree a load for each level.
    """
    own = smaller(behind, larger(own, key))
    queues[at(after + team.thread)] = own
    i = team.thread + team.size
    while i < length:
        following = queues[at(now + i + 1)]
        queues[at(after + i)] = smaller(following, larger(queues[at(now + i)], key))
        i += team.size
    return own


@device
def copy_row(source: Floats, target: Floats, team: Team) -> None:
    """Copy loads of a row, neighbouring threads neighbouring loads."""
    i = team.thread
    while i < target.shape[0]:
        target[i] = source[i]
        i += team.size
