"""The split and `assign` by the threads of a block.

`cuda_steps` and `cuda_rounds` have the steps of the split; here the threads wait between them.
Twin of `cuda_on_cpu`, which takes them one after the other.

Letters of `assign`: n ids of E experts, in tiles, one or a few for each of C blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._cuda.jit import any_of_block, device, sync
from eplb_np._cuda.team import Team
from eplb_np._numba.indexing import at
from eplb_np._numba.types import Int, Ints
from eplb_np.dispatch.cuda_graph import RoundGraph, RoundSizes
from eplb_np.dispatch.cuda_rounds import (
    give_up,
    list_unreached,
    needed_step,
    needed_time,
    pass_on,
    reach_experts,
    reach_gpus,
    start_round,
)
from eplb_np.dispatch.cuda_steps import (
    RoundScratch,
    add_outside,
    add_up_step,
    bound_times,
    empty_forest,
    fill_level,
    largest_step,
    read_counts,
    set_caps,
    write_slots,
)
from eplb_np.maps.maps import EMPTY


@device
def split_block(
    counts: Ints,
    sizes: RoundSizes,
    graph: RoundGraph,
    s: RoundScratch,
    most_rounds: Int,
    slot_load: Ints,
    team: Team,
) -> None:
    """Split one layer: ``counts`` [E]; out: ``slot_load`` [P]."""
    start_flows(counts, sizes, graph, s, team)
    rounds = np.int64(0)
    above = any_of_block(start_round(graph, s, team.thread, team.size))
    while above and rounds < most_rounds:
        make_round(sizes, graph, s, team)
        above = any_of_block(start_round(graph, s, team.thread, team.size))
        rounds += 1
    write_slots(graph, s, slot_load, team.thread, team.size)


@device
def start_flows(
    counts: Ints, sizes: RoundSizes, graph: RoundGraph, s: RoundScratch, team: Team
) -> None:
    """Set a lower bound, and fill the forest. Twin of this name in `cuda_on_cpu`."""
    thread, threads = team
    room = sizes.room
    read_counts(counts, graph, s, thread, threads)
    sync()
    add_outside(graph, s, thread, threads)
    now: Int = np.int64(0)
    after: Int = room
    reach: Int = np.int64(1)
    while reach < sizes.num_gpus:
        sync()
        add_up_step(now, after, reach, s, thread, threads)
        now, after = after, now
        reach *= 2
    sync()
    bound_times(now, sizes, graph, s, thread, threads)
    half: Int = room
    while half > 0:
        sync()
        largest_step(2 * room, half, s, thread, threads)
        half >>= 1
    sync()
    set_caps(s.time[at(2 * room)], sizes, graph, s, thread, threads)
    fill_forest(graph, s, team)


@device
def fill_forest(graph: RoundGraph, s: RoundScratch, team: Team) -> None:
    """Fill the forest up to the caps. Twin of the function of this name in `cuda_on_cpu`."""
    level = np.int64(0)
    while level < graph.size[2]:
        sync()
        fill_level(level, graph, s, team.thread, team.size)
        level += 1
    sync()


@device
def make_round(sizes: RoundSizes, graph: RoundGraph, s: RoundScratch, team: Team) -> None:
    """Search, and push or raise the caps. Twin of the function of this name in `cuda_on_cpu`."""
    thread, threads = team
    level = np.int64(0)
    reached = True
    missing = any_of_block(reach_experts(level, graph, s, thread, threads))
    while missing and reached:
        reached = any_of_block(reach_gpus(level, graph, s, thread, threads))
        if reached:
            level += 1
            missing = any_of_block(reach_experts(level, graph, s, thread, threads))
    if missing:
        list_unreached(sizes, graph, s, thread, threads)
        half = sizes.room >> 1
        while half > 0:
            sync()
            needed_step(half, sizes, s, thread, threads)
            half >>= 1
        sync()
        set_caps(needed_time(sizes, s), sizes, graph, s, thread, threads)
        empty_forest(graph, s, thread, threads)
        fill_forest(graph, s, team)
        level = np.int64(0)
    while level > 0:
        give_up(level, graph, s, thread, threads)
        sync()
        level -= 1
        pass_on(level, graph, s, thread, threads)
        sync()


class Tiles(NamedTuple):
    """How ids are shared out; a tile is as many ids as a block has threads."""

    per_block: Int
    num_experts: Int


class SlotTable(NamedTuple):
    """What tells the slot of an id."""

    quotas: Ints  # [P]
    log2phy: Ints  # [E, X]


@device
def number_ids(
    block: Int, ids: Ints, tiles: Tiles, turn: Ints, chosen: Ints, memory: Ints, team: Team
) -> None:
    """Give numbers, from 0, to the ids of each expert in a block's tiles.

    Out: ``turn`` [n], and ``chosen`` [C, E], ids of each expert in each block. Scratch: ``memory``
    [threads + E] int32, the ids of a tile and, for each expert, those numbered.
    """
    thread, threads = team
    num_experts = tiles.num_experts
    e = thread
    while e < num_experts:
        memory[at(threads + e)] = 0
        e += threads
    first = block * tiles.per_block * threads
    stop = first + tiles.per_block * threads
    while first < stop and first < ids.shape[0]:
        own = expert_or_empty(first + thread, ids, num_experts)
        memory[at(thread)] = own
        sync()
        if own >= 0:
            before, after = count_own(own, memory, team)
            number = memory[at(threads + own)] + before
            turn[at(first + thread)] = number
        sync()
        if own >= 0 and after == 0:
            memory[at(threads + own)] = number + 1
        sync()
        first += threads
    e = thread
    while e < num_experts:
        chosen[at(block), at(e)] = memory[at(threads + e)]
        e += threads


@device
def count_own(own: Int, tile: Ints, team: Team) -> tuple[Int, Int]:
    """Count a thread's id among those before and behind it in the tile, four reads at once."""
    before: Int = np.int64(0)
    after: Int = np.int64(-1)  # itself
    i = np.int64(0)
    while i < team.size:
        a = tile[at(i)] == own
        b = tile[at(i + 1)] == own
        c = tile[at(i + 2)] == own
        d = tile[at(i + 3)] == own
        before = before + (a and i < team.thread) + (b and i + 1 < team.thread)
        before = before + (c and i + 2 < team.thread) + (d and i + 3 < team.thread)
        after = after + a + b + c + d
        i += 4
    return before, after - before


