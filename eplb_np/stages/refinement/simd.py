"""Refinement of the packings of many short rows, in SIMD batches.

Twin of `cpu.py`, which refines one row, and of `cuda.py`. Letters: X rows of n items each, m packs
of cap = n / m items.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.indexing import at
from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.decisions import NEVER, heaviest_first, key_index, lightest_first
from eplb_np.stages.refinement.cpu import Packing, swap_if_better
from eplb_np.stages.refinement.decisions import swap_residual
from eplb_np.stages.simd_batch import WIDTH, Batch

NO_ITEM = np.float32(-np.inf)


@kernel
def refine_batch(
    num_rows: Int,
    weight: Floats,
    num_packs: Int,
    refine_steps: Int,
    packing: Packing,
    batch: Batch,
) -> None:
    """`refine_packs` for every row of ``weight`` [X, n].

    In and out: ``packing``, with an axis [X] in front. A step takes O(X (n + cap^2)). A row without
    a good swap finds none in the next step either, so rows need not stop.
    """
    num_items = weight.shape[1]
    capacity = num_items // num_packs
    pack, rank, members = packing
    load, delta = batch.weight, batch.delta
    for _ in range(refine_steps):
        for i in range(num_packs * WIDTH):
            load[at(i)] = 0
        for i in range(num_items):
            for r in range(num_rows):
                load[at(pack[at(r), at(i)] * WIDTH + r)] += weight[at(r), at(i)]
        _extreme_packs(load, num_packs, batch.heaviest, batch.lightest)
        for r in range(num_rows):
            heavy = key_index(batch.heaviest[at(r)])
            light = key_index(batch.lightest[at(r)])
            delta[at(r)] = load[at(heavy * WIDTH + r)] - load[at(light * WIDTH + r)]
            for k in range(capacity):
                item = members[at(r), at(heavy * capacity + k)]
                batch.heavy_item[at(k * WIDTH + r)] = item
                batch.heavy[at(k * WIDTH + r)] = weight[at(r), at(item)]
                item = members[at(r), at(light * capacity + k)]
                batch.light[at(k * WIDTH + r)] = weight[at(r), at(item)]
        _best_swaps(capacity, batch)
        for r in range(num_rows):
            heavy = key_index(batch.heaviest[at(r)])
            light = key_index(batch.lightest[at(r)])
            swap_if_better(
                weight[r],
                delta[r],
                batch.best[r],
                members[r, heavy * capacity : (heavy + 1) * capacity],
                members[r, light * capacity : (light + 1) * capacity],
                pack[r],
                rank[r],
            )


@kernel
def _extreme_packs(load: Floats, num_packs: Int, heaviest: Ints, lightest: Ints) -> None:
    """Keys of the heaviest and the lightest pack of each row: `_extreme_packs` of `cpu.py`."""
    for r in range(WIDTH):
        heaviest[at(r)] = NEVER
        lightest[at(r)] = NEVER
    for p in range(num_packs):
        for r in range(WIDTH):
            pack_load = load[at(p * WIDTH + r)]
            heaviest[at(r)] = min(heaviest[at(r)], heaviest_first(pack_load, p))
            lightest[at(r)] = min(lightest[at(r)], lightest_first(pack_load, p))


@kernel
def _best_swaps(capacity: Int, batch: Batch) -> None:
    """Key of the best swap of each row: `_best_swap` of `cpu.py`, by a scan.

    The candidates are the lightest item that is at least the target, and the one before it.
    """
    best, delta, light, around = batch.best, batch.delta, batch.light, batch.around
    for i in range(capacity * WIDTH, (capacity + 3) // 4 * 4 * WIDTH):
        light[at(i)] = NO_ITEM
    for r in range(WIDTH):
        best[at(r)] = NEVER
    for h in range(capacity):
        for r in range(WIDTH):
            half = delta[at(r)] * np.float32(0.5)
            around[at(r)] = batch.heavy[at(h * WIDTH + r)] - half
            around[at(WIDTH + r)] = NO_ITEM
            around[at(2 * WIDTH + r)] = NO_ITEM
        for first in range(0, capacity, 4):
            place = first * WIDTH
            for r in range(WIDTH):
                target = around[at(r)]
                a = light[at(place + r)]
                b = light[at(place + WIDTH + r)]
                c = light[at(place + 2 * WIDTH + r)]
                d = light[at(place + 3 * WIDTH + r)]
                below = d if d < target else NO_ITEM
                below = c if c < target else below
                below = b if b < target else below
                below = a if a < target else below
                above = around[at(2 * WIDTH + r)]
                above = above if a < target else a
                above = above if b < target else b
                above = above if c < target else c
                above = above if d < target else d
                before = around[at(WIDTH + r)]
                around[at(WIDTH + r)] = below if below > before else before
                around[at(2 * WIDTH + r)] = above
        for r in range(WIDTH):
            item = batch.heavy_item[at(h * WIDTH + r)]
            weight = batch.heavy[at(h * WIDTH + r)]
            below = around[at(WIDTH + r)]
            above = around[at(2 * WIDTH + r)]
            first_choice = above if above > NO_ITEM else below
            second_choice = below if below > NO_ITEM else above
            key = lightest_first(swap_residual(delta[at(r)], weight, first_choice), 2 * item)
            other = lightest_first(swap_residual(delta[at(r)], weight, second_choice), 2 * item + 1)
            best[at(r)] = min(best[at(r)], min(key, other))
