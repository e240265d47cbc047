"""The split of a layer's load in rounds, for many threads: the steps between their barriers.

The least makespan T is the one of `split_cpu`, and it is reached as exactly, but on the way all
that can be done at once is done at once:

1. A lower bound: T is at least the time of each connected component, and of what is fixed on a GPU.
2. The forest is filled from its deepest level up, a level at a time: experts fill the GPUs below
   them up to T and leave the rest to the GPU above.
3. Rounds, while a GPU is above T. A search runs backwards from all GPUs below T, over replicas that
   hold load, level by level, until it has reached all GPUs above T. Then these push what they have
   too much down the levels, each GPU and each expert at most as much as the search saw room for.
   If the search cannot reach some, the GPUs that it did not reach need more than T: T rises to
   what they need (Newton's method), and the forest is filled anew. Without that, all GPUs would
   have a little room, and rounds would fill it GPU by GPU: up to 24 rounds instead of 5 at 320
   global 64.

Every function is what one of ``threads`` threads does before it waits for the others. No number is
written by one thread and read by another between two barriers, and there are no atomic
operations. So the result does not depend on the number of threads, and one thread that takes the
steps one after the other gets the same: `cuda_on_cpu` does, `cuda` waits in between.

Loads are int64, times float64. Letters as in `cuda_graph`; R is D rounded up to a power of two.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.indexing import at
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.dispatch.cuda_graph import (
    SHARE_BITS,
    RoundGraph,
    RoundSizes,
    edge_source,
)
from eplb_np.dispatch.split_cpu import whole_load_within
from eplb_np.maps.maps import EMPTY


class RoundScratch(NamedTuple):
    """Working memory of one layer."""

    slot_load: Ints  # [P], load of each slot with a single replica, else 0
    flow: Ints  # [K], load of each edge
    given: Ints  # [K], load that a GPU has just given up on each edge
    single: Ints  # [D], load of each GPU that cannot move
    load: Ints  # [D]
    cap: Ints  # [D], load that each GPU is to have at most
    room: Ints  # [D], load that each GPU can take and process, or push on
    distance: Ints  # [D], levels between each GPU and one below its cap
    rest: Ints  # [M], load of each expert that goes upwards in the forest
    expert_room: Ints  # [M], as ``room``
    expert_distance: Ints  # [M]
    time: Doubles  # [4 R]


@kernel
def scratch_words(sizes: RoundSizes) -> Int:
    """Words of 8 bytes that a `RoundScratch` takes."""
    num_gpus, num_slots, num_shared, num_edges, _, room, _ = sizes
    return num_slots + 2 * num_edges + 5 * num_gpus + 3 * num_shared + 4 * room


@allocator
def carve_scratch(words: Ints, doubles: Doubles, sizes: RoundSizes) -> RoundScratch:
    """Hand out the parts of a block's memory, of which there are two views."""
    num_gpus, num_slots, num_shared, num_edges, _, room, _ = sizes
    flow = num_slots
    given = flow + num_edges
    single = given + num_edges
    load = single + num_gpus
    cap = load + num_gpus
    gpu_room = cap + num_gpus
    distance = gpu_room + num_gpus
    rest = distance + num_gpus
    expert_room = rest + num_shared
    expert_distance = expert_room + num_shared
    time = expert_distance + num_shared
    return RoundScratch(
        words[0:flow],
        words[flow:given],
        words[given:single],
        words[single:load],
        words[load:cap],
        words[cap:gpu_room],
        words[gpu_room:distance],
        words[distance:rest],
        words[rest:expert_room],
        words[expert_room:expert_distance],
        words[expert_distance:time],
        doubles[time : time + 4 * room],
    )