@device
def expert_or_empty(i: Int, ids: Ints, num_experts: Int) -> Int:
    """Read an id; EMPTY if it is no expert or there is none."""
    e: Int = np.int64(EMPTY)
    if i < ids.shape[0]:
        given = np.int64(ids[at(i)])
        if given >= 0 and given < num_experts:
            e = given
    return e


@device
def count_earlier(block: Int, tiles: Tiles, chosen: Ints, memory: Ints, team: Team) -> None:
    """Sum the ids of each expert in the blocks before, ``chosen`` [C, E], to ``memory`` [E]."""
    num_experts, threads = tiles.num_experts, team.size
    e = team.thread
    while e < num_experts:
        before: Int = np.int64(0)
        other = np.int64(0)
        while other < block:
            before += chosen[at(other), at(e)]
            other += 1
        memory[at(e)] = before
        e += threads
    sync()


@device
def take_slots(
    block: Int,
    ids: Ints,
    tiles: Tiles,
    turn: Ints,
    table: SlotTable,
    slots: Ints,
    memory: Ints,
    team: Team,
) -> None:
    """Find the slot of each id of a block's tiles, numbered by ``turn`` [n] and ``memory`` [E]."""
    thread, threads = team
    per_block, num_experts = tiles
    i = block * per_block * threads + thread
    stop = (block + 1) * per_block * threads
    while i < stop and i < ids.shape[0]:
        slot: Int = np.int64(EMPTY)
        e = expert_or_empty(i, ids, num_experts)
        if e >= 0:
            slot = slot_of_turn(e, turn[at(i)] + memory[at(e)], table)
        slots[at(i)] = slot
        i += threads


@device
def slot_of_turn(e: Int, turn: Int, table: SlotTable) -> Int:
    """Slot in whose quota the expert's id number ``turn`` falls; beyond them, its last slot."""
    quotas, log2phy = table
    slot: Int = np.int64(EMPTY)
    left: Int = np.int64(turn)
    column = np.int64(0)
    while column < log2phy.shape[1] and left >= 0:
        following = np.int64(log2phy[at(e), at(column)])
        if following < 0 or following >= quotas.shape[0]:
            left = np.int64(-1)
        else:
            slot = following
            quota = np.int64(quotas[at(slot)])
            left -= quota if quota > 0 else np.int64(0)
            column += 1
    return slot
