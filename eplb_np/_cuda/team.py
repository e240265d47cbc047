"""What the threads of a block do together.

Loops that share work among the threads are ``while`` loops, here and in all kernels. The length of
``range(start, stop, step)`` takes a division of 64-bit integers before each loop, and the compiler
then unrolls the loop four times. A kernel runs through its code once and has to fetch it; with
``range`` the code would be twice as long.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._cuda.jit import device, sync
from eplb_np._numba.indexing import at
from eplb_np._numba.types import Floats, Int, Ints


class Team(NamedTuple):
    """A thread of a block, and the number of threads: a power of two."""

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
    """Smallest power of two that is at least ``number``."""
    power = np.int64(1)
    while power < number:
        power *= 2
    return power


@device
def smallest_of_block(
    first: Int, second: Int, count: Int, keys: Ints, team: Team
) -> tuple[Int, Int]:
    """Smallest of the keys of the first ``count`` threads, for two kinds of key at once.

    Each thread brings a ``first`` and a ``second``; all threads get the smallest of both. Scratch:
    ``keys`` [2 * team.size] int64.
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
    sync()  # some thread may soon overwrite the scratch, while others still read it
    return first, second


@device
def copy_row(source: Floats, target: Floats, team: Team) -> None:
    """Copy a row of loads; neighbouring threads copy neighbouring loads."""
    i = team.thread
    while i < target.shape[0]:
        following = i + team.size
        load = source[at(i)]
        if following < target.shape[0]:  # two reads at once, as each takes long
            target[at(following)] = source[at(following)]
        target[at(i)] = load
        i = following + team.size
