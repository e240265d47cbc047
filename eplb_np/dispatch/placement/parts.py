"""A start for nodes with fewer spare slots than GPUs: one connected part, and GPUs on their own.

With S spare slots, at most S + 1 GPUs can exchange load. So the others must do with the noise of
what is on them: they get less than the mean, from experts of middling load, and the connected part
gets a little more. It takes the hottest experts, which hold it together, and the coldest.

How much less is chosen by what the samples would need if the part were perfectly even inside.

Letters: E logical experts, P slots, D GPUs, S samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.arrays import doubles, ints
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.dispatch.placement.layer import Layer, fill_layer, holds, swap_slots
from eplb_np.maps.maps import EMPTY

LEAST_GAIN = 1e-4
"""A swap must shorten the time of an even split by this fraction."""

MOST_STEPS = 300
"""Swaps to even out the connected part."""


class Parts(NamedTuple):
    """Working memory for one node."""

    expert: Ints  # [E], the node's experts, by descending load
    wanted: Ints  # [E], replicas of each expert of the part
    filled: Ints  # [D], slots filled
    load: Doubles  # [D]
    root: Ints  # [D], GPUs of one tree have the same
    chosen: Ints  # [D], GPUs taken by the expert that is being placed


@allocator
def make_parts(num_gpus: Int, num_experts: Int) -> Parts:
    """Allocate `Parts`."""
    return Parts(
        ints(num_experts), ints(num_experts), ints(num_gpus), doubles(num_gpus), ints(num_gpus),
        ints(num_gpus),
    )  # fmt: skip


@kernel
def separate_node(layer: Layer, sample: Doubles, start: Int, end: Int, parts: Parts) -> bool:
    """Plan the GPUs from ``start`` to ``end``; returns False, and changes nothing, if it cannot.

    It can if they are alike, and have fewer spare slots than GPUs, but some.
    """
    rows = layer.first[start + 1] - layer.first[start]
    for g in range(start, end):
        alike = layer.slowness[g] == layer.slowness[start]
        if not alike or layer.first[g + 1] - layer.first[g] != rows:
            return False
    num_experts = _list_experts(layer, layer.first[start], layer.first[end], parts)
    num_slots = layer.first[end] - layer.first[start]
    num_joined = num_slots - num_experts + 1
    num_alone = end - start - num_joined
    if num_joined < 2 or num_alone < 1 or rows < 2:
        return False
    hottest = _choose_hottest(layer, sample, num_experts, num_alone, num_joined, rows, parts)
    alone = num_alone * rows
    for g in range(end - start):
        parts.filled[g] = 0
        parts.load[g] = 0.0
    for i in range(hottest, hottest + alone):
        e = parts.expert[i]
        _put(layer, parts, start, _lightest(parts, 0, num_alone, rows), e, layer.weight[e])
    _remove_middle(parts, hottest, alone, num_experts)
    _join(layer, parts, start, num_alone, end - start, num_experts - alone)
    for g in range(start, end):  # GPUs that are alone are nodes of their own: nothing moves there
        layer.node[g] = min(g, start + num_alone)
    fill_layer(layer)
    _even_out(layer, start + num_alone, end, MOST_STEPS)
    return True


@kernel
def _list_experts(layer: Layer, first: Int, last: Int, parts: Parts) -> Int:
    """List the experts in these slots by descending load; returns their number."""
    number: Int = 0
    for slot in range(first, last):
        e = layer.expert[slot]
        if layer.replica[e, 0] != slot:  # each expert once
            continue
        i = number
        while i > 0 and layer.weight[parts.expert[i - 1]] < layer.weight[e]:
            parts.expert[i] = parts.expert[i - 1]
            i -= 1
        parts.expert[i] = e
        number += 1
    return number


@kernel
def _choose_hottest(
    layer: Layer, sample: Doubles, num_experts: Int, num_alone: Int, num_joined: Int, rows: Int,
    parts: Parts,
) -> Int:  # fmt: skip
    """Choose how many of the hottest experts go to the connected part."""
    alone = num_alone * rows
    best: Int = 0
    least = np.inf
    for hottest in range(num_experts - alone + 1):
        time = _time_needed(layer, sample, num_experts, num_alone, num_joined, hottest, parts)
        if time < least:
            least = time
            best = hottest
    return best


@kernel
def _time_needed(
    layer: Layer, sample: Doubles, num_experts: Int, num_alone: Int, num_joined: Int, hottest: Int,
    parts: Parts,
) -> float:  # fmt: skip
    """Mean time of the samples if the part was even inside: that of the slowest GPU or the part."""
    rows = (num_experts + num_joined - 1) // (num_alone + num_joined)
    alone = num_alone * rows
    for g in range(num_alone):
        parts.filled[g] = 0
        parts.load[g] = 0.0
    for i in range(hottest, hottest + alone):
        lightest = _lightest(parts, 0, num_alone, rows)
        parts.load[lightest] += layer.weight[parts.expert[i]]
        parts.filled[lightest] += 1
        parts.wanted[i] = lightest
    total = 0.0
    for s in range(sample.shape[1]):
        joined = 0.0
        for g in range(num_alone):
            parts.load[g] = 0.0
        for i in range(num_experts):
            load = sample[parts.expert[i], s]
            if hottest <= i < hottest + alone:
                parts.load[parts.wanted[i]] += load
            else:
                joined += load
        time = joined / num_joined
        for g in range(num_alone):
            time = max(time, parts.load[g])
        total += time
    return total


@kernel
def _lightest(parts: Parts, start: Int, end: Int, rows: Int) -> Int:
    """GPU with the least load among those with a free slot."""
    best: Int = EMPTY
    for g in range(start, end):
        if parts.filled[g] < rows and (best == EMPTY or parts.load[g] < parts.load[best]):
            best = g
    return best


@kernel
def _put(layer: Layer, parts: Parts, start: Int, g: Int, e: Int, load: float) -> None:
    layer.expert[layer.first[start + g] + parts.filled[g]] = e
    parts.filled[g] += 1
    parts.load[g] += load


@kernel
def _remove_middle(parts: Parts, hottest: Int, alone: Int, num_experts: Int) -> None:
    for i in range(hottest, num_experts - alone):
        parts.expert[i] = parts.expert[i + alone]


@kernel
def _join(layer: Layer, parts: Parts, start: Int, first: Int, last: Int, num_experts: Int) -> None:
    """Put experts on the GPUs from ``first`` to ``last`` so that all of these are connected.

    The spare replicas go where each one takes most off the others. Every one of them joins two
    trees of GPUs, until there is only one.
    """
    rows = layer.first[start + 1] - layer.first[start]
    for i in range(num_experts):
        parts.wanted[i] = 1
    for _ in range((last - first) * rows - num_experts):
        best: Int = 0
        largest = -1.0
        for i in range(num_experts):
            load = layer.weight[parts.expert[i]] / parts.wanted[i]
            if load > largest and parts.wanted[i] < layer.replica.shape[1]:
                best, largest = i, load
        parts.wanted[best] += 1
    for g in range(first, last):
        parts.root[g] = g
    for i in range(num_experts):
        e = parts.expert[i]
        number = parts.wanted[i]
        if number < 2:
            continue
        for j in range(number):
            parts.chosen[j] = _lightest_tree(parts, first, last, rows, j)
            _put(layer, parts, start, parts.chosen[j], e, layer.weight[e] / number)
        for j in range(1, number):
            old, new = parts.root[parts.chosen[j]], parts.root[parts.chosen[0]]
            for g in range(first, last):
                if parts.root[g] == old:
                    parts.root[g] = new
    for i in range(num_experts):
        e = parts.expert[i]
        if parts.wanted[i] == 1:
            _put(layer, parts, start, _lightest(parts, first, last, rows), e, layer.weight[e])


@kernel
def _lightest_tree(parts: Parts, first: Int, last: Int, rows: Int, num_chosen: Int) -> Int:
    """GPU with the least load and a free slot, in a tree of which none is chosen, if there is one.

    If not, one that is not chosen; if there is none either, any.
    """
    best: Int = EMPTY
    best_rank = 3
    for g in range(first, last):
        if parts.filled[g] == rows:
            continue
        rank = 0
        for j in range(num_chosen):
            if parts.chosen[j] == g:
                rank = 2
            elif parts.root[parts.chosen[j]] == parts.root[g]:
                rank = max(rank, 1)
        if rank < best_rank or (rank == best_rank and parts.load[g] < parts.load[best]):
            best, best_rank = g, rank
    return best


@kernel
def _even_out(layer: Layer, start: Int, end: Int, max_steps: Int) -> None:
    """Swap replicas off the GPU that is slowest with an even split, while that helps."""
    first, even = layer.first, layer.even
    for _ in range(max_steps):
        h: Int = start
        for g in range(start, end):
            if even[g] * layer.slowness[g] > even[h] * layer.slowness[h]:
                h = g
        least = even[h] * layer.slowness[h] * (1.0 - LEAST_GAIN)
        best_a: Int = EMPTY
        best_b: Int = EMPTY
        for a in range(first[h], first[h + 1]):
            x = layer.expert[a]
            for b in range(first[start], first[end]):
                g = layer.gpu[b]
                y = layer.expert[b]
                if g == h or layer.node[g] != layer.node[h]:
                    continue
                if x == y or holds(layer, g, x) or holds(layer, h, y):
                    continue
                change = layer.weight[x] / layer.logcnt[x] - layer.weight[y] / layer.logcnt[y]
                time = max(
                    (even[h] - change) * layer.slowness[h], (even[g] + change) * layer.slowness[g]
                )
                if time < least:
                    least, best_a, best_b = time, a, b
        if best_a == EMPTY:
            return
        swap_slots(layer, best_a, best_b)
