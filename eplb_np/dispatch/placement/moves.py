"""Which move to try next.

Most are guided: take a sample that is far above its floor, and the set of GPUs that binds it. A
replica of an expert that is stuck in the set goes to a GPU outside, or a redundant slot outside is
given to such an expert. The rest are drawn from all.
"""

from __future__ import annotations

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.dispatch.placement.cuts import FLOORS, Cuts
from eplb_np.dispatch.placement.generator import below
from eplb_np.dispatch.placement.layer import (
    FIRST,
    GAINS,
    LOSES,
    REASSIGN,
    SECOND,
    Layer,
    may_reassign,
    may_swap,
)

GUIDED = 70
"""Per cent of the moves that are guided."""

SWAPS = 60
"""Per cent of the moves that are swaps."""

RIVALS = 3
"""Samples drawn, of which the one farthest above its floor guides."""

TRIES = 24
"""Slots looked at, at most, for the second one of a move."""

STRIDE = 61
"""Slots are looked at in steps of this, so that neighbours in a GPU do not follow each other."""


@kernel
def propose(layer: Layer, cuts: Cuts, excess: Doubles, state: Ints, move: Ints) -> bool:
    """Write a move that is allowed into ``move``; returns whether one was found.

    ``excess`` [S] is how far each sample is above its floor.
    """
    num_samples = excess.shape[0]
    worst = below(state, num_samples)
    for _ in range(RIVALS - 1):
        s = below(state, num_samples)
        if excess[s] > excess[worst]:
            worst = s
    k = cuts.binding[worst]
    guided = below(state, 100) < GUIDED and k >= cuts.number[FLOORS]
    first = _stuck_slot(layer, cuts, k, state) if guided else below(state, layer.gpu.shape[0])
    if first < 0:
        return False
    x = layer.expert[first]
    swap = below(state, 100) < SWAPS
    num_slots = layer.gpu.shape[0]
    slot = below(state, num_slots)
    for _ in range(TRIES):
        slot = (slot + STRIDE) % num_slots
        if guided and cuts.beyond[layer.gpu[slot], k] == 0:
            continue
        allowed = may_swap(layer, first, slot) if swap else may_reassign(layer, slot, x)
        if allowed:
            move[FIRST] = first if swap else REASSIGN
            move[SECOND] = slot
            move[GAINS] = x
            move[LOSES] = layer.expert[slot]
            return True
    return False


@kernel
def _stuck_slot(layer: Layer, cuts: Cuts, k: Int, state: Ints) -> Int:
    """Return a slot in a set whose expert has no replica outside, or -1."""
    num_slots = layer.gpu.shape[0]
    slot: Int = below(state, num_slots)
    for _ in range(num_slots):
        slot = (slot + STRIDE) % num_slots
        inside = cuts.beyond[layer.gpu[slot], k] == 0
        if inside and cuts.outside[layer.expert[slot], k] == 0:
            return slot
    return -1
