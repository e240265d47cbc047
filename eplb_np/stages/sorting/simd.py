"""Stable sort of many short rows, in SIMD batches: a sorting network.

Twin of `cpu.py`, which sorts one row, and of `cuda.py`. Letters: X rows of n loads each.
"""

from __future__ import annotations

from eplb_np._numba.indexing import at
from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.decisions import INDEX_MASK, heaviest_first
from eplb_np.stages.simd_batch import WIDTH, Batch


@kernel
def sort_batch(num_rows: Int, load: Floats, order: Ints, batch: Batch) -> None:
    """`sort_descending` for every row of ``load`` [X, n]; out: ``order`` [X, n].

    Batcher's merge exchange (Knuth, The Art of Computer Programming, vol. 3, 5.2.2, algorithm M):
    which keys it compares does not depend on the keys. O(X n log(n)^2).
    """
    num_items = load.shape[1]
    key = batch.key
    for r in range(num_rows):
        for i in range(num_items):
            key[at(i * WIDTH + r)] = heaviest_first(load[at(r), at(i)], i)
    largest = 1
    while 2 * largest < num_items:
        largest *= 2
    run = largest
    while run > 0:
        distance = run
        start = 0
        reach = largest
        while True:
            for first in range(start, num_items - distance, 2 * run):
                for i in range(first, min(first + run, num_items - distance)):
                    _exchange(key, i, i + distance)
            if reach == run:
                break
            distance = reach - run
            reach >>= 1
            start = run
        run >>= 1
    for r in range(num_rows):
        for i in range(num_items):
            order[at(r), at(i)] = key[at(i * WIDTH + r)] & INDEX_MASK


@kernel
def _exchange(key: Ints, i: Int, j: Int) -> None:
    """Put two keys of each row into ascending order."""
    for r in range(WIDTH):
        a = key[at(i * WIDTH + r)]
        b = key[at(j * WIDTH + r)]
        key[at(i * WIDTH + r)] = min(a, b)
        key[at(j * WIDTH + r)] = max(a, b)
