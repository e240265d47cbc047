"""The moves from one plan to another, in an order that never overwrites an expert's last replica.

Letters: L layers, E logical experts, P slots, D GPUs, M moves.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Bools, Int, Ints
from eplb_np.maps.maps import EMPTY
from eplb_np.topology import Gpus


class MoveScratch(NamedTuple):
    """Working memory of a call; the fields are those of `Slots`."""

    held: Ints  # [P] int64
    copies: Ints  # [E] int64
    pending: Bools  # [P] bool


class Slots(NamedTuple):
    """What the slots of one layer hold while its moves are made."""

    held: Ints  # [P] int64, expert in each slot
    copies: Ints  # [E] int64, slots that hold each expert
    pending: Bools  # [P] bool, slots that have not fetched yet
    wanted: Ints  # [P] int64, expert that each slot is to hold in the end
    first_slot: Ints  # [D + 1] int64
    gpus_per_node: Int


@entry
def list_moves(
    old: Ints,
    new: Ints,
    gpus: Gpus,
    gpus_per_node: Int,
    scratch: MoveScratch,
    moves: Ints,
) -> Int:
    """List what slots must fetch to hold ``new`` [L, P] in place of ``old`` [L, P].

    What a GPU that is gone held is lost. Out: ``moves`` [L P, 5] with layer, expert, slot, source
    slot and step of each; returns M. O(L P + M P).

    A fetch overwrites what its slot holds. It is made as soon as no slot of the same GPU needs
    that any more and, if it is the last replica, no slot of any GPU. Once no such fetch is left,
    each that remains overwrites the source of another: following these leads round a circle, whose
    fetches make up one step.
    """
    first_slot, size, _ = gpus
    held, copies, pending = scratch
    num_moves: Int = 0
    for layer in range(old.shape[0]):
        copies[:] = 0
        for g in range(size.shape[0]):
            for slot in range(first_slot[g], first_slot[g + 1]):
                there = slot < first_slot[g] + size[g]
                held[slot] = old[layer, slot] if there else EMPTY
                if held[slot] != EMPTY:
                    copies[held[slot]] += 1
                pending[slot] = new[layer, slot] != EMPTY and new[layer, slot] != held[slot]
        state = Slots(held, copies, pending, new[layer], first_slot, gpus_per_node)
        step = 0
        waiting: Int = 0
        while waiting >= 0:
            waiting = -1
            progress = False
            for g in range(size.shape[0]):
                for slot in range(first_slot[g], first_slot[g + 1]):
                    if not pending[slot]:
                        continue
                    if _who_needs(state, slot, g) >= 0:
                        waiting = slot
                        continue
                    e: Int = new[layer, slot]
                    _note(moves, num_moves, layer, e, slot, _nearest_holder(state, e, g), step)
                    _overwrite(state, slot, e)
                    num_moves += 1
                    step += 1
                    progress = True
            if waiting >= 0 and not progress:
                num_moves = _go_round(state, moves, num_moves, layer, waiting, step)
                step += 1
    return num_moves


@kernel
def _who_needs(state: Slots, slot: Int, gpu: Int) -> Int:
    """Slot that has yet to fetch what ``slot`` of ``gpu`` holds, from there; -1 if none."""
    e = state.held[slot]
    if e == EMPTY:
        return -1
    start = state.first_slot[gpu]
    stop = state.first_slot[gpu + 1]
    alone = True
    for other in range(start, stop):
        alone = alone and (other == slot or state.held[other] != e)
    local = _first_fetcher(state, e, start, stop) if alone else -1
    if local >= 0 or state.copies[e] > 1:
        return local
    return _first_fetcher(state, e, 0, state.held.shape[0])


@kernel
def _first_fetcher(state: Slots, e: Int, start: Int, stop: Int) -> Int:
    for slot in range(start, stop):
        if state.pending[slot] and state.wanted[slot] == e:
            return slot
    return -1


@kernel
def _nearest_holder(state: Slots, e: Int, gpu: Int) -> Int:
    """Slot that holds an expert: the first on the GPU, else on its node, else on any."""
    ends = state.first_slot
    found = _first_holder(state, e, ends[gpu], ends[gpu + 1])
    if found < 0:
        first_gpu = gpu // state.gpus_per_node * state.gpus_per_node
        found = _first_holder(state, e, ends[first_gpu], ends[first_gpu + state.gpus_per_node])
    if found < 0:
        found = _first_holder(state, e, 0, state.held.shape[0])
    return found


@kernel
def _first_holder(state: Slots, e: Int, start: Int, stop: Int) -> Int:
    for slot in range(start, stop):
        if state.held[slot] == e:
            return slot
    return EMPTY


@kernel
def _note(
    moves: Ints, place: Int, layer: Int, expert: Int, slot: Int, source: Int, step: Int
) -> None:
    moves[place, 0] = layer
    moves[place, 1] = expert
    moves[place, 2] = slot
    moves[place, 3] = source
    moves[place, 4] = step


@kernel
def _overwrite(state: Slots, slot: Int, e: Int) -> None:
    """Put expert ``e`` into a slot."""
    if state.held[slot] != EMPTY:
        state.copies[state.held[slot]] -= 1
    state.held[slot] = e
    state.copies[e] += 1
    state.pending[slot] = False


@kernel
def _go_round(
    state: Slots, moves: Ints, num_moves: Int, layer: Int, waiting: Int, step: Int
) -> Int:
    """Make the fetches of the circle that ``waiting`` leads to, in one step; returns the moves."""
    start = _next_to_need(state, waiting)
    ahead = _next_to_need(state, start)
    while start != ahead:  # one goes twice as fast as the other, so they meet on the circle
        start = _next_to_need(state, start)
        ahead = _next_to_need(state, _next_to_need(state, ahead))
    first = num_moves
    source = start
    while num_moves == first or source != start:
        slot = _next_to_need(state, source)
        _note(moves, num_moves, layer, state.held[source], slot, source, step)
        num_moves += 1
        source = slot
    for i in range(first, num_moves):
        _overwrite(state, moves[i, 2], moves[i, 1])
    return num_moves


@kernel
def _next_to_need(state: Slots, slot: Int) -> Int:
    """`_who_needs`, with the slot's GPU looked up."""
    gpu: Int = 0
    while state.first_slot[gpu + 1] <= slot:
        gpu += 1
    return _who_needs(state, slot, gpu)