@kernel
def read_counts(
    counts: Ints, graph: RoundGraph, s: RoundScratch, thread: Int, threads: Int
) -> None:
    """Read the load of single replicas, and give edges outside the forest their expected share."""
    slot = thread
    while slot < s.slot_load.shape[0]:
        following = slot + threads
        source = np.int64(graph.slot_source[at(slot)])
        then: Int = np.int64(EMPTY)
        if following < s.slot_load.shape[0]:  # two reads at once, as each takes long
            then = np.int64(graph.slot_source[at(following)])
            s.slot_load[at(following)] = count_of(then, counts)
        s.slot_load[at(slot)] = count_of(source, counts)
        slot = following + threads
    m = thread
    while m < graph.size[0]:
        count = np.int64(counts[at(graph.expert[at(m)])])
        rest: Int = count
        k = np.int64(graph.first_edge[at(m)])
        first_child = np.int64(graph.first_child[at(m)])
        stop = np.int64(graph.first_edge[at(m + 1)])
        while k < stop:
            flow: Int = np.int64(0)
            if k < first_child:
                flow = (np.int64(graph.share[at(k)]) * count) >> SHARE_BITS
            s.flow[at(k)] = flow
            rest -= flow
            k += 1
        s.rest[at(m)] = rest
        m += threads


@kernel
def count_of(source: Int, counts: Ints) -> Int:
    """Read the load of a slot's expert if that has a single replica, else 0."""
    count: Int = np.int64(0)
    if source >= 0:
        count = np.int64(counts[at(source)])
    return count


@kernel
def gpu_load(g: Int, graph: RoundGraph, s: RoundScratch) -> Int:
    """Add up the load of a GPU."""
    load: Int = s.single[at(g)]
    j = np.int64(graph.first_at_gpu[at(g)])
    stop = np.int64(graph.first_at_gpu[at(g + 1)])
    while j < stop:
        load += s.flow[at(graph.edge_at_gpu[at(j)])]
        j += 1
    return load


@kernel
def load_from_below(g: Int, graph: RoundGraph, s: RoundScratch) -> Int:
    """Add up what the experts that hang from a GPU leave to it."""
    load: Int = np.int64(0)
    m = np.int64(graph.first_below[at(g)])
    stop = np.int64(graph.end_below[at(g)])
    while m < stop:
        load += s.rest[at(m)]
        m += 1
    return load


@kernel
def add_outside(graph: RoundGraph, s: RoundScratch, thread: Int, threads: Int) -> None:
    """Sum what the forest does not split; ``time[:D]`` is all load, in the order of components."""
    i = thread
    while i < s.load.shape[0]:
        g = np.int64(graph.by_component[at(i)])
        single: Int = np.int64(0)
        slot = np.int64(graph.first_slot[at(g)])
        stop = np.int64(graph.first_slot[at(g + 1)])
        while slot < stop:
            single += s.slot_load[at(slot)]
            slot += 1
        s.single[at(g)] = single
        load = gpu_load(g, graph, s)
        s.load[at(g)] = load
        s.time[at(i)] = np.float64(load + load_from_below(g, graph, s))
        i += threads


@kernel
def add_up_step(
    now: Int, after: Int, reach: Int, s: RoundScratch, thread: Int, threads: Int
) -> None:
    """Make one step of a running sum (Hillis and Steele, 1986), of numbers at ``now``."""
    i = thread
    while i < s.load.shape[0]:
        total = s.time[at(now + i)]
        if i >= reach:
            total += s.time[at(now + i - reach)]
        s.time[at(after + i)] = total
        i += threads


@kernel
def bound_times(
    now: Int, sizes: RoundSizes, graph: RoundGraph, s: RoundScratch, thread: Int, threads: Int
) -> None:
    """Write what each component and each GPU needs, to ``time[2 R:]``; running sums at ``now``.

    Products go straight to memory: nothing can be fused with them, on no machine.
    """
    room = sizes.room
    i = thread
    while i < room:
        s.time[at(2 * room + i)] = 0.0
        s.time[at(3 * room + i)] = 0.0
        if i < sizes.num_gpus:
            start = np.int64(graph.component_start[at(i)])
            if start >= 0:
                load = s.time[at(now + i)]
                if start > 0:
                    load -= s.time[at(now + start - 1)]
                s.time[at(2 * room + i)] = load * graph.component_slowness[at(i)]
            s.time[at(3 * room + i)] = np.float64(s.single[at(i)]) * graph.slowness[at(i)]
        i += threads


