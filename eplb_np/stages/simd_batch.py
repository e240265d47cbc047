"""The stages of many rows side by side, in lockstep: the same results, sooner.

Every step of these stages waits for the one before: which expert, which bucket, which pack. A
processor that takes one row after the other spends most of its time on that wait. Here `WIDTH`
rows (a node of a layer each) take every step together, and what they compare lies side by side,
so that the compiler makes vector instructions of it. Loops that compare run over all `WIDTH`
rows, a number that the compiler knows; what they find in rows that are not there is not used.

In lockstep the next choice is found by a look at all keys and not by a tree, and sorting takes
n log(n)^2 steps: that pays for short rows only.

Letters: X rows, of which there may be room for more; n items of a row, m packs of cap = n / m.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.jit import allocator
from eplb_np._numba.types import Floats, Int, Ints

WIDTH = np.int64(32)
"""Rows at a time: their keys fit the first cache, and a loop over them is worth its start."""


class Batch(NamedTuple):
    """Working memory: entry i of row r is at ``i * WIDTH + r``."""

    key: Ints  # [n + 3] int64
    weight: Floats  # [n] float32
    tally: Ints  # [n] int64, replicas of an expert, or items in a pack
    best: Ints  # [1] int64, smallest key
    heaviest: Ints  # [1] int64, key of the heaviest pack
    lightest: Ints  # [1] int64, key of the lightest pack
    delta: Floats  # [1] float32, load of the heaviest pack less that of the lightest
    heavy_item: Ints  # [n] int64, items of the heaviest pack
    heavy: Floats  # [n] float32, their weights
    light: Floats  # [n + 3] float32, weights of the items of the lightest pack
    around: Floats  # [3] float32, scratch of `_best_swaps`


@allocator
def make_batch(num_items: Int) -> Batch:
    """Allocate `Batch` for rows of up to ``num_items``, once per call.

    With zeros: rows that are not there are compared too, and should hold no strange numbers.
    """
    size = WIDTH * num_items
    padded = WIDTH * (num_items + 3)
    return Batch(
        np.zeros(padded, np.int64),
        np.zeros(size, np.float32),
        np.zeros(size, np.int64),
        np.zeros(WIDTH, np.int64),
        np.zeros(WIDTH, np.int64),
        np.zeros(WIDTH, np.int64),
        np.zeros(WIDTH, np.float32),
        np.zeros(size, np.int64),
        np.zeros(size, np.float32),
        np.zeros(padded, np.float32),
        np.zeros(3 * WIDTH, np.float32),
    )
