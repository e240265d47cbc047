"""The smallest of many keys in every row of a SIMD batch, by a scan of all keys.

Twin of the winner tree in `cpu.py` and of the sorted queue in `cuda.py`.
"""

from __future__ import annotations

from eplb_np._numba.indexing import at
from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int, Ints
from eplb_np.stages.decisions import NEVER
from eplb_np.stages.simd_batch import WIDTH


@kernel
def pad_keys(num_keys: Int, key: Ints) -> Int:
    """Append keys that never win, up to a multiple of four; returns how many keys there are."""
    padded = (num_keys + 3) // 4 * 4
    for i in range(num_keys * WIDTH, padded * WIDTH):
        key[at(i)] = NEVER
    return padded


@kernel
def smallest_keys(key: Ints, num_keys: Int, best: Ints) -> None:
    """Smallest key of each row: four keys at a time, because each loop over the rows costs."""
    for r in range(WIDTH):
        best[at(r)] = NEVER
    for first in range(0, num_keys, 4):
        place = first * WIDTH
        for r in range(WIDTH):
            a = min(key[at(place + r)], key[at(place + WIDTH + r)])
            b = min(key[at(place + 2 * WIDTH + r)], key[at(place + 3 * WIDTH + r)])
            best[at(r)] = min(best[at(r)], min(a, b))