@kernel
def largest_step(first: Int, half: Int, s: RoundScratch, thread: Int, threads: Int) -> None:
    """Fold ``time[first : first + 2 * half]`` to half its length, by maxima."""
    i = first + thread
    while i < first + half:
        other = s.time[at(i + half)]
        if other > s.time[at(i)]:
            s.time[at(i)] = other
        i += threads


@kernel
def set_caps(
    time: float, sizes: RoundSizes, graph: RoundGraph, s: RoundScratch, thread: Int, threads: Int
) -> None:
    """Set the caps to what GPUs process in this time."""
    g = thread
    while g < sizes.num_gpus:
        s.cap[at(g)] = most_load(time, graph.slowness[at(g)], sizes.uniform)
        g += threads


@kernel
def most_load(time: float, slowness: float, uniform: bool) -> Int:
    """Largest integer load that a GPU processes in this time; rounded up if all are alike.

    Alike GPUs share a load of whole tokens only in whole times.
    """
    if not uniform:
        return whole_load_within(time, slowness)
    most = np.int64(time)
    if np.float64(most) < time:
        most += 1
    return most


@kernel
def empty_forest(graph: RoundGraph, s: RoundScratch, thread: Int, threads: Int) -> None:
    """Take all load out of the forest again, to fill it anew: ``load`` and ``rest``."""
    g = thread
    while g < s.load.shape[0]:
        load: Int = s.single[at(g)]
        j = np.int64(graph.first_at_gpu[at(g)])
        stop = np.int64(graph.first_at_gpu[at(g + 1)])
        while j < stop:
            k = np.int64(graph.edge_at_gpu[at(j)])
            if k < graph.first_child[at(graph.edge_expert[at(k)])]:
                load += s.flow[at(k)]
            j += 1
        s.load[at(g)] = load
        g += threads
    m = thread
    while m < graph.size[0]:
        rest: Int = np.int64(0)
        k = np.int64(graph.first_child[at(m)])
        stop = np.int64(graph.first_edge[at(m + 1)])
        while k < stop:
            rest += s.flow[at(k)]
            k += 1
        s.rest[at(m)] = rest
        m += threads


@kernel
def fill_level(level: Int, graph: RoundGraph, s: RoundScratch, thread: Int, threads: Int) -> None:
    """Let the experts of a level fill the GPUs below them, and leave the rest to the one above.

    A GPU hangs from one expert only, so no other thread fills it.
    """
    m = np.int64(graph.level_start[at(level)]) + thread
    stop = np.int64(graph.level_start[at(level + 1)])
    while m < stop:
        rest: Int = s.rest[at(m)]
        k = np.int64(graph.first_child[at(m)])
        upwards = np.int64(graph.first_edge[at(m + 1)]) - 1
        while k < upwards:
            g = np.int64(graph.edge_gpu[at(k)])
            flow: Int = s.cap[at(g)] - s.load[at(g)] - load_from_below(g, graph, s)
            if flow < 0:
                flow = np.int64(0)
            if flow > rest:
                flow = rest
            s.flow[at(k)] = flow
            rest -= flow
            k += 1
        s.flow[at(upwards)] = rest
        s.rest[at(m)] = rest
        m += threads


@kernel
def write_slots(
    graph: RoundGraph, s: RoundScratch, slot_load: Ints, thread: Int, threads: Int
) -> None:
    """Write the load of every slot."""
    slot = thread
    while slot < slot_load.shape[0]:
        source = np.int64(graph.slot_source[at(slot)])
        load: Int = s.slot_load[at(slot)]
        if source < EMPTY:
            load = s.flow[at(edge_source(source))]
        slot_load[at(slot)] = load
        slot += threads
