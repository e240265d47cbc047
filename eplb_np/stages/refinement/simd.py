"""Bounded refinement in SIMD batches."""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.decisions import NEVER, at, heaviest_first, key_index, lightest_first
from eplb_np.stages.refinement.cpu import swap_if_better
from eplb_np.stages.refinement.decisions import swap_residual
from eplb_np.stages.simd_batch import WIDTH, Batch

NO_ITEM = np.float32(-np.inf)


@kernel
def refine_batch(
    num_rows: Int,
    weight: Floats,
    num_packs: Int,
    refine_steps: Int,
    pack: Ints,
    rank: Ints,
    members: Ints,
    lanes: Batch,
) -> None:
    """`refine_packs` for every row of ``weight`` [X, n].

    In and out: ``pack`` [X, n], ``rank`` [X, n], ``members`` [X, m * cap]. A step takes
    O(X (n + cap^2)). A row that has no swap to make finds none in the next step either.
    """
    num_items = weight.shape[1]
    capacity = num_items // num_packs
    load, delta = lanes.weight, lanes.delta
    for _ in range(refine_steps):
        for i in range(num_packs * WIDTH):
            load[at(i)] = 0
        for i in range(num_items):
            for r in range(num_rows):
                load[at(pack[at(r), at(i)] * WIDTH + r)] += weight[at(r), at(i)]
        _extreme_packs(load, num_packs, lanes.heaviest, lanes.lightest)
        for r in range(num_rows):
            heavy = key_index(lanes.heaviest[at(r)])
            light = key_index(lanes.lightest[at(r)])
            delta[at(r)] = load[at(heavy * WIDTH + r)] - load[at(light * WIDTH + r)]
            for k in range(capacity):
                item = members[at(r), at(heavy * capacity + k)]
                lanes.heavy_item[at(k * WIDTH + r)] = item
                lanes.heavy[at(k * WIDTH + r)] = weight[at(r), at(item)]
                item = members[at(r), at(light * capacity + k)]
                lanes.light[at(k * WIDTH + r)] = weight[at(r), at(item)]
        _best_swaps(capacity, lanes)
        for r in range(num_rows):
            heavy = key_index(lanes.heaviest[at(r)])
            light = key_index(lanes.lightest[at(r)])
            swap_if_better(
                weight[r],
                delta[r],
                lanes.best[r],
                heavy,
                light,
                members[r, heavy * capacity : (heavy + 1) * capacity],
                members[r, light * capacity : (light + 1) * capacity],
                pack[r],
                rank[r],
            )


@kernel
def _extreme_packs(load: Floats, num_packs: Int, heaviest: Ints, lightest: Ints) -> None:
    """Keys of the heaviest and the lightest pack of each row."""
    for r in range(WIDTH):
        heaviest[at(r)] = NEVER
        lightest[at(r)] = NEVER
    for p in range(num_packs):
        for r in range(WIDTH):
            pack_load = load[at(p * WIDTH + r)]
            heaviest[at(r)] = min(heaviest[at(r)], heaviest_first(pack_load, p))
            lightest[at(r)] = min(lightest[at(r)], lightest_first(pack_load, p))


@kernel
def _best_swaps(capacity: Int, lanes: Batch) -> None:
    """Key of the best swap of each row, as `_best_swap` in `packing`.

    The candidates are the lightest item that is at least the target, and the one before it.
    """
    best, delta, light, around = lanes.best, lanes.delta, lanes.light, lanes.around
    for i in range(capacity * WIDTH, (capacity + 3) // 4 * 4 * WIDTH):
        light[at(i)] = NO_ITEM
    for r in range(WIDTH):
        best[at(r)] = NEVER
    for h in range(capacity):
        for r in range(WIDTH):
            half = delta[at(r)] * np.float32(0.5)
            around[at(r)] = lanes.heavy[at(h * WIDTH + r)] - half
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
            item = lanes.heavy_item[at(h * WIDTH + r)]
            weight = lanes.heavy[at(h * WIDTH + r)]
            below = around[at(WIDTH + r)]
            above = around[at(2 * WIDTH + r)]
            first_choice = above if above > NO_ITEM else below
            second_choice = below if below > NO_ITEM else above
            key = lightest_first(swap_residual(delta[at(r)], weight, first_choice), 2 * item)
            other = lightest_first(swap_residual(delta[at(r)], weight, second_choice), 2 * item + 1)
            best[at(r)] = min(best[at(r)], min(key, other))
