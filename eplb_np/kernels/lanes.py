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

from eplb_np._jit import allocator, kernel
from eplb_np._types import Floats, Int, Ints
from eplb_np.kernels.decisions import (
    INDEX_MASK,
    NEVER,
    adams_quotient,
    at,
    heaviest_first,
    key_index,
    key_load,
    lightest_first,
    sainte_lague_quotient,
)
from eplb_np.kernels.packing import swap_if_better, swap_residual

WIDTH = np.int64(32)
"""Rows at a time: their keys fit the first cache, and a loop over them is worth its start."""

NO_ITEM = np.float32(-np.inf)


class Lanes(NamedTuple):
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
def make_lanes(num_items: Int) -> Lanes:
    """Allocate `Lanes` for rows of up to ``num_items``, once per call.

    With zeros: rows that are not there are compared too, and should hold no strange numbers.
    """
    size = WIDTH * num_items
    padded = WIDTH * (num_items + 3)
    return Lanes(
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


@kernel
def allocate_rows(
    num_rows: Int,
    weight: Floats,
    num_extra: Int,
    num_tail: Int,
    count: Ints,
    granted: Ints,
    lanes: Lanes,
) -> None:
    """`allocate_replicas` for every row of ``weight`` [X, E].

    Out: ``count`` [X, E], ``granted`` [X, num_extra]. O(X E num_extra).
    """
    num_experts = weight.shape[1]
    num_keys = _pad(num_experts, lanes.key)
    for r in range(num_rows):
        for e in range(num_experts):
            lanes.weight[at(e * WIDTH + r)] = weight[at(r), at(e)]
    for e in range(num_experts):
        for r in range(WIDTH):
            place = at(e * WIDTH + r)
            lanes.tally[place] = 1
            lanes.key[place] = heaviest_first(lanes.weight[place], e)
    num_adams = num_extra - num_tail
    for step in range(num_extra):
        if step == num_adams:
            for e in range(num_experts):
                for r in range(WIDTH):
                    place = at(e * WIDTH + r)
                    quotient = sainte_lague_quotient(lanes.weight[place], lanes.tally[place])
                    lanes.key[place] = heaviest_first(quotient, e)
        _smallest_keys(lanes.key, num_keys, lanes.best)
        for r in range(num_rows):
            winner = key_index(lanes.best[at(r)])
            place = at(winner * WIDTH + r)
            granted[at(r), at(step)] = winner
            lanes.tally[place] += 1
            if step < num_adams:
                quotient = adams_quotient(lanes.weight[place], lanes.tally[place])
            else:
                quotient = sainte_lague_quotient(lanes.weight[place], lanes.tally[place])
            lanes.key[place] = heaviest_first(quotient, winner)
    for r in range(num_rows):
        for e in range(num_experts):
            count[at(r), at(e)] = lanes.tally[at(e * WIDTH + r)]


@kernel
def sort_rows(num_rows: Int, load: Floats, order: Ints, lanes: Lanes) -> None:
    """`sort_descending` for every row of ``load`` [X, n]; out: ``order`` [X, n].

    Batcher's merge exchange (Knuth, The Art of Computer Programming, vol. 3, 5.2.2, algorithm M):
    which keys it compares does not depend on them. O(X n log(n)^2).
    """
    num_items = load.shape[1]
    key = lanes.key
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
def pack_rows(
    num_rows: Int,
    weight: Floats,
    order: Ints,
    num_packs: Int,
    pack: Ints,
    rank: Ints,
    members: Ints,
    lanes: Lanes,
) -> None:
    """`longest_processing_time` for every row of ``weight`` [X, n] and ``order`` [X, n].

    Out: ``pack`` [X, n], ``rank`` [X, n], ``members`` [X, m * cap]. O(X n m).
    """
    num_items = weight.shape[1]
    capacity = num_items // num_packs
    key, held = lanes.key, lanes.tally
    num_keys = _pad(num_packs, key)
    for p in range(num_packs):
        for r in range(WIDTH):
            key[at(p * WIDTH + r)] = lightest_first(np.float32(0), p)
            held[at(p * WIDTH + r)] = 0
    for i in range(num_items):
        _smallest_keys(key, num_keys, lanes.best)
        for r in range(num_rows):
            lightest = lanes.best[at(r)]
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


@kernel
def refine_rows(
    num_rows: Int,
    weight: Floats,
    num_packs: Int,
    refine_steps: Int,
    pack: Ints,
    rank: Ints,
    members: Ints,
    lanes: Lanes,
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
def _pad(num_keys: Int, key: Ints) -> Int:
    """Fill up with keys that never win, to a multiple of four, which is returned."""
    padded = (num_keys + 3) // 4 * 4
    for i in range(num_keys * WIDTH, padded * WIDTH):
        key[at(i)] = NEVER
    return padded


@kernel
def _smallest_keys(key: Ints, num_keys: Int, best: Ints) -> None:
    """Smallest key of each row. Four at a time, as every loop over the rows has its price."""
    for r in range(WIDTH):
        best[at(r)] = NEVER
    for first in range(0, num_keys, 4):
        place = first * WIDTH
        for r in range(WIDTH):
            a = min(key[at(place + r)], key[at(place + WIDTH + r)])
            b = min(key[at(place + 2 * WIDTH + r)], key[at(place + 3 * WIDTH + r)])
            best[at(r)] = min(best[at(r)], min(a, b))


@kernel
def _exchange(key: Ints, i: Int, j: Int) -> None:
    """Put two keys of each row into ascending order."""
    for r in range(WIDTH):
        a = key[at(i * WIDTH + r)]
        b = key[at(j * WIDTH + r)]
        key[at(i * WIDTH + r)] = min(a, b)
        key[at(j * WIDTH + r)] = max(a, b)


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
def _best_swaps(capacity: Int, lanes: Lanes) -> None:
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
