"""Refinement of a packing, row by row.

The twins are `simd.py`, for many short rows at once, and `cuda.py`, by the threads of a block.
Letters: n items, m packs of cap = n / m items.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.indexing import at
from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.decisions import NEVER, heaviest_first, key_index, lightest_first
from eplb_np.stages.refinement.decisions import is_level, narrows, swap_residual


class Packing(NamedTuple):
    """Where the items are. In SIMD batches, an axis of rows comes in front."""

    pack: Ints  # [n] int64, pack of each item
    rank: Ints  # [n] int64, its rank there
    members: Ints  # [m * cap] int64, items of each pack by descending weight, ties to the lower


@kernel
def refine_packs(
    weight: Floats, num_packs: Int, refine_steps: Int, packing: Packing, load: Floats
) -> None:
    """Swap items of the heaviest and the lightest pack, at most ``refine_steps`` times.

    In and out: ``packing``; scratch: ``load`` [m] float32. A step takes O(n + cap log cap).
    """
    pack, rank, members = packing
    num_items = weight.shape[0]
    capacity = num_items // num_packs
    for _ in range(refine_steps):
        for p in range(num_packs):
            load[p] = 0
        for i in range(num_items):
            load[at(pack[i])] += weight[i]
        heavy, light = _extreme_packs(load, num_packs)
        delta = load[heavy] - load[light]
        if is_level(delta):
            return
        heavy_items = members[heavy * capacity : (heavy + 1) * capacity]
        light_items = members[light * capacity : (light + 1) * capacity]
        best = _best_swap(weight, delta, heavy_items, light_items)
        if not swap_if_better(weight, delta, best, heavy_items, light_items, pack, rank):
            return


@kernel
def swap_if_better(
    weight: Floats,
    delta: np.float32,
    best: Int,
    heavy_items: Ints,
    light_items: Ints,
    pack: Ints,
    rank: Ints,
) -> bool:
    """Make the swap that ``best``, the key of `_best_swap`, names, if it narrows the gap.

    In and out: the items of both packs, and ``pack`` [n] and ``rank`` [n] of all items.
    """
    item: Int = key_index(best) >> 1
    candidate = key_index(best) & 1
    position = _first_position(weight, delta, item, light_items)
    other = _ascending_item(weight, light_items, max(position - candidate, 0))
    if not narrows(delta, weight[item], weight[other]):
        return False
    pack[item], pack[other] = pack[other], pack[item]
    item_rank = rank[item]
    other_rank = rank[other]
    new_item_rank = _exchange_rank(rank, light_items, other, item, item_rank)
    new_other_rank = _exchange_rank(rank, heavy_items, item, other, other_rank)
    rank[item] = new_item_rank
    rank[other] = new_other_rank
    _exchange_member(weight, light_items, other, item)
    _exchange_member(weight, heavy_items, item, other)
    return True


@kernel
def _extreme_packs(load: Floats, num_packs: Int) -> tuple[Int, Int]:
    """Heaviest and lightest pack; a tie goes to the lower pack.

    Twin of `_extreme_packs` in `simd.py` and of `extreme_packs` in `cuda.py`.
    """
    heaviest: Int = NEVER
    lightest: Int = NEVER
    for p in range(num_packs):
        heaviest = min(heaviest, heaviest_first(load[p], p))
        lightest = min(lightest, lightest_first(load[p], p))
    return key_index(heaviest), key_index(lightest)


@kernel
def _best_swap(weight: Floats, delta: np.float32, heavy_items: Ints, light_items: Ints) -> Int:
    """Pair of items whose swap leaves the smallest residual between the two packs, as a key.

    A tie goes to the lower heavy item, and to the first of its two candidates. Residual, item and
    candidate are one key, so that the choice takes no unpredictable branch. Twin of `_best_swaps`
    in `simd.py` and of `best_swap` in `cuda.py`.
    """
    best: Int = NEVER
    for item in heavy_items:
        position = _first_position(weight, delta, item, light_items)
        for candidate in range(2):
            other = light_items[at(light_items.shape[0] - 1 - max(position - candidate, 0))]
            residual = swap_residual(delta, weight[at(item)], weight[at(other)])
            best = min(best, lightest_first(residual, 2 * item + candidate))
    return best


@kernel
def _first_position(weight: Floats, delta: np.float32, item: Int, light_items: Ints) -> Int:
    """First ascending position whose weight is at least the item's less half of ``delta``.

    The last position if no weight is. A binary search whose steps depend on the number of items
    alone. Twin of `first_position` in `cuda.py`.
    """
    last = light_items.shape[0] - 1
    target = weight[at(item)] - delta * np.float32(0.5)
    position: Int = 0
    left = last + 1
    while left > 1:
        half = left >> 1
        # light_items are in descending order: ascending position i is at last - i.
        below = weight[at(light_items[at(last + 1 - position - half)])] < target
        position += half if below else 0
        left -= half
    if weight[at(light_items[at(last - position)])] < target:
        position = min(position + 1, last)
    return position


@kernel
def _ascending_item(weight: Floats, members: Ints, position: Int) -> Int:
    """Item at a position of the order by ascending weight, ties to the lower index.

    ``members`` are ordered by descending weight, with ties to the lower index too. So in the
    reversed order each run of equal weights keeps its inner order.
    """
    place = members.shape[0] - 1 - position
    first = place
    while first > 0 and weight[members[first - 1]] == weight[members[place]]:
        first -= 1
    last = place
    while last < members.shape[0] - 1 and weight[members[last + 1]] == weight[members[place]]:
        last += 1
    item: Int = members[first + last - place]
    return item


@kernel
def _exchange_rank(
    rank: Ints, members: Ints, leaver: Int, newcomer: Int, newcomer_rank: Int
) -> Int:
    """Close the leaver's rank in its pack, and open one for the newcomer; returns that one.

    Items keep the order of their old ranks. If the newcomer's old rank is taken, the lower item
    goes first. The leaver's own rank is left undefined. Twin of `renumber` in `cuda.py`.
    """
    leaver_rank = rank[leaver]
    new_rank = 0
    for item in members:
        old = rank[at(item)]
        tie = 1 if newcomer < item else 0
        comes_after = 1 if 2 * newcomer_rank < 2 * old + tie else 0
        rank[at(item)] = old - (1 if leaver_rank < old else 0) + comes_after
        new_rank += 0 if item == leaver else 1 - comes_after
    return new_rank


@kernel
def _exchange_member(weight: Floats, members: Ints, leaver: Int, newcomer: Int) -> None:
    """Replace an item of a pack, and keep the items ordered by descending weight, then index."""
    key = heaviest_first(weight[newcomer], newcomer)
    i = 0
    while members[i] != leaver:
        i += 1
    while i > 0 and heaviest_first(weight[members[i - 1]], members[i - 1]) > key:
        members[i] = members[i - 1]
        i -= 1
    last = members.shape[0] - 1
    while i < last and heaviest_first(weight[members[i + 1]], members[i + 1]) < key:
        members[i] = members[i + 1]
        i += 1
    members[i] = newcomer
