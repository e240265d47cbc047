"""Balanced packing, row by row: LPT into packs of equal size, then a bounded refinement.

The twins of LPT are `simd.py`, for many short rows at once, and `cuda.py`, by the threads of a
block. The refinement has a folder of its own. Letters: X rows of n items each, m packs of
cap = n / m items.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.arrays import floats, ints
from eplb_np._numba.indexing import at
from eplb_np._numba.jit import allocator, entry, kernel
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.decisions import NEVER, key_index, key_load, lightest_first
from eplb_np.stages.priority_queue.cpu import build_tree, num_leaves, replay_leaf
from eplb_np.stages.refinement.cpu import Packing, refine_packs
from eplb_np.stages.sorting.cpu import HISTOGRAM_SIZE, sort_descending


class PackScratch(NamedTuple):
    """Working memory for packing up to n items into up to m packs."""

    order: Ints  # [n] int64, items by descending weight
    keys: Ints  # [n] int64
    spare: Ints  # [n] int64
    histogram: Ints  # [HISTOGRAM_SIZE] int64
    load: Floats  # [m] float32, load of each pack
    size: Ints  # [m] int64, items in each pack
    tree: Ints  # [2 * leaves(m)] int64, winner tree of the packs


@allocator
def make_pack_scratch(num_items: Int, num_packs: Int) -> PackScratch:
    """Allocate a `PackScratch`, once per call and not per layer."""
    return PackScratch(
        ints(num_items),
        ints(num_items),
        ints(num_items),
        ints(HISTOGRAM_SIZE),
        floats(num_packs),
        ints(num_packs),
        ints(2 * num_leaves(num_packs)),
    )


@entry
def pack_layers(
    weight: Floats, num_packs: Int, refine_steps: Int, pack_index: Ints, rank_in_pack: Ints
) -> None:
    """Pack the items of every row into packs of equal size. Nothing is checked.

    Parameters
    ----------
    weight : ndarray, shape [X, n], float32
        Load of each item, in any unit.
    num_packs : int
        Number of packs; divides n.
    refine_steps : int
        Maximum number of swaps after the packing.
    pack_index : ndarray, shape [X, n], int64
        Out: pack of each item.
    rank_in_pack : ndarray, shape [X, n], int64
        Out: place of each item in its pack, from 0.

    Notes
    -----
    As `eplb_np.balanced_packing`, with its ties and its source. O(n log num_packs) for each row.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np.kernels import pack_layers
    >>> pack_index, rank_in_pack = np.empty((2, 1, 6), np.int64)
    >>> pack_layers(np.float32([[9, 7, 5, 4, 3, 2]]), 2, 2, pack_index, rank_in_pack)
    >>> pack_index.tolist()
    [[0, 1, 1, 0, 1, 0]]
    """
    num_layers, num_items = weight.shape
    scratch = make_pack_scratch(num_items, num_packs)
    for i in range(num_layers):
        row = weight[i]
        sort_descending(row, scratch.order, scratch.keys, scratch.spare, scratch.histogram)
        pack_sorted(row, num_packs, refine_steps, pack_index[i], rank_in_pack[i], scratch)


@kernel
def pack_sorted(
    weight: Floats, num_packs: Int, refine_steps: Int, pack: Ints, rank: Ints, scratch: PackScratch
) -> None:
    """Pack one row's items, whose order by descending weight is in ``scratch.order``.

    Out: ``pack`` [n], ``rank`` [n]. With one item per pack the order does not matter: item i goes
    to pack i.
    """
    num_items = weight.shape[0]
    if num_items == num_packs:
        for i in range(num_items):
            pack[i] = i
            rank[i] = 0
        return
    packing = Packing(pack, rank, scratch.keys)  # the sort no longer needs its keys
    longest_processing_time(weight, num_packs, packing, scratch)
    refine_packs(weight, num_packs, refine_steps, packing, scratch.load)


@kernel
def longest_processing_time(
    weight: Floats, num_packs: Int, packing: Packing, scratch: PackScratch
) -> None:
    """Give the items, in ``scratch.order``, each to the lightest pack that is not full.

    ``weight`` [n] float32; out: ``packing``; scratch: ``size`` and ``tree``. O(n log m). Twin of
    `pack_batch` in `simd.py` and of the function of this name in `cuda.py`.
    """
    order, size, tree = scratch.order, scratch.size, scratch.tree
    pack, rank, members = packing
    num_items = weight.shape[0]
    capacity = num_items // num_packs
    leaves = num_leaves(num_packs)
    # While items weigh something, the first m of them go to one empty pack after the other.
    started = 0
    while started < num_packs and weight[order[started]] > 0:
        item = order[started]
        pack[item] = started
        rank[item] = 0
        members[started * capacity] = item
        size[started] = 1
        tree[leaves + started] = lightest_first(weight[item], started)
        started += 1
    for p in range(started, num_packs):
        size[p] = 0
        tree[leaves + p] = lightest_first(np.float32(0), p)
    for p in range(num_packs, leaves):
        tree[leaves + p] = NEVER
    build_tree(tree, leaves)
    lightest = tree[1]
    for i in range(started, num_items):
        item = order[i]
        chosen = key_index(lightest)
        held = size[chosen]
        pack[at(item)] = chosen
        rank[at(item)] = held
        members[at(chosen * capacity + held)] = item
        size[chosen] = held + 1
        key = lightest_first(key_load(lightest) + weight[at(item)], chosen)
        if held + 1 == capacity:
            key = NEVER
        lightest = replay_leaf(tree, leaves, chosen, key)
