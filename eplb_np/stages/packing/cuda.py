"""Balanced packing by the threads of a block: LPT into packs of equal size.

Twin of `cpu.py`, which packs row by row, and of `simd.py`. The refinement has a folder of its own.
Letters: X rows of n items each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._cuda.jit import device, sync
from eplb_np._cuda.memory import Memory
from eplb_np._cuda.team import Team, copy_row, power_of_two, smaller
from eplb_np._numba.indexing import at
from eplb_np._numba.types import Floats, Int, Ints
from eplb_np.stages.cuda_scratch import Scratch, carve
from eplb_np.stages.decisions import (
    NEVER,
    heaviest_first,
    heaviest_load,
    key_index,
    key_load,
    lightest_first,
)
from eplb_np.stages.priority_queue.cuda import end_queue, replace_two
from eplb_np.stages.refinement.cuda import refine_packs
from eplb_np.stages.sorting.cuda import sort_keys


class PackingSizes(NamedTuple):
    """What the packing kernel is told besides the loads; ``room`` as in `PlanSizes`."""

    num_packs: Int
    refine_steps: Int
    room: Int


@device
def pack_block(
    row: Int,
    team: Team,
    weight: Floats,
    sizes: PackingSizes,
    pack_index: Ints,
    rank_in_pack: Ints,
    memory: Memory,
) -> None:
    """Pack one row's items in a block's memory."""
    num_items = weight.shape[1]
    s = carve(memory, 0, 0, 0, num_items, sizes.room, team.size)
    copy_row(weight[row], s.item_load, team)
    pack_items(num_items, sizes.num_packs, sizes.refine_steps, s, team)
    write_packs(row, num_items // sizes.num_packs, pack_index, rank_in_pack, s, team)


@device
def write_packs(
    row: Int, capacity: Int, pack_index: Ints, rank_in_pack: Ints, s: Scratch, team: Team
) -> None:
    """Write the pack and rank of each item of a row: ``pack_index``, ``rank_in_pack`` [X, n]."""
    place = team.thread
    while place < s.members.shape[0]:
        item = at(s.members[place])
        pack_index[row, item] = place // capacity
        rank_in_pack[row, item] = place % capacity
        place += team.size


@device
def pack_items(num_items: Int, num_packs: Int, refine_steps: Int, s: Scratch, team: Team) -> None:
    """Pack the items of ``s.item_load``; out: ``s.members``, the item in each place of each pack.

    The places of a pack lie side by side, and an item's rank is its place in its pack.
    """
    capacity = num_items // num_packs
    sync()  # the loads are there
    if capacity == 1:
        i = team.thread
        while i < num_items:
            s.members[i] = i
            i += team.size
        sync()
        return
    i = team.thread
    while i < num_items:
        s.spare[i] = heaviest_first(s.item_load[i], np.int64(i))
        i += team.size
    sort_keys(s.queues, np.int64(0), s.keys.shape[0], num_items, team)
    longest_processing_time(num_items, num_packs, capacity, s, team)
    refine_packs(num_packs, capacity, refine_steps, s, team)


@device
def longest_processing_time(
    num_items: Int, num_packs: Int, capacity: Int, s: Scratch, team: Team
) -> None:
    """Give the items of the sorted ``s.keys``, each to the lightest pack that is not full.

    The packs queue by load. A key's index is the pack and, in its last bits, a count of items
    that becomes 0 once the pack is full. So lower packs still go first, and the key holds the
    whole state of a pack. Uses ``s.order``. Twin of the function of this name in `cpu.py` and of
    `pack_batch` in `simd.py`.
    """
    shift = np.int64(0)
    while (np.int64(1) << shift) < capacity:
        shift += 1
    mask = (np.int64(1) << shift) - 1
    none = mask + 1 - capacity  # the count of an empty pack
    queue = s.spare
    now: Int = np.int64(0)
    after: Int = power_of_two(num_packs) + 2
    # If the first items all weigh something, they go to one empty pack after the other.
    first: Int = num_packs if heaviest_load(s.keys[at(num_packs - 1)]) > 0 else np.int64(0)
    p = team.thread
    while p < num_packs:
        empty = (np.int64(p) << shift) + none
        queue[at(after + p)] = lightest_first(np.float32(0), empty)
        if first > 0:
            queue[at(after + p)] = lightest_first(heaviest_load(s.keys[p]), empty + 1)
            s.order[p] = empty
        p += team.size
    sort_keys(queue, now, after, num_packs, team)
    if team.thread == 0:
        # The last step may take one item too many; nothing reads the queue afterwards.
        s.keys[at(num_items)] = heaviest_first(np.float32(0), np.int64(0))
    end_queue(queue, now, after, num_packs, team)

    own = queue[at(smaller(team.thread, num_packs))]
    i = first
    while i < num_items:
        if team.thread < num_packs:
            lightest = queue[at(now)]
            key = with_item(lightest, s.keys[at(i)], mask)
            following = smaller(queue[at(now + 1)], key)
            then = with_item(following, s.keys[at(i + 1)], mask)
            if team.thread == 0:
                s.order[at(i)] = key_index(lightest)
                if i + 1 < num_items:
                    s.order[at(i + 1)] = key_index(following)
            own = replace_two(queue, now, after, num_packs, own, key, then, team)
        sync()
        now, after = after, now
        i += 2

    i = team.thread
    while i < num_items:
        index = np.int64(s.order[i])
        rank = (index & mask) - none
        s.members[at((index >> shift) * capacity + rank)] = key_index(s.keys[i])
        i += team.size
    sync()


@device
def with_item(pack: Int, item: Int, mask: Int) -> Int:
    """Key of a pack with one more item."""
    index = key_index(pack) + 1
    key = lightest_first(key_load(pack) + heaviest_load(item), index)
    if index & mask == 0:
        key = NEVER
    return key
