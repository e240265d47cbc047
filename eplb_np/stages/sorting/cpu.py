"""Stable sort of loads, heaviest first: a radix sort.

The twins are `simd.py`, a network for many short rows at once, and `cuda.py`, by the threads of a
block. Letters: n loads.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.indexing import at
from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.decisions import INDEX_MASK, KEY_SHIFT, LOAD_MASK, load_bits

RADIX_BITS = 8


RADIX = 1 << RADIX_BITS


LOAD_DIGITS = np.int64(4)  # of RADIX_BITS bits in a float32


HISTOGRAM_SIZE = LOAD_DIGITS * RADIX


MOST_COARSELY_SORTED = 512
"""Up to this many loads, two coarse passes and a little insertion beat four full passes, by a
factor of 1.3 to 2."""


@kernel
def sort_descending(load: Floats, order: Ints, keys: Ints, spare: Ints, histogram: Ints) -> None:
    """Write the indices of ``load`` [n], heaviest first, to ``order`` [n].

    A tie goes to the lower index. Scratch: ``keys`` [n], ``spare`` [n] and ``histogram``
    [HISTOGRAM_SIZE], all int64. O(n).
    """
    n = load.shape[0]
    heaviest: Int = np.int64(0)
    lightest: Int = LOAD_MASK
    for i in range(n):
        bits = load_bits(load[i])
        heaviest = max(heaviest, bits)
        lightest = min(lightest, bits)
    for i in range(n):
        keys[i] = ((heaviest - load_bits(load[i])) << KEY_SHIFT) | i
    if n > MOST_COARSELY_SORTED or not _sort_coarsely(
        keys, n, heaviest - lightest, spare, histogram
    ):
        for i in range(n):
            keys[i] = ((heaviest - load_bits(load[i])) << KEY_SHIFT) | i
        _radix_sort(keys, n, spare, histogram)
    for i in range(n):
        order[i] = keys[i] & INDEX_MASK


@kernel
def _radix_sort(keys: Ints, n: Int, spare: Ints, histogram: Ints) -> None:
    """Sort by the digits of the loads' bits, the least significant first; each pass is stable."""
    for i in range(HISTOGRAM_SIZE):
        histogram[i] = 0
    for i in range(n):
        bits = keys[i] >> KEY_SHIFT
        for digit in range(LOAD_DIGITS):
            histogram[digit * RADIX + ((bits >> (digit * RADIX_BITS)) & (RADIX - 1))] += 1
    for digit in range(LOAD_DIGITS):
        _positions(histogram, digit * RADIX, np.int64(RADIX))
    source, target = keys, spare
    for digit in range(LOAD_DIGITS):
        shift = KEY_SHIFT + digit * RADIX_BITS
        _scatter(source, target, n, shift, RADIX - 1, histogram, digit * RADIX)
        source, target = target, source


@kernel
def _sort_coarsely(keys: Ints, n: Int, span: Int, spare: Ints, histogram: Ints) -> bool:
    """Sort by the leading bits of the range that the loads span, then finish by insertion.

    Returns False, with ``keys`` out of order, if the loads are so clustered that insertion takes
    more than a few moves per key.
    """
    digit_bits = 5 if n <= 128 else 6
    buckets = 1 << digit_bits
    shift = 0
    while (span >> shift) >= buckets * buckets:
        shift += 1
    for i in range(2 * buckets):
        histogram[i] = 0
    for i in range(n):
        bits = keys[i] >> (KEY_SHIFT + shift)
        histogram[bits & (buckets - 1)] += 1
        histogram[buckets + (bits >> digit_bits)] += 1
    _positions(histogram, np.int64(0), buckets)
    _positions(histogram, buckets, buckets)
    _scatter(keys, spare, n, KEY_SHIFT + shift, buckets - 1, histogram, np.int64(0))
    _scatter(spare, keys, n, KEY_SHIFT + shift + digit_bits, buckets - 1, histogram, buckets)
    moves_left = 8 * n
    for i in range(1, n):
        key = keys[i]
        j = i
        while j > 0 and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            j -= 1
        keys[j] = key
        moves_left -= i - j
        if moves_left < 0:
            return False
    return True


@kernel
def _positions(histogram: Ints, start: Int, buckets: Int) -> None:
    """Turn bucket sizes into the position at which each bucket starts."""
    total = 0
    for i in range(start, start + buckets):
        size = histogram[i]
        histogram[i] = total
        total += size


@kernel
def _scatter(
    source: Ints, target: Ints, n: Int, shift: Int, mask: Int, histogram: Ints, start: Int
) -> None:
    """Distribute the keys into their buckets, keeping the order within each."""
    for i in range(n):
        key = source[i]
        bucket = at(start + ((key >> shift) & mask))
        target[at(histogram[bucket])] = key
        histogram[bucket] += 1
