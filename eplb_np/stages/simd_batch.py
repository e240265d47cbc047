"""SIMD batches: the stages of many short rows side by side. Same results as row by row, sooner.

Every step of these stages waits for the one before: which expert, which bucket, which pack. A
processor that takes one row after the other spends most of its time waiting. Here `WIDTH` rows
(each a node of a layer) take every step together. Their keys lie side by side, so the compiler
makes vector instructions of the comparisons. Loops that compare always run over all `WIDTH` rows,
a number that the compiler knows; results for rows beyond the last are ignored.

A batch finds the next choice by a scan of all keys instead of a tree, and its sort takes
n log(n)^2 steps. That pays for short rows only.

The forms for batches are the `simd.py` of each stage. Letters there: X rows, of which the arrays
may have more; n items of a row; m packs of cap = n / m items.
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
    """Allocate a `Batch` for rows of up to ``num_items``, once per call.

    It is filled with zeros: rows beyond the last are compared too, and must hold numbers.
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
