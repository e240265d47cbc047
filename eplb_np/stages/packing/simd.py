"""LPT into packs of equal size for many short rows, in SIMD batches.

Twin of `cpu.py`, which packs one row, and of `cuda.py`. Letters: X rows of n items each, m packs
of cap = n / m items.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.indexing import at
from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.decisions import NEVER, key_index, key_load, lightest_first
from eplb_np.stages.priority_queue.simd import pad_keys, smallest_keys
from eplb_np.stages.refinement.cpu import Packing
from eplb_np.stages.simd_batch import WIDTH, Batch


@kernel
def pack_batch(
    num_rows: Int, weight: Floats, order: Ints, num_packs: Int, packing: Packing, batch: Batch
) -> None:
    """`longest_processing_time` for every row of ``weight`` [X, n] and ``order`` [X, n].

    Out: ``packing``, with an axis [X] in front. O(X n m).
    """
    num_items = weight.shape[1]
    capacity = num_items // num_packs
    pack, rank, members = packing
    key, held = batch.key, batch.tally
    num_keys = pad_keys(num_packs, key)
    for p in range(num_packs):
        for r in range(WIDTH):
            key[at(p * WIDTH + r)] = lightest_first(np.float32(0), p)
            held[at(p * WIDTH + r)] = 0
    for i in range(num_items):
        smallest_keys(key, num_keys, batch.best)
        for r in range(num_rows):
            lightest = batch.best[at(r)]
            chosen = key_index(lightest)
            place = at(chosen * WIDTH + r)
            item = order[at(r), at(i)]
            members[at(r), at(chosen * capacity + held[place])] = item
            held[place] += 1
            heavier = lightest_first(key_load(lightest) + weight[at(r), at(item)], chosen)
            key[place] = heavier if held[place] < capacity else NEVER
    for r in range(num_rows):
        i = 0
        for p in range(num_packs):
            for k in range(capacity):
                item = members[at(r), at(i)]
                pack[at(r), at(item)] = p
                rank[at(r), at(item)] = k
                i += 1
