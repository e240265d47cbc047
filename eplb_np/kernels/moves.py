"""The moves from one plan to another, in an order that never drops an expert's last copy.

Letters: L layers, E logical experts, P slots, D GPUs, M moves.
"""

from __future__ import annotations

from eplb_np._jit import entry, kernel
from eplb_np._types import Bools, Int, Ints
from eplb_np.kernels.grid import EMPTY

NOWHERE = EMPTY
"""Source of an expert that no active GPU holds."""


@entry
def list_moves(
    old: Ints,
    new: Ints,
    first_slot: Ints,
    size: Ints,
    gpus_per_node: Int,
    held: Ints,
    copies: Ints,
    pending: Bools,
    moves: Ints,
) -> Int:
    """List what slots must fetch to hold ``new`` [L, P] in place of ``old``.

    ``first_slot`` [D + 1], ``size`` [D] as `refine_layers`: what GPUs that are gone held is lost.
    Out: ``moves`` [L P, 5] with layer, expert, slot, source slot and step of each; returns M.
    Scratch: ``held`` [P], ``copies`` [E], ``pending`` [P]. O(L P + M P).

    A fetch overwrites what its slot holds. It is made as soon as that has a copy elsewhere. When
    there is no such fetch left, each that remains overwrites a last copy, which is fetched by
    another that remains: following these leads round a circle, whose fetches make up one step.
    """
    num_moves: Int = 0
    for layer in range(old.shape[0]):
        for e in range(copies.shape[0]):
            copies[e] = 0
        for g in range(size.shape[0]):
            for slot in range(first_slot[g], first_slot[g + 1]):
                there = slot < first_slot[g] + size[g]
                held[slot] = old[layer, slot] if there else EMPTY
                if held[slot] != EMPTY:
                    copies[held[slot]] += 1
                pending[slot] = new[layer, slot] != EMPTY and new[layer, slot] != held[slot]
        step = 0
        progress = True
        while progress:
            progress = False
            for slot in range(held.shape[0]):
                if pending[slot] and (held[slot] == EMPTY or copies[held[slot]] > 1):
                    e: Int = new[layer, slot]
                    source = _nearest_holder(held, e, slot, first_slot, gpus_per_node)
                    _note(moves, num_moves, layer, e, slot, source, step)
                    num_moves += 1
                    step += 1
                    _overwrite(held, copies, pending, slot, e)
                    progress = True
            if not progress:
                start = _on_a_circle(held, pending, new[layer])
                if start >= 0:
                    num_moves = _go_round(
                        held, copies, pending, new[layer], moves, num_moves, layer, start, step
                    )
                    step += 1
                    progress = True
    return num_moves


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
def _overwrite(held: Ints, copies: Ints, pending: Bools, slot: Int, e: Int) -> None:
    """Put expert ``e`` into a slot."""
    if held[slot] != EMPTY:
        copies[held[slot]] -= 1
    held[slot] = e
    copies[e] += 1
    pending[slot] = False


@kernel
def _nearest_holder(held: Ints, e: Int, slot: Int, first_slot: Ints, gpus_per_node: Int) -> Int:
    """Slot that holds an expert: on the same GPU, the same node, or any, the first of equals."""
    num_gpus = first_slot.shape[0] - 1
    gpu = 0
    while first_slot[gpu + 1] <= slot:
        gpu += 1
    first_gpu = gpu // gpus_per_node * gpus_per_node
    found = _first_holder(held, e, first_slot[gpu], first_slot[gpu + 1])
    if found < 0:
        last_gpu = first_gpu + gpus_per_node
        found = _first_holder(held, e, first_slot[first_gpu], first_slot[last_gpu])
    if found < 0:
        found = _first_holder(held, e, first_slot[0], first_slot[num_gpus])
    return found


@kernel
def _first_holder(held: Ints, e: Int, start: Int, stop: Int) -> Int:
    for slot in range(start, stop):
        if held[slot] == e:
            return slot
    return NOWHERE


@kernel
def _fetcher(pending: Bools, new: Ints, e: Int) -> Int:
    """Slot that is still to fetch an expert."""
    for slot in range(new.shape[0]):
        if pending[slot] and new[slot] == e:
            return slot
    return -1


@kernel
def _on_a_circle(held: Ints, pending: Bools, new: Ints) -> Int:
    """Find a slot on a circle of fetches that overwrite what the next one needs; -1 if none."""
    slot: Int = -1
    for i in range(new.shape[0]):
        if pending[i]:
            slot = i
            break
    if slot < 0:
        return -1
    for _ in range(new.shape[0]):  # whatever path leads to the circle is behind by then
        slot = _fetcher(pending, new, held[slot])
    return slot


@kernel
def _go_round(
    held: Ints,
    copies: Ints,
    pending: Bools,
    new: Ints,
    moves: Ints,
    num_moves: Int,
    layer: Int,
    start: Int,
    step: Int,
) -> Int:
    """Make the fetches of one circle, all in one step; returns the number of moves."""
    source = start
    while True:
        slot = _fetcher(pending, new, held[source])
        _note(moves, num_moves, layer, held[source], slot, source, step)
        num_moves += 1
        source = slot
        if slot == start:
            break
    for i in range(num_moves - 1, -1, -1):
        if moves[i, 0] != layer or moves[i, 4] != step:
            break
        _overwrite(held, copies, pending, moves[i, 2], moves[i, 1])
    return num_moves
