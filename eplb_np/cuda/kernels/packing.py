"""Balanced packing by the threads of a block: LPT into packs of equal size."""

from __future__ import annotations

import numpy as np

from eplb_np._types import Int
from eplb_np.cuda.kernels._jit import device, sync
from eplb_np.cuda.kernels.block import Team, power_of_two, replace_first, smaller, sort_keys
from eplb_np.cuda.kernels.refinement import refine_packs
from eplb_np.cuda.kernels.scratch import Scratch
from eplb_np.kernels.decisions import (
    NEVER,
    at,
    heaviest_first,
    heaviest_load,
    key_index,
    key_load,
    lightest_first,
)


@device
def pack_items(num_items: Int, num_packs: Int, refine_steps: Int, s: Scratch, team: Team) -> None:
    """Pack the items of ``s.item_load``: ``s.members`` is the item in each place of each pack.

    The places of a pack stand side by side, and an item's rank is its place in its pack.
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
    size = power_of_two(num_items)
    i = team.thread
    while i < size:
        s.keys[i] = NEVER
        if i < num_items:
            s.keys[i] = heaviest_first(s.item_load[i], np.int64(i))
        i += team.size
    sort_keys(s.keys, size, team)
    longest_processing_time(num_items, num_packs, capacity, s, team)
    refine_packs(num_packs, capacity, refine_steps, s, team)


@device
def longest_processing_time(
    num_items: Int, num_packs: Int, capacity: Int, s: Scratch, team: Team
) -> None:
    """Give the items of the sorted ``s.keys``, each to the lightest pack that is not full.

    The packs queue by load. A key's index is the pack and, in its last bits, how many items it
    holds, so that lower packs go first and the key says all there is to know of a pack.
    """
    shift = np.int64(0)
    while (np.int64(1) << shift) < capacity:
        shift += 1
    size = power_of_two(num_packs)
    queue = s.spare
    now: Int = np.int64(0)
    after: Int = size + 1
    # Where the first items all weigh something, they find one empty pack after the other.
    first: Int = num_packs if heaviest_load(s.keys[at(num_packs - 1)]) > 0 else np.int64(0)
    p = team.thread
    while p < size:
        empty = np.int64(p) << shift
        queue[p] = NEVER
        if p < num_packs:
            queue[p] = lightest_first(np.float32(0), empty)
            if first > 0:
                queue[p] = lightest_first(heaviest_load(s.keys[p]), empty + 1)
                s.members[at(p * capacity)] = key_index(s.keys[p])
        p += team.size
    sort_keys(queue, size, team)
    if team.thread == 0:
        queue[at(num_packs)] = NEVER
        queue[at(after + num_packs)] = NEVER
    sync()

    mask = (np.int64(1) << shift) - 1
    own = queue[at(smaller(team.thread, num_packs))]
    for i in range(first, num_items):
        if team.thread < num_packs:
            behind = queue[at(now + team.thread + 1)]
            item = s.keys[at(i)]
            lightest = queue[at(now)]
            index = key_index(lightest)
            held = index & mask
            if team.thread == 0:
                s.members[at((index >> shift) * capacity + held)] = key_index(item)
            key = lightest_first(key_load(lightest) + heaviest_load(item), index + 1)
            if held + 1 == capacity:
                key = NEVER
            own = replace_first(queue, now, after, num_packs, own, behind, key, team)
        sync()
        now, after = after, now
