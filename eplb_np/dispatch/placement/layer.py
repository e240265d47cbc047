"""The replicas of a layer while they are moved, and the load that an even split gives each GPU.

Slots are numbered without the empty ones. A *move* is an int64 array of `MOVE_SIZE` entries:

* a swap of what slots ``FIRST`` and ``SECOND`` hold (``FIRST`` >= 0), or
* the redundant slot ``SECOND`` given to expert ``GAINS`` (``FIRST`` is `REASSIGN`).

In both cases ``GAINS`` is the expert that slot ``SECOND`` gets, and ``LOSES`` the one it had.

Letters: E logical experts, P slots that are not empty, D GPUs, X replicas that an expert may have.
"""

from __future__ import annotations

from typing import NamedTuple

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Doubles, Int, Ints

FIRST, SECOND, GAINS, LOSES = 0, 1, 2, 3
MOVE_SIZE = 4
REASSIGN = -1

MOST, NOW = 0, 1


class Layer(NamedTuple):
    """What each slot holds; `fill_layer` sets what follows from the first six."""

    gpu: Ints  # [P], GPU of each slot; slots of a GPU follow each other
    first: Ints  # [D + 1], first slot of each GPU, then P
    node: Ints  # [D], lowest GPU of its node; all replicas but bridges stay on their node
    slowness: Doubles  # [D]
    home: Ints  # [E], lowest GPU of the node of its group; counts only if there may be bridges
    bridges: Ints  # [2], slots that hold an expert of another node's group: most, and now
    expert: Ints  # [P], expert in each slot
    logcnt: Ints  # [E], replicas of each expert
    replica: Ints  # [E, X], their slots, in no particular order
    weight: Doubles  # [E], forecast load
    even: Doubles  # [D], load of each GPU if every expert is split evenly
    longest: Doubles  # [1], time that no GPU may exceed with an even split


@kernel
def fill_layer(layer: Layer) -> None:
    """Set what follows from ``layer.expert`` and ``layer.weight``."""
    expert, logcnt, replica, gpu = layer.expert, layer.logcnt, layer.replica, layer.gpu
    for e in range(logcnt.shape[0]):
        logcnt[e] = 0
    for slot in range(expert.shape[0]):
        e = expert[slot]
        replica[e, logcnt[e]] = slot
        logcnt[e] += 1
    for g in range(layer.even.shape[0]):
        layer.even[g] = 0.0
    for slot in range(expert.shape[0]):
        layer.even[gpu[slot]] += layer.weight[expert[slot]] / logcnt[expert[slot]]
    layer.bridges[NOW] = 0
    for slot in range(expert.shape[0]):
        layer.bridges[NOW] += _is_bridge(layer, slot)


@kernel
def longest_even_time(layer: Layer) -> float:
    """Time of the slowest GPU with an even split."""
    longest = 0.0
    for g in range(layer.even.shape[0]):
        longest = max(longest, layer.even[g] * layer.slowness[g])
    return longest


@kernel
def holds(layer: Layer, g: Int, e: Int) -> bool:
    """Whether a GPU holds a replica of an expert."""
    for j in range(layer.logcnt[e]):  # noqa: SIM110 - Numba has no generators
        if layer.gpu[layer.replica[e, j]] == g:
            return True
    return False


@kernel
def may_swap(layer: Layer, a: Int, b: Int) -> bool:
    """Whether slots ``a`` and ``b`` may be swapped.

    That is on one node, makes no duplicates, and keeps the even split within its limit.
    """
    g, h = layer.gpu[a], layer.gpu[b]
    x, y = layer.expert[a], layer.expert[b]
    if g == h or x == y or layer.node[g] != layer.node[h]:
        return False
    change = layer.weight[x] / layer.logcnt[x] - layer.weight[y] / layer.logcnt[y]
    longest = layer.longest[0]
    if (layer.even[g] - change) * layer.slowness[g] > longest:
        return False
    if (layer.even[h] + change) * layer.slowness[h] > longest:
        return False
    return not holds(layer, h, x) and not holds(layer, g, y)


