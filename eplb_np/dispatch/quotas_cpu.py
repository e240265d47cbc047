"""Who sends what where: the compiled loops.

Letters: L layers, E logical experts, P slots, R ranks, D GPUs, T tokens of k experts each, X
replicas that ``log2phy`` has room for.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from eplb_np._numba.arrays import ints
from eplb_np._numba.indexing import at
from eplb_np._numba.jit import allocator, entry, kernel
from eplb_np._numba.types import Int, Ints
from eplb_np.maps.maps import EMPTY

Ids: TypeAlias = NDArray[Any]  # int32 or int64

LARGEST_COUNT = 1 << 42
"""Counts below it are added up over up to a million ranks without overflow."""


class Line(NamedTuple):
    """The slots of one expert, and what its ranks and slots have left. Used again for each expert.

    Ranks are in the order of `Ranks`, slots in that of their indices.
    """

    slot: Ints  # [P] the expert's slots, in the first m entries
    gpu: Ints  # [P] their GPUs
    room: Ints  # [P] tokens that they are still to get
    rest: Ints  # [R] tokens of each rank that have no slot yet


class Ranks(NamedTuple):
    """The ranks, GPU by GPU."""

    by_gpu: Ints  # [R] ranks by their GPU, then by index
    first: Ints  # [D + 1] where each GPU's ranks begin in ``by_gpu``, then R


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
    """Share the counts of each rank out to the slots, the nearest first: see `make_quotas`.

    ``slot_load`` [L, P], ``counts`` [L, R, E], ``phy2log`` [L, P], ``rank_gpus`` [R],
    ``first_slots`` [D + 1], all int64; an expert's slots and counts have the same total. Out:
    ``quotas`` [L, R, P]. O(L R P).
    """
    num_layers, num_ranks, num_experts = counts.shape
    num_slots = phy2log.shape[1]
    num_gpus = first_slots.shape[0] - 1
    ranks = _sort_ranks(rank_gpus, num_gpus)
    line = Line(ints(num_slots), ints(num_slots), ints(num_slots), ints(num_ranks))
    gpu_of_slot = ints(num_slots)
    for gpu in range(num_gpus):
        for slot in range(first_slots[gpu], first_slots[gpu + 1]):
            gpu_of_slot[slot] = gpu
    first = ints(num_experts + 1)
    by_expert = ints(num_slots)
    lone = ints(num_slots)
    for layer in range(num_layers):
        _sort_slots(phy2log[layer], by_expert, first)
        for slot in range(num_slots):
            e = phy2log[layer, slot]
            lone[slot] = e if e != EMPTY and first[e + 1] == first[e] + 1 else EMPTY
        _send_to_lone_replicas(counts[layer], lone, quotas[layer])
        for e in range(num_experts):
            num_replicas = first[e + 1] - first[e]
            if num_replicas == 1:
                continue
            for j in range(num_replicas):
                slot = by_expert[first[e] + j]
                line.slot[j] = slot
                line.gpu[j] = gpu_of_slot[slot]
                line.room[j] = slot_load[layer, slot]
            for i in range(num_ranks):
                line.rest[i] = counts[layer, ranks.by_gpu[i], e]
            _share_within(1, num_replicas, ranks, line, quotas[layer])
            if gpus_per_node < num_gpus:
                _share_within(gpus_per_node, num_replicas, ranks, line, quotas[layer])
            _share_within(num_gpus, num_replicas, ranks, line, quotas[layer])


@allocator
def _sort_ranks(rank_gpus: Ints, num_gpus: Int) -> Ranks:
    num_ranks = rank_gpus.shape[0]
    first = ints(num_gpus + 1)
    for gpu in range(num_gpus + 1):
        first[gpu] = 0
    for r in range(num_ranks):
        first[rank_gpus[r] + 1] += 1
    for gpu in range(num_gpus):
        first[gpu + 1] += first[gpu]
    by_gpu = ints(num_ranks)
    for r in range(num_ranks):  # each moves its GPU's beginning on by one ...
        by_gpu[first[rank_gpus[r]]] = r
        first[rank_gpus[r]] += 1
    for gpu in range(num_gpus, 0, -1):  # ... up to that of the next GPU
        first[gpu] = first[gpu - 1]
    first[0] = 0
    return Ranks(by_gpu, first)


@kernel
def _sort_slots(phy2log: Ints, by_expert: Ints, first: Ints) -> None:
    """Sort slots by their expert, stably; those of expert e begin at ``first[e]``. As above."""
    num_experts = first.shape[0] - 1
    for e in range(num_experts + 1):
        first[e] = 0
    for slot in range(phy2log.shape[0]):
        if phy2log[slot] != EMPTY:
            first[phy2log[slot] + 1] += 1
    for e in range(num_experts):
        first[e + 1] += first[e]
    for slot in range(phy2log.shape[0]):
        e = phy2log[slot]
        if e != EMPTY:
            by_expert[first[e]] = slot
            first[e] += 1
    for e in range(num_experts, 0, -1):
        first[e] = first[e - 1]
    first[0] = 0


@kernel
def _send_to_lone_replicas(counts: Ints, lone: Ints, quotas: Ints) -> None:
    """Write the counts of experts with one replica, row by row, and 0 into all other slots."""
    for r in range(counts.shape[0]):
        for slot in range(lone.shape[0]):
            quotas[r, slot] = counts[r, at(lone[slot])] if lone[slot] != EMPTY else 0


@kernel
def _share_within(size: Int, num_replicas: Int, ranks: Ranks, line: Line, quotas: Ints) -> None:
    """Share out what can stay on the same ``size`` GPUs: 1, those of a node, or all.

    The first rank with tokens fills the first slot with room, over and over.
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
                # Nothing is there yet: earlier stages have left the rank or the slot without rest.
                if amount > 0:
                    quotas[ranks.by_gpu[i], line.slot[j]] = amount
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
    """Turn the experts of one rank's tokens into slots: see `assign`.

    ``topk_ids`` [T, k] int32 or int64, ``quotas`` [P] int64, ``log2phy`` [E, X] of the same dtype
    as the ids. Out: ``slots`` [T, k], likewise. Returns the place ``t * k + i`` of the first id
    that is no expert, or for which its expert's quotas do not last; -1 if there is none. No values
    make it read or write beyond the arrays. O(T k + E + P).
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
