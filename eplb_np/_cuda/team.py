"""What the threads of a block do together.

Loops over what the threads share out say ``while``, here and in all kernels. How often
``range(start, stop, step)`` turns is a division of 64-bit integers, before each loop; and once the
compiler knows it, it writes the loop out four times. A kernel runs once through its code and has
to fetch it: with ``range`` it would be twice as long.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._cuda.jit import device, sync
from eplb_np._numba.indexing import at
from eplb_np._numba.types import Floats, Int, Ints


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
def smallest_of_block(
    first: Int, second: Int, count: Int, keys: Ints, team: Team
) -> tuple[Int, Int]:
    """Smallest of the keys that the first ``count`` threads bring, for two questions at once.

    ``keys`` [2 * team.size] int64 is scratch. All threads get both answers.
    """
    thread, size = team
    keys[at(thread)] = first
    keys[at(size + thread)] = second
    left = smaller(count, size)
    while left > 1:
        sync()
        half = (left + 1) >> 1
        if thread < left - half:
            first = smaller(first, keys[at(thread + half)])
            second = smaller(second, keys[at(size + thread + half)])
            keys[at(thread)] = first
            keys[at(size + thread)] = second
        left = half
    sync()
    first = keys[0]
    second = keys[at(size)]
    sync()  # the next to use the scratch may be ahead of those that still read
    return first, second


@device
def copy_row(source: Floats, target: Floats, team: Team) -> None:
    """Copy loads of a row, neighbouring threads neighbouring loads."""
    i = team.thread
    while i < target.shape[0]:
        following = i + team.size
        load = source[at(i)]
        if following < target.shape[0]:  # a read from the GPU's memory takes long
            target[at(following)] = source[at(following)]
        target[at(i)] = load
        i = following + team.size