@kernel
def may_reassign(layer: Layer, slot: Int, x: Int) -> bool:
    """Whether a slot may be given to expert ``x``, on its node or as a bridge."""
    h = layer.gpu[slot]
    z = layer.expert[slot]
    count = layer.logcnt[z]
    if z == x or count < 2 or layer.logcnt[x] == layer.replica.shape[1]:
        return False
    if holds(layer, h, x):
        return False
    if layer.bridges[MOST] == 0:
        if layer.node[layer.gpu[layer.replica[x, 0]]] != layer.node[h]:
            return False
    elif not _may_bridge(layer, slot, x):
        return False
    more = layer.weight[z] / (count - 1) - layer.weight[z] / count
    here = layer.weight[x] / (layer.logcnt[x] + 1) - layer.weight[z] / (count - 1)
    longest = layer.longest[0]
    for j in range(count):
        g = layer.gpu[layer.replica[z, j]]
        change = more + here if g == h else more
        if (layer.even[g] + change) * layer.slowness[g] > longest:
            return False
    return True


@kernel
def _may_bridge(layer: Layer, slot: Int, x: Int) -> bool:
    """Whether a slot may change to expert ``x`` as far as bridges and homes are concerned."""
    node = layer.node[layer.gpu[slot]]
    z = layer.expert[slot]
    more = int(layer.home[x] != node) - int(layer.home[z] != node)
    if more > 0 and layer.bridges[NOW] + more > layer.bridges[MOST]:
        return False
    if layer.home[z] != node:
        return True
    at_home = 0
    for j in range(layer.logcnt[z]):
        at_home += int(layer.node[layer.gpu[layer.replica[z, j]]] == node)
    return at_home > 1


@kernel
def _is_bridge(layer: Layer, slot: Int) -> Int:
    """1 if a slot holds an expert of another node's group, else 0."""
    away: Int = int(layer.home[layer.expert[slot]] != layer.node[layer.gpu[slot]])
    return away


@kernel
def make_move(layer: Layer, move: Ints) -> None:
    """Swap or reassign."""
    a, b = move[FIRST], move[SECOND]
    if a == REASSIGN:
        _reassign(layer, b, move[GAINS], move[LOSES])
    else:
        swap_slots(layer, a, b)


@kernel
def undo_move(layer: Layer, move: Ints) -> None:
    """Go back to what was before `make_move`."""
    a, b = move[FIRST], move[SECOND]
    if a == REASSIGN:
        _reassign(layer, b, move[LOSES], move[GAINS])
    else:
        swap_slots(layer, a, b)


@kernel
def swap_slots(layer: Layer, a: Int, b: Int) -> None:
    """Swap what two slots hold."""
    x, y = layer.expert[a], layer.expert[b]
    change = layer.weight[x] / layer.logcnt[x] - layer.weight[y] / layer.logcnt[y]
    layer.even[layer.gpu[a]] -= change
    layer.even[layer.gpu[b]] += change
    layer.expert[a], layer.expert[b] = y, x
    i = _place(layer, x, a)
    j = _place(layer, y, b)
    layer.replica[x, i] = b
    layer.replica[y, j] = a


@kernel
def _reassign(layer: Layer, slot: Int, x: Int, z: Int) -> None:
    """Give a slot of ``z`` to ``x``."""
    _add_even(layer, x, -1.0)
    _add_even(layer, z, -1.0)
    layer.logcnt[z] -= 1
    layer.replica[z, _place(layer, z, slot)] = layer.replica[z, layer.logcnt[z]]
    layer.replica[x, layer.logcnt[x]] = slot
    layer.logcnt[x] += 1
    layer.bridges[NOW] -= _is_bridge(layer, slot)
    layer.expert[slot] = x
    layer.bridges[NOW] += _is_bridge(layer, slot)
    _add_even(layer, x, 1.0)
    _add_even(layer, z, 1.0)


@kernel
def _add_even(layer: Layer, e: Int, sign: float) -> None:
    load = sign * layer.weight[e] / layer.logcnt[e]
    for j in range(layer.logcnt[e]):
        layer.even[layer.gpu[layer.replica[e, j]]] += load


@kernel
def _place(layer: Layer, e: Int, slot: Int) -> Int:
    """Where a slot stands among the replicas of its expert; the last place if nowhere before."""
    place: Int = 0
    while place < layer.logcnt[e] and layer.replica[e, place] != slot:
        place += 1
    return place
