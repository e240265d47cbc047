"""The exact split of a layer's load over its replicas.

The least makespan is T = max over sets S of GPUs of (load that only S can take) / (speed of S).
The split starts from a lower bound on T. It fills the spanning forest of the graph from the leaves
up, which puts most GPUs at T at once. While a GPU is above T, a breadth-first search from it follows
replicas that hold load to a GPU below T, and load is shifted along that path. If there is none, the
GPUs that were seen are a set S that needs more than T: T rises to what S needs (Newton's method),
and the search goes on. It ends with a feasible T that a set S proves to be the least.

The result depends on nothing but the graph and the counts, so that all ranks compute the same.

Loads are int64 or float64; integers are split into integers. Letters as in `graph`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Int, Ints
from eplb_np.dispatch.graph import EDGES, EMPTY_SLOTS, SHARED, SINGLE, SplitGraph

Loads: TypeAlias = NDArray[Any]  # int64 or float64
Load: TypeAlias = Any

ROUNDING = 1e-11
"""Floats may be this share above their cap: sums of floats are not exact."""

NO_PART = -1
"""Instead of a part: the GPU's load is final."""


class SplitScratch(NamedTuple):
    """Working memory of one thread; arrays of loads have the dtype of the counts."""

    whole: bool  # whether loads are integers
    load: Loads  # [D], load of each GPU
    cap: Loads  # [D], load that each GPU is to have at most
    limit: Loads  # [D], the same with room for rounding, in which floats may exceed it
    flow: Loads  # [K], load of each edge
    part: Ints  # [D], GPUs that may exchange load have the same number
    seen: Ints  # [D], number of the last search that saw the GPU
    seen_expert: Ints  # [M], the same for shared experts
    taken_from: Ints  # [D], edge that gives load up on the path that led to the GPU
    given_to: Ints  # [D], edge that takes it
    queue: Ints  # [D], GPUs seen
    search: Ints  # [2], number of searches, never restarted, as marks stay; GPUs seen by the last


def make_split_scratch(graph: SplitGraph, dtype: Any) -> SplitScratch:
    """Allocate working memory; ``dtype`` is np.int64 or np.float64."""
    num_gpus = graph.component.shape[1]
    num_shared, num_edges = graph.expert.shape[1], graph.edge_slot.shape[1]
    sizes = (num_gpus, num_gpus, num_shared, num_gpus, num_gpus, num_gpus, 2)
    return SplitScratch(
        dtype is np.int64,
        *(np.zeros(size, dtype) for size in (num_gpus, num_gpus, num_gpus, num_edges)),
        *(np.zeros(size, np.int64) for size in sizes),
    )


@entry
def split_layers(graph: SplitGraph, counts: Loads, scratch: SplitScratch, slot_load: Loads) -> None:
    """Split every row of ``counts`` [L, E]. Out: ``slot_load`` [L, P], same dtype."""
    for i in range(counts.shape[0]):
        split_layer(graph, i, counts[i], scratch, slot_load[i])


@kernel
def split_layer(
    graph: SplitGraph, layer: Int, counts: Loads, scratch: SplitScratch, slot_load: Loads
) -> None:
    """Split the load of one layer so that its slowest GPU takes the least time.

    ``counts`` [E] int64 or float64; out: ``slot_load`` [P], same dtype.
    """
    find_least_caps(graph, layer, counts, scratch, slot_load)
    write_flows(graph, layer, scratch, slot_load)


@kernel
def find_least_caps(
    graph: SplitGraph, layer: Int, counts: Loads, scratch: SplitScratch, slot_load: Loads
) -> None:
    """Find flows that keep all GPUs within the least caps; writes single replicas only."""
    add_single_replicas(graph, layer, counts, scratch, slot_load)
    set_lower_bound(graph, layer, counts, scratch)
    fill_forest(graph, layer, counts, scratch)
    load, limit = scratch.load, scratch.limit
    for g in range(load.shape[0]):
        scratch.part[g] = 0
    for g in range(load.shape[0]):
        while load[g] > limit[g]:
            if not relieve(graph, layer, g, scratch):
                raise_caps(graph, layer, scratch)


@kernel
def add_single_replicas(
    graph: SplitGraph, layer: Int, counts: Loads, scratch: SplitScratch, slot_load: Loads
) -> None:
    """Write the load of experts with one replica, and sum it into ``scratch.load``."""
    load = scratch.load
    for g in range(load.shape[0]):
        load[g] = 0
    for j in range(graph.size[layer, EMPTY_SLOTS]):
        slot_load[graph.single_slot[layer, slot_load.shape[0] - 1 - j]] = 0
    for j in range(graph.size[layer, SINGLE]):
        count = counts[graph.single_expert[layer, j]]
        slot_load[graph.single_slot[layer, j]] = count
        load[graph.single_gpu[layer, j]] += count


@kernel
def set_lower_bound(graph: SplitGraph, layer: Int, counts: Loads, scratch: SplitScratch) -> None:
    """Set the caps to the largest bound that needs no search.

    A connected component needs its load over its speed, and a GPU what is fixed on it.
    """
    load, needed = scratch.load, scratch.cap
    time = 0.0
    for g in range(load.shape[0]):
        needed[g] = 0
    for g in range(load.shape[0]):
        time = max(time, load[g] * graph.slowness[g])
        needed[graph.component[layer, g]] += load[g]
    for m in range(graph.size[layer, SHARED]):
        needed[graph.expert_component[layer, m]] += counts[graph.expert[layer, m]]
    for g in range(load.shape[0]):
        time = max(time, needed[g] * graph.component_slowness[layer, g])
    set_caps(graph, np.ceil(time) if scratch.whole and graph.uniform else time, scratch)


