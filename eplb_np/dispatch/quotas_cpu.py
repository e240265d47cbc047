"""Who sends what where: the compiled loops.

Letters: L layers, E logical experts, P slots, R ranks, D GPUs, T tokens of k experts each, X
replicas that ``log2phy`` has room for.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from eplb_np._numba.arrays import ints
from eplb_np._numba.indexing import at
from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Int, Ints
from eplb_np.maps.maps import EMPTY

Ids: TypeAlias = NDArray[Any]  # int32 or int64

LARGEST_COUNT = 1 << 42
"""Counts below it are added up over up to a million ranks without overflow."""


class Order(NamedTuple):
    """Numbers sorted by a key, such as ranks by their GPUs."""

    number: Ints  # [n] the numbers, those of the same key in ascending order
    first: Ints  # [keys + 1] where those of each key begin in ``number``; at last, where all end


class Line(NamedTuple):
    """The replicas of one expert by their slots, its tokens by the ranks, and what is left of both.

    Used again for each expert.
    """

    slot: Ints  # [P] slot of each replica
    gpu: Ints  # [P] its GPU
    room: Ints  # [P] tokens that it is still to get
    rest: Ints  # [R] tokens that have no slot yet, in the order of the ranks' GPUs


@entry
def first_bad_layer(slot_load: Ints, counts: Ints, phy2log: Ints) -> Int:
    """Find the first layer whose numbers do not fit together, -1 if all do. Arrays: `fill_quotas`.

    A number is negative or `LARGEST_COUNT` or more, an empty slot has a load, or the slots of an
    expert have not the same total as its counts. O(L R E + L P).
    """
    num_layers, num_ranks, num_experts = counts.shape
    total = ints(num_experts)
    for layer in range(num_layers):
        for e in range(num_experts):
            total[e] = 0
        bits: Int = 0
        for r in range(num_ranks):
            for e in range(num_experts):
                total[e] += counts[layer, r, e]
                bits |= counts[layer, r, e]
        for slot in range(phy2log.shape[1]):
            bits |= slot_load[layer, slot]
            if phy2log[layer, slot] != EMPTY:
                total[at(phy2log[layer, slot])] -= slot_load[layer, slot]
            elif slot_load[layer, slot] != 0:
                return layer
        if not 0 <= bits < LARGEST_COUNT:
            return layer
        for e in range(num_experts):
            if total[e] != 0:
                return layer
    return -1


@entry
def fill_quotas(
    slot_load: Ints,
    counts: Ints,
    phy2log: Ints,
    rank_gpus: Ints,
    first_slots: Ints,
    gpus_per_node: Int,
    quotas: Ints,
) -> None:
    """Share the counts of the ranks out to the slots, the nearest first. Nothing is checked.

    Parameters
    ----------
    slot_load : ndarray, shape [L, P], int64
        Tokens of each slot. An expert's slots must add up to its counts.
    counts : ndarray, shape [L, R, E], int64
        Tokens of each rank for each logical expert.
    phy2log : ndarray, shape [L, P], int64
        Logical expert in each slot, -1 in an empty one.
    rank_gpus : ndarray, shape [R], int64
        GPU of each rank.
    first_slots : ndarray, shape [D + 1], int64
        First slot of each GPU, then P: ``plan.topology.first_slots``.
    gpus_per_node : int
        GPUs of each node.
    quotas : ndarray, shape [L, R, P], int64
        Out: tokens that each rank sends to each slot.

    Notes
    -----
    As `eplb_np.make_quotas`, with its ties. O(L R P).

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np.kernels import fill_quotas
    >>> slot_load, phy2log = np.array([[6, 2, 3, 4]]), np.array([[0, 1, 2, 0]])
    >>> counts = np.array([[[9, 2, 0], [1, 0, 3]]])
    >>> quotas = np.empty((1, 2, 4), np.int64)
    >>> fill_quotas(slot_load, counts, phy2log, np.arange(2), np.array([0, 2, 4]), 2, quotas)
    >>> quotas.tolist()
    [[[6, 2, 0, 3], [0, 0, 3, 1]]]
    """
    num_layers, num_ranks, num_experts = counts.shape
    num_slots = phy2log.shape[1]
    num_gpus = first_slots.shape[0] - 1
    ranks = Order(ints(num_ranks), ints(num_gpus + 1))
    _sort(rank_gpus, ranks)
    gpu_of_slot = ints(num_slots)
    for gpu in range(num_gpus):
        for slot in range(first_slots[gpu], first_slots[gpu + 1]):
            gpu_of_slot[slot] = gpu
    slots = Order(ints(num_slots), ints(num_experts + 1))
    lone = ints(num_slots)
    line = Line(ints(num_slots), ints(num_slots), ints(num_slots), ints(num_ranks))
    for layer in range(num_layers):
        _sort(phy2log[layer], slots)
        for slot in range(num_slots):
            lone[slot] = EMPTY
        for e in range(num_experts):
            if slots.first[e + 1] == slots.first[e] + 1:
                lone[slots.number[slots.first[e]]] = e
        _send_to_lone_replicas(counts[layer], lone, quotas[layer])
        for e in range(num_experts):
            num_replicas = slots.first[e + 1] - slots.first[e]
            if num_replicas == 1:
                continue
            for j in range(num_replicas):
                slot = slots.number[slots.first[e] + j]
                line.slot[j] = slot
                line.gpu[j] = gpu_of_slot[slot]
                line.room[j] = slot_load[layer, slot]
            for i in range(num_ranks):
                line.rest[i] = counts[layer, ranks.number[i], e]
            _share_within(1, num_replicas, ranks, line, quotas[layer])
            if gpus_per_node < num_gpus:
                _share_within(gpus_per_node, num_replicas, ranks, line, quotas[layer])
            _share_within(num_gpus, num_replicas, ranks, line, quotas[layer])


@kernel
def _sort(keys: Ints, order: Order) -> None:
    """Sort the places of ``keys`` by key; `EMPTY` ones are left out."""
    number, first = order
    num_keys = first.shape[0] - 1
    for key in range(num_keys + 1):
        first[key] = 0
    for i in range(keys.shape[0]):
        if keys[i] != EMPTY:
            first[keys[i] + 1] += 1
    for key in range(num_keys):
        first[key + 1] += first[key]
    for i in range(keys.shape[0]):  # each moves the beginning of its key on by one ...
        if keys[i] != EMPTY:
            number[first[keys[i]]] = i
            first[keys[i]] += 1
    for key in range(num_keys, 0, -1):  # ... up to that of the next key
        first[key] = first[key - 1]
    first[0] = 0


@kernel
def _send_to_lone_replicas(counts: Ints, lone: Ints, quotas: Ints) -> None:
    """Write the counts of experts with one replica, row by row, and 0 into all other slots."""
    for r in range(counts.shape[0]):
        for slot in range(lone.shape[0]):
            quotas[r, slot] = counts[r, at(lone[slot])] if lone[slot] != EMPTY else 0


@kernel
def _share_within(size: Int, num_replicas: Int, ranks: Order, line: Line, quotas: Ints) -> None:
    """Share out what can stay on the same ``size`` GPUs: one, those of a node, or all.

    The first rank with tokens fills the first slot with room, over and over. Overlaps of intervals
    in place of that, with vector instructions and no branches, took 2.3 times as long in all for
    288 slots on 32 GPUs, and 1.2 times for 360 on 72.
    """
    rest, room = line.rest, line.room
    j: Int = 0
    while j < num_replicas:
        first_gpu = line.gpu[j] // size * size
        stop = j + 1
        while stop < num_replicas and line.gpu[stop] < first_gpu + size:
            stop += 1
        left = room[j]
        for i in range(ranks.first[first_gpu], ranks.first[first_gpu + size]):
            needed = rest[i]
            while needed > 0 and j < stop:
                amount = min(needed, left)
                # A rank meets a slot again only if one of them has nothing left, so this never
                # replaces an earlier amount.
                if amount > 0:
                    quotas[ranks.number[i], line.slot[j]] = amount
                needed -= amount
                left -= amount
                if left == 0:
                    room[j] = 0
                    j += 1
                    left = room[j] if j < stop else 0
            rest[i] = needed
        if j < stop:
            room[j] = left
        j = stop


@entry
def assign_slots(topk_ids: Ids, quotas: Ints, log2phy: Ids, slots: Ids) -> Int:
    """Turn the experts of one rank's tokens into slots, by its quotas.

    Parameters
    ----------
    topk_ids : ndarray, shape [T, k], int64 or int32
        Logical experts of each token, -1 for padding.
    quotas : ndarray, shape [P], int64
        Tokens that this rank sends to each slot.
    log2phy : ndarray, shape [E, X], dtype of topk_ids
        Slot of each replica of each expert, padded with -1.
    slots : ndarray, shape [T, k], dtype of topk_ids
        Out: the slot of each token.

    Returns
    -------
    int
        -1, or the place ``t * k + i`` of the first id that is no expert, or for which the quotas of
        its expert do not last.

    Notes
    -----
    As `eplb_np.assign`, with its order. No values make it read or write outside the arrays.
    O(T k + E + P).

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np.kernels import assign_slots
    >>> topk_ids, log2phy = np.array([[0, 1], [0, 2]]), np.array([[0, 3], [1, -1], [2, -1]])
    >>> slots = np.empty_like(topk_ids)
    >>> assign_slots(topk_ids, np.array([1, 1, 1, 1]), log2phy, slots), slots.tolist()
    (-1, [[0, 1], [3, 2]])
    """
    num_experts = log2phy.shape[0]
    column = ints(num_experts)
    slot = ints(num_experts)
    left = ints(num_experts)
    for e in range(num_experts):
        column[e] = -1
        slot[e] = EMPTY
        left[e] = 0
    num_tokens, width = topk_ids.shape
    first_bad: Int = -1
    for t in range(num_tokens):
        for i in range(width):
            e = topk_ids[t, i]
            if not 0 <= e < num_experts:
                slots[t, i] = EMPTY
                if e != EMPTY and first_bad < 0:
                    first_bad = t * width + i
                continue
            if left[at(e)] <= 0:
                _next_slot(e, quotas, log2phy, column, slot, left)
                if left[at(e)] <= 0 and first_bad < 0:
                    first_bad = t * width + i
            left[at(e)] -= 1
            slots[t, i] = slot[at(e)]
    return first_bad


@kernel
def _next_slot(e: Int, quotas: Ints, log2phy: Ids, column: Ints, slot: Ints, left: Ints) -> None:
    """Go on to the expert's next slot with a quota; without one, stay on its last slot."""
    while left[e] <= 0 and column[e] + 1 < log2phy.shape[1]:
        following = log2phy[e, column[e] + 1]
        if not 0 <= following < quotas.shape[0]:
            break
        column[e] += 1
        slot[e] = following
        left[e] = quotas[following]
