"""The evened-out split: the longest GPU time is least, then the second longest, and so on.

At first, the GPUs of each connected component of the graph are a part, with caps at their mean.
While a GPU of a part is above its cap, load is shifted to one below it. Where no path leads there,
the others cannot relieve the GPUs that were seen: these become a part of their own, with a higher
mean, and the rest goes on with a lower one. That is the decomposition algorithm of Fujishige,
"Lexicographically optimal base of a polymatroid with respect to a weight vector" (1980).

Integers in a part may still differ by more than they must. So units move along paths as long as
that shortens the longer of the two times at the path's ends: Frank and Murota, "Decreasing
minimization on M-convex sets" (2022).
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Bools, Int
from eplb_np.dispatch.graph import SplitGraph
from eplb_np.dispatch.split_cpu import (
    LISTED,
    Loads,
    SplitScratch,
    add_single_replicas,
    fill_forest,
    least_time,
    load_within,
    relieve,
    set_cap,
    sum_components,
    write_flows,
)

EVEN = -1
"""Instead of a part: nothing can even out the GPU's load any more."""

ROUNDING = 1e-9
"""Float times that differ by at most this share are equal."""


@entry
def split_layers_evenly(
    graph: SplitGraph, first_layer: Int, counts: Loads, scratch: SplitScratch, slot_load: Loads
) -> None:
    """Split the counts of consecutive layers, [l, E]. Out: ``slot_load`` [l, P], same dtype."""
    for i in range(counts.shape[0]):
        split_layer_evenly(graph, first_layer + i, counts[i], scratch, slot_load[i])


@entry
def find_binding_gpus(
    graph: SplitGraph, counts: Loads, scratch: SplitScratch, slot_load: Loads, binding: Bools
) -> None:
    """Find the GPUs that no split of ``counts`` [L, E] relieves. Out: ``binding`` [L, D].

    They are the slowest GPUs, and all that these could give load to. ``slot_load`` as above.
    """
    load, slowness = scratch.load, graph.slowness
    for i in range(counts.shape[0]):
        split_layer_evenly(graph, i, counts[i], scratch, slot_load[i])
        longest = 0.0
        for g in range(load.shape[0]):
            longest = max(longest, load[g] * slowness[g])
            binding[i, g] = False
            scratch.cap[g] = 0  # a search finds nothing below its cap, and sees all it can reach
            scratch.part[g] = 0
        nearly_longest = longest * (1.0 - ROUNDING)
        for start in range(load.shape[0]):
            if not binding[i, start] and load[start] * slowness[start] >= nearly_longest:
                relieve(graph, i, start, scratch)
                for j in range(scratch.search[LISTED]):
                    binding[i, scratch.queue[j]] = True


@kernel
def split_layer_evenly(
    graph: SplitGraph, layer: Int, counts: Loads, scratch: SplitScratch, slot_load: Loads
) -> None:
    """Split the load of one layer so that its GPU times, longest first, are least.

    Parameters
    ----------
    graph : SplitGraph
        `eplb_np.Splitter.graph`.
    layer : int
        Row of the plan.
    counts : ndarray, shape [E], int64 or float64
        Load of each logical expert in the batch.
    scratch : SplitScratch
        What `make_split_scratch` returned for that dtype. Its ``load`` is that of
        the GPUs afterwards.
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
    >>> from eplb_np.kernels import make_split_scratch, split_layer_evenly
    >>> graph = Splitter(make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)).graph
    >>> scratch = make_split_scratch(graph, np.int64)
    >>> slot_load = np.empty(6, np.int64)
    >>> split_layer_evenly(graph, 0, np.array([60, 50, 5, 15]), scratch, slot_load)
    >>> slot_load.tolist()
    [35, 25, 5, 25, 25, 15]
    """
    add_single_replicas(graph, layer, counts, scratch, slot_load)
    cap_components(graph, layer, counts, scratch)
    fill_forest(graph, layer, counts, scratch)
    part = scratch.part
    num_gpus = part.shape[0]
    num_parts = num_gpus
    for g in range(num_gpus):
        part[g] = graph.component[layer, g]
    p = 0
    while p < num_parts:
        list_part(p, scratch)
        if scratch.search[LISTED] <= 1:
            p += 1
            continue
        time = least_time(graph, scratch)
        for j in range(scratch.search[LISTED]):
            set_cap(graph, scratch.queue[j], time, scratch)
        size = scratch.search[LISTED]
        num_stuck = set_apart_stuck_gpus(graph, layer, p, num_parts, scratch)
        if 0 < num_stuck < size:
            num_parts += 1
            continue
        if num_stuck == size:  # all are above their caps, by less than floats can tell
            for g in range(num_gpus):
                if part[g] == num_parts:
                    part[g] = EVEN
        if scratch.whole:
            even_out_units(graph, layer, p, scratch)
        p += 1
    write_flows(graph, layer, scratch, slot_load)


@kernel
def cap_components(graph: SplitGraph, layer: Int, counts: Loads, scratch: SplitScratch) -> None:
    """Cap every GPU at the mean of its component."""
    needed = scratch.limit
    sum_components(graph, layer, counts, scratch.load, needed)
    for g in range(needed.shape[0]):
        c = graph.component[layer, g]
        time = needed[c] * graph.component_slowness[layer, c]
        scratch.cap[g] = load_within(
            np.ceil(time) if scratch.whole and graph.uniform else time, graph.slowness[g], scratch
        )


@kernel
def list_part(p: Int, scratch: SplitScratch) -> None:
    """List the GPUs of a part in the queue."""
    n: Int = 0
    for g in range(scratch.part.shape[0]):
        if scratch.part[g] == p:
            scratch.queue[n] = g
            n += 1
    scratch.search[LISTED] = n


@kernel
def set_apart_stuck_gpus(
    graph: SplitGraph, layer: Int, p: Int, new: Int, scratch: SplitScratch
) -> Int:
    """Bring the GPUs of a part within their caps, or into a new part; returns the size of that.

    The new part gets every GPU that the others cannot relieve, with all that it could give load to.
    Only when this has been tried for all are the loads of the one part known to be above those of
    the other.
    """
    load, limit, part = scratch.load, scratch.limit, scratch.part
    num_stuck: Int = 0
    for g in range(load.shape[0]):
        while part[g] == p and load[g] > limit[g]:
            if not relieve(graph, layer, g, scratch):
                for j in range(scratch.search[LISTED]):
                    part[scratch.queue[j]] = new
                num_stuck += scratch.search[LISTED]
    return num_stuck


@kernel
def even_out_units(graph: SplitGraph, layer: Int, p: Int, scratch: SplitScratch) -> None:
    """Move units within a part as long as that shortens the longer of two times."""
    load, part, slowness = scratch.load, scratch.part, graph.slowness
    while True:
        slowest, longest, shortest = -1, -1.0, np.inf
        for g in range(load.shape[0]):
            if part[g] == p:
                time = load[g] * slowness[g]
                if time > longest:
                    slowest, longest = g, time
                shortest = min(shortest, (load[g] + 1) * slowness[g])
        if shortest >= longest:
            return
        for g in range(load.shape[0]):
            below = load_within(longest, slowness[g], scratch)
            scratch.cap[g] = below - 1 if below * slowness[g] == longest else below
        if not relieve(graph, layer, slowest, scratch):
            for j in range(scratch.search[LISTED]):
                part[scratch.queue[j]] = EVEN
