"""The smallest of many keys, in SIMD batches."""

from __future__ import annotations

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int, Ints
from eplb_np.stages.decisions import NEVER, at
from eplb_np.stages.simd_batch import WIDTH


@kernel
def pad_keys(num_keys: Int, key: Ints) -> Int:
    """Fill up with keys that never win, to a multiple of four, which is returned."""
    padded = (num_keys + 3) // 4 * 4
    for i in range(num_keys * WIDTH, padded * WIDTH):
        key[at(i)] = NEVER
    return padded


@kernel
def smallest_keys(key: Ints, num_keys: Int, best: Ints) -> None:
    """Smallest key of each row. Four at a time, as every loop over the rows has its price."""
    for r in range(WIDTH):
        best[at(r)] = NEVER
    for first in range(0, num_keys, 4):
        place = first * WIDTH
        for r in range(WIDTH):
            a = min(key[at(place + r)], key[at(place + WIDTH + r)])
            b = min(key[at(place + 2 * WIDTH + r)], key[at(place + 3 * WIDTH + r)])
            best[at(r)] = min(best[at(r)], min(a, b))