@kernel
def set_caps(graph: SplitGraph, time: float, scratch: SplitScratch) -> None:
    """Set the caps to what GPUs process in this time."""
    cap, limit, slowness = scratch.cap, scratch.limit, graph.slowness
    for g in range(cap.shape[0]):
        if scratch.whole:
            most = np.int64(time / slowness[g])
            if (most + 1) * slowness[g] <= time:
                most += 1
            elif most * slowness[g] > time:
                most -= 1
            cap[g] = most
            limit[g] = most
        else:
            cap[g] = time / slowness[g]
            limit[g] = cap[g] * (1.0 + ROUNDING)


@kernel
def raise_caps(graph: SplitGraph, layer: Int, scratch: SplitScratch) -> None:
    """Raise the caps to the least time that the GPUs of the last search need."""
    load, cap, slowness, queue = scratch.load, scratch.cap, graph.slowness, scratch.queue
    num_seen = scratch.search[1]
    needed = load[queue[0]]
    speed = 1.0 / slowness[queue[0]]
    for j in range(1, num_seen):
        needed += load[queue[j]]
        speed += 1.0 / slowness[queue[j]]
    set_caps(graph, needed / speed, scratch)
    while scratch.whole:
        room = cap[queue[0]]
        time = (room + 1) * slowness[queue[0]]
        for j in range(1, num_seen):
            g = queue[j]
            room += cap[g]
            time = min(time, (cap[g] + 1) * slowness[g])
        if room >= needed:
            return
        set_caps(graph, time, scratch)


@kernel
def fill_forest(graph: SplitGraph, layer: Int, counts: Loads, scratch: SplitScratch) -> None:
    """Split every shared expert: the start from which paths repair what is above the caps.

    Edges outside the forest get their expected share. Then experts, from the leaves of the forest
    up, fill the GPUs below them up to the cap, and leave the rest to the GPU above.
    """
    load, cap, flow = scratch.load, scratch.cap, scratch.flow
    num_shared = graph.size[layer, SHARED]
    for m in range(num_shared):
        rest = counts[graph.expert[layer, m]]
        count = rest
        for k in range(graph.first_edge[layer, m], graph.first_child[layer, m]):
            flow[k] = graph.share[layer, k] * count  # rounded down if loads are integers
            load[graph.edge_gpu[layer, k]] += flow[k]
            rest -= flow[k]
        flow[graph.first_edge[layer, m + 1] - 1] = rest
    for m in range(num_shared):
        last = graph.first_edge[layer, m + 1] - 1
        rest = flow[last]
        for k in range(graph.first_child[layer, m], last):
            g = graph.edge_gpu[layer, k]
            room = cap[g] - load[g]
            flow[k] = min(rest, max(room, room - room))
            load[g] += flow[k]
            rest -= flow[k]
        flow[last] = rest
        load[graph.edge_gpu[layer, last]] += rest


@kernel
def relieve(graph: SplitGraph, layer: Int, start: Int, scratch: SplitScratch) -> bool:
    """Shift load from a GPU above its cap along a shortest path to one of its part below its cap.

    Returns whether there is such a path. If not, the GPUs that can be reached are listed in
    ``scratch.queue``: load on them cannot leave them.
    """
    load, cap, flow, part = scratch.load, scratch.cap, scratch.flow, scratch.part
    seen, queue = scratch.seen, scratch.queue
    scratch.search[0] += 1
    search = scratch.search[0]
    seen[start] = search
    queue[0] = start
    head, tail = 0, 1
    while head < tail:
        g = queue[head]
        head += 1
        for j in range(graph.first_at_gpu[layer, g], graph.first_at_gpu[layer, g + 1]):
            source = graph.edge_at_gpu[layer, j]
            m = graph.edge_expert[layer, source]
            if not flow[source] > 0 or scratch.seen_expert[m] == search:
                continue
            scratch.seen_expert[m] = search
            for k in range(graph.first_edge[layer, m], graph.first_edge[layer, m + 1]):
                target = graph.edge_gpu[layer, k]
                if seen[target] == search or part[target] != part[start]:
                    continue
                seen[target] = search
                scratch.taken_from[target] = source
                scratch.given_to[target] = k
                if load[target] < cap[target]:
                    most = min(load[start] - cap[start], cap[target] - load[target])
                    shift(graph, layer, start, target, most, scratch)
                    return True
                queue[tail] = target
                tail += 1
    scratch.search[1] = tail
    return False


@kernel
def shift(
    graph: SplitGraph, layer: Int, start: Int, target: Int, most: Load, scratch: SplitScratch
) -> None:
    """Shift load along the path of the last search: ``most``, or what the path lets through."""
    flow, taken_from, given_to = scratch.flow, scratch.taken_from, scratch.given_to
    amount = most
    g = target
    while g != start:
        amount = min(amount, flow[taken_from[g]])
        g = graph.edge_gpu[layer, taken_from[g]]
    g = target
    while g != start:
        flow[taken_from[g]] -= amount
        flow[given_to[g]] += amount
        g = graph.edge_gpu[layer, taken_from[g]]
    scratch.load[start] -= amount
    scratch.load[target] += amount


@kernel
def write_flows(graph: SplitGraph, layer: Int, scratch: SplitScratch, slot_load: Loads) -> None:
    """Write the load of each replica of shared experts."""
    for k in range(graph.size[layer, EDGES]):
        slot_load[graph.edge_slot[layer, k]] = scratch.flow[k]
