"""Refinement of a packing by the threads of a block.

Places hold items: ``s.members[pack * capacity + rank]``, with loads ``s.item_load``. Twin of
`cpu.py`, which refines row by row, and of `simd.py`.
"""

from __future__ import annotations

import numpy as np

from eplb_np._cuda.jit import device, sync
from eplb_np._cuda.team import Team, larger, smaller, smallest_of_block
from eplb_np._numba.indexing import at
from eplb_np._numba.types import Int
from eplb_np.stages.cuda_scratch import Scratch
from eplb_np.stages.decisions import (
    NEVER,
    heaviest_first,
    heaviest_load,
    key_index,
    key_load,
    lightest_first,
)
from eplb_np.stages.refinement.decisions import is_level, narrows, swap_residual


@device
def refine_packs(num_packs: Int, capacity: Int, steps: Int, s: Scratch, team: Team) -> None:
    """Swap two items, at most ``steps`` times, as long as a swap narrows the gap."""
    for _ in range(steps):
        heaviest, lightest = extreme_packs(num_packs, capacity, s, team)
        heavy = key_index(heaviest) * capacity
        light = key_index(lightest) * capacity
        delta = heaviest_load(heaviest) - key_load(lightest)
        if is_level(delta):
            return
        sort_light_pack(light, capacity, s, team)
        if team.thread == 0:
            # Written to memory, so that the compiler cannot fuse the product with a sum.
            s.half[0] = delta * np.float32(0.5)
        sync()
        item, other = best_swap(heavy, capacity, delta, s, team)
        if not narrows(delta, s.item_load[at(item)], s.item_load[at(other)]):
            return
        swap_items(heavy, light, capacity, item, other, s, team)


@device
def extreme_packs(num_packs: Int, capacity: Int, s: Scratch, team: Team) -> tuple[Int, Int]:
    """Keys of the heaviest and the lightest pack; a tie goes to the lower pack.

    A pack's load is summed in the order of its items' indices. Uses ``s.order``. Twin of
    `_extreme_packs` in `cpu.py`.
    """
    place = team.thread
    while place < num_packs * capacity:
        first = place // capacity * capacity
        item = s.members[place]
        position = first
        i = first
        while i < first + capacity:
            if s.members[at(i)] < item:
                position += 1
            i += 1
        s.order[at(position)] = item
        place += team.size
    sync()
    heaviest: Int = NEVER
    lightest: Int = NEVER
    p = team.thread
    while p < num_packs:
        load = np.float32(0)
        i = p * capacity
        while i < (p + 1) * capacity:
            load = load + s.item_load[at(s.order[at(i)])]
            i += 1
        heaviest = smaller(heaviest, heaviest_first(load, np.int64(p)))
        lightest = smaller(lightest, lightest_first(load, np.int64(p)))
        p += team.size
    return smallest_of_block(heaviest, lightest, num_packs, s.team_keys, team)


@device
def sort_light_pack(light: Int, capacity: Int, s: Scratch, team: Team) -> None:
    """Items of the light pack by ascending load, ties to the lower item: ``s.order[:capacity]``."""
    place = team.thread
    while place < capacity:
        item = s.members[at(light + place)]
        key = lightest_first(s.item_load[at(item)], np.int64(item))
        position: Int = np.int64(0)
        i = light
        while i < light + capacity:
            other = s.members[at(i)]
            if lightest_first(s.item_load[at(other)], np.int64(other)) < key:
                position += 1
            i += 1
        s.order[at(position)] = item
        place += team.size


@device
def best_swap(
    heavy: Int, capacity: Int, delta: np.float32, s: Scratch, team: Team
) -> tuple[Int, Int]:
    """Pair of items whose swap leaves the smallest residual between the two packs.

    A tie goes to the lower heavy item, and to the first of its two candidates. Twin of
    `_best_swap` in `cpu.py`.
    """
    best: Int = NEVER
    place = team.thread
    while place < capacity:
        item: Int = np.int64(s.members[at(heavy + place)])
        position = first_position(item, capacity, s)
        for candidate in range(2):
            other = s.order[at(larger(position - candidate, np.int64(0)))]
            residual = swap_residual(delta, s.item_load[at(item)], s.item_load[at(other)])
            best = smaller(best, lightest_first(residual, 2 * item + candidate))
        place += team.size
    best, _ = smallest_of_block(best, NEVER, capacity, s.team_keys, team)
    item = key_index(best) >> 1
    position = first_position(item, capacity, s) - (key_index(best) & 1)
    return item, np.int64(s.order[at(larger(position, np.int64(0)))])


@device
def first_position(item: Int, capacity: Int, s: Scratch) -> Int:
    """First position in the sorted light pack whose load is at least the item's less ``s.half``.

    The last position if no load is. Twin of `_first_position` in `cpu.py`.
    """
    target = s.item_load[at(item)] - s.half[0]
    position: Int = np.int64(0)
    stop = capacity - 1
    while position < stop:
        middle = (position + stop) // 2
        if s.item_load[at(s.order[at(middle)])] < target:
            position = middle + 1
        else:
            stop = middle
    return position


@device
def swap_items(
    heavy: Int, light: Int, capacity: Int, item: Int, other: Int, s: Scratch, team: Team
) -> None:
    """Let two items change packs, and renumber both packs. Uses ``s.order``."""
    place = team.thread
    while place < capacity:
        if s.members[at(heavy + place)] == item:
            s.team_keys[0] = place
        if s.members[at(light + place)] == other:
            s.team_keys[1] = place
        place += team.size
    sync()
    item_rank = s.team_keys[0]
    other_rank = s.team_keys[1]
    renumber(heavy, np.int64(0), capacity, item_rank, other, other_rank, s, team)
    renumber(light, capacity, capacity, other_rank, item, item_rank, s, team)
    sync()
    place = team.thread
    while place < capacity:
        s.members[at(heavy + place)] = s.order[at(place)]
        s.members[at(light + place)] = s.order[at(capacity + place)]
        place += team.size
    sync()


@device
def renumber(
    pack: Int,
    target: Int,
    capacity: Int,
    leaver_rank: Int,
    newcomer: Int,
    newcomer_rank: Int,
    s: Scratch,
    team: Team,
) -> None:
    """Write a pack's items by old rank, ties to the lower item, to ``s.order[target:]``.

    The thread of the leaver's place writes the newcomer; all others move by at most one place.
    Twin of `_exchange_rank` in `cpu.py`.
    """
    place = team.thread
    while place < capacity:
        if place == leaver_rank:
            item: Int = newcomer
            rank: Int = newcomer_rank
            if leaver_rank < newcomer_rank:
                rank -= 1
            if leaver_rank != newcomer_rank and s.members[at(pack + newcomer_rank)] < newcomer:
                rank += 1
        else:
            item = np.int64(s.members[at(pack + place)])
            rank = np.int64(place)
            if leaver_rank < place:
                rank -= 1
            if newcomer_rank < place or (newcomer_rank == place and newcomer < item):
                rank += 1
        s.order[at(target + rank)] = item
        place += team.size
