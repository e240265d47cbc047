"""The exact split of a layer's load over its replicas.

The least makespan is T = max over sets S of GPUs of (load that only S can take) / (speed of S).
The split starts from a lower bound on T. It fills the spanning forest of the graph from the leaves
up, which puts most GPUs at T at once. While a GPU is above T, a breadth-first search from it
follows replicas that hold load to a GPU below T, and load is shifted along that path. If there is
none, the GPUs that were seen are a set S that needs more than T: T rises to what S needs (Newton's
method), and the search goes on. It ends with a feasible T that a set S proves to be the least.

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
    queue: Ints  # [D], GPUs seen, or those of a part
    search: Ints  # [2], see the indices below


SEARCHES, LISTED = 0, 1
"""Places in ``SplitScratch.search``: the number of searches, which never restarts, as marks stay,
and how many GPUs the queue lists."""


def make_split_scratch(graph: SplitGraph, dtype: Any) -> SplitScratch:
    """Allocate the working memory of a split: in Python, once for each thread and dtype of counts.

    Parameters
    ----------
    graph : SplitGraph
        `eplb_np.Splitter.graph`.
    dtype : {np.int64, np.float64}
        Type of the counts.

    Returns
    -------
    SplitScratch
        A named tuple of arrays, for `split_layer` and `split_layer_evenly`.

    Notes
    -----
    O(D + E + K) memory, for D GPUs and K replicas of experts that have several.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np import Splitter, make_plan
    >>> from eplb_np.kernels import make_split_scratch
    >>> graph = Splitter(make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)).graph
    >>> scratch = make_split_scratch(graph, np.int64)
    >>> scratch.load.shape, scratch.load.dtype.name
    ((2,), 'int64')
    """
    num_gpus = graph.component.shape[1]
    num_shared, num_edges = graph.expert.shape[1], graph.edge_slot.shape[1]
    sizes = (num_gpus, num_gpus, num_shared, num_gpus, num_gpus, num_gpus, 2)
    return SplitScratch(
        dtype is np.int64,
        *(np.zeros(size, dtype) for size in (num_gpus, num_gpus, num_gpus, num_edges)),
        *(np.zeros(size, np.int64) for size in sizes),
    )


@entry
def split_layers(
    graph: SplitGraph, first_layer: Int, counts: Loads, scratch: SplitScratch, slot_load: Loads
) -> None:
    """Split the counts of consecutive layers, [l, E]. Out: ``slot_load`` [l, P], same dtype."""
    for i in range(counts.shape[0]):
        split_layer(graph, first_layer + i, counts[i], scratch, slot_load[i])


@entry
def first_bad_count(counts: Loads, most: Load) -> Int:
    """Position in flattened ``counts`` [L, E] of the first that is negative, NaN or infinite.

    If a row adds up to more than ``most``, the number of all counts plus that row. Else -1.
    """
    num_layers: Int = counts.shape[0]
    num_experts: Int = counts.shape[1]
    for i in range(num_layers):
        total = 0.0
        good = True
        for e in range(num_experts):
            good &= counts[i, e] >= 0 and counts[i, e] < np.inf
            total += counts[i, e]
        if not good:
            for e in range(num_experts):
                if not (counts[i, e] >= 0 and counts[i, e] < np.inf):
                    return i * num_experts + e
        if not total <= most:
            return num_layers * num_experts + i
    return -1


@kernel
def split_layer(
    graph: SplitGraph, layer: Int, counts: Loads, scratch: SplitScratch, slot_load: Loads
) -> None:
    """Split the load of one layer so that its slowest GPU takes the least time.

    Parameters
    ----------
    graph : SplitGraph
        `eplb_np.Splitter.graph`.
    layer : int
        Row of the plan.
    counts : ndarray, shape [E], int64 or float64
        Load of each logical expert in the batch.
    scratch : SplitScratch
        What `make_split_scratch` returned for that dtype.
    slot_load : ndarray, shape [P], dtype of counts
        Out: load of each slot, 0 in an empty one.

    Notes
    -----
    As `eplb_np.Splitter`, which has the method, complexity, ties and source. Called from Python, it
    runs as Python, many times slower.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np import Splitter, make_plan
    >>> from eplb_np.kernels import make_split_scratch, split_layer
    >>> graph = Splitter(make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)).graph
    >>> scratch = make_split_scratch(graph, np.int64)
    >>> slot_load = np.empty(6, np.int64)
    >>> split_layer(graph, 0, np.array([60, 50, 5, 15]), scratch, slot_load)
    >>> slot_load.tolist()
    [35, 25, 5, 25, 25, 15]
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
                before = limit[g]
                time = least_time(graph, scratch)
                for other in range(load.shape[0]):
                    set_cap(graph, other, time, scratch)
                if not (scratch.whole or limit[g] > before):  # less than floats can tell
                    break


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
    load, needed = scratch.load, scratch.limit
    sum_components(graph, layer, counts, load, needed)
    time = 0.0
    for g in range(load.shape[0]):
        time = max(time, load[g] * graph.slowness[g])
        time = max(time, needed[g] * graph.component_slowness[layer, g])
    if scratch.whole and graph.uniform:
        time = np.ceil(time)
    for g in range(load.shape[0]):
        set_cap(graph, g, time, scratch)


@kernel
def sum_components(
    graph: SplitGraph, layer: Int, counts: Loads, load: Loads, needed: Loads
) -> None:
    """Sum what single replicas put on GPUs, ``load`` [D], and the counts of shared experts.

    Out: ``needed`` [D], the load of each component at its lowest GPU; 0 elsewhere.
    """
    for g in range(load.shape[0]):
        needed[g] = 0
    for g in range(load.shape[0]):
        needed[graph.component[layer, g]] += load[g]
    for m in range(graph.size[layer, SHARED]):
        needed[graph.expert_component[layer, m]] += counts[graph.expert[layer, m]]


@kernel
def load_within(time: float, slowness: float, scratch: SplitScratch) -> Load:
    """Largest load that takes a GPU of this slowness at most this time."""
    return whole_load_within(time, slowness) if scratch.whole else time / slowness


@kernel
def whole_load_within(time: float, slowness: float) -> Int:
    """Largest integer load that takes a GPU of this slowness at most this time."""
    most = np.int64(time / slowness)
    if np.float64(most + 1) * slowness <= time:
        most += 1
    elif np.float64(most) * slowness > time:
        most -= 1
    return most


@kernel
def set_cap(graph: SplitGraph, g: Int, time: float, scratch: SplitScratch) -> None:
    """Cap a GPU at what it processes in this time."""
    scratch.cap[g] = load_within(time, graph.slowness[g], scratch)
    scratch.limit[g] = scratch.cap[g]
    if not scratch.whole:
        scratch.limit[g] *= 1.0 + ROUNDING


@kernel
def least_time(graph: SplitGraph, scratch: SplitScratch) -> float:
    """Least time in which the listed GPUs can process all load that they have together."""
    load, slowness, queue = scratch.load, graph.slowness, scratch.queue
    needed = load[queue[0]]
    speed = 1.0 / slowness[queue[0]]
    for j in range(1, scratch.search[LISTED]):
        needed += load[queue[j]]
        speed += 1.0 / slowness[queue[j]]
    time: float = needed / speed
    while scratch.whole:  # in whole units, it can take a little longer
        following = np.inf
        room = needed - needed
        for j in range(scratch.search[LISTED]):
            g = queue[j]
            most = load_within(time, slowness[g], scratch)
            room += most
            following = min(following, (most + 1) * slowness[g])
        if room >= needed:
            break
        time = following
    return time


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
    scratch.search[SEARCHES] += 1
    search = scratch.search[SEARCHES]
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
    scratch.search[LISTED] = tail
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
