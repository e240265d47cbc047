"""The graph of `graph.py` in the form that a GPU's threads take: one row of int32 per layer.

The forest hangs from the middles of its trees here, which halves the number of its levels, and the
experts of a level stand side by side, the deepest level first.

Letters: L layers, E logical experts, P slots, D GPUs; for each layer at most M shared experts, K
edges and V levels of the forest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._numba.arrays import ints
from eplb_np._numba.jit import allocator, entry, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.dispatch.graph import EDGES, SHARED, SINGLE, SplitGraph
from eplb_np.maps.maps import EMPTY

SHARE_BITS = 24
"""Shares are multiples of 2**-24, so that they need no floating-point numbers."""


class RoundSizes(NamedTuple):
    """Sizes that are the same for all layers; D rounded up to a power of two is the ``room``."""

    num_gpus: Int
    num_slots: Int
    most_shared: Int
    most_edges: Int
    most_levels: Int
    room: Int
    uniform: bool  # whether all GPUs are equally fast


class RoundGraph(NamedTuple):
    """One layer. All are int32, but for the two of float64 at the end."""

    size: Ints  # [3], shared experts, edges, levels
    first_slot: Ints  # [D + 1]
    slot_source: Ints  # [P], expert of a single replica, EMPTY, or ``edge_source`` of an edge
    expert: Ints  # [M], the shared experts, deepest in the forest first
    first_edge: Ints  # [M + 1], first edge of each, then K
    first_child: Ints  # [M], first edge of each in the forest; the last one is upwards
    edge_gpu: Ints  # [K]
    edge_expert: Ints  # [K], position in `expert`
    share: Ints  # [K], expected share of the expert's load outside the forest
    first_at_gpu: Ints  # [D + 1], first entry of each GPU in the next, then K
    edge_at_gpu: Ints  # [K], edges in the order of their GPUs
    first_below: Ints  # [D], first of the experts that hang from each GPU
    end_below: Ints  # [D], end of those
    level_start: Ints  # [V + 1], first expert of each level, then M
    by_component: Ints  # [D], GPUs, component by component
    component_start: Ints  # [D], where the component that ends here starts; -1 if none ends here
    component_slowness: Doubles  # [D], 1 / speed of the component that ends here
    slowness: Doubles  # [D], time of each GPU for a unit of load


@kernel
def edge_source(k: Int) -> Int:
    """Entry of ``slot_source`` for an edge; it is its own inverse."""
    return -2 - k


@kernel
def graph_words(sizes: RoundSizes) -> Int:
    """Length of a layer's row."""
    num_gpus, num_slots, num_shared, num_edges, num_levels, _, _ = sizes
    return 6 + 6 * num_gpus + num_slots + 3 * num_shared + 4 * num_edges + num_levels + 1


@allocator
def carve_graph(words: Ints, doubles: Doubles, sizes: RoundSizes) -> RoundGraph:
    """View a layer's rows ``words`` int32 and ``doubles`` [2 D] float64 as its graph."""
    num_gpus, num_slots, num_shared, num_edges, num_levels, _, _ = sizes
    first_slot = 3
    slot_source = first_slot + num_gpus + 1
    expert = slot_source + num_slots
    first_edge = expert + num_shared
    first_child = first_edge + num_shared + 1
    edge_gpu = first_child + num_shared
    edge_expert = edge_gpu + num_edges
    share = edge_expert + num_edges
    first_at_gpu = share + num_edges
    edge_at_gpu = first_at_gpu + num_gpus + 1
    first_below = edge_at_gpu + num_edges
    end_below = first_below + num_gpus
    level_start = end_below + num_gpus
    by_component = level_start + num_levels + 1
    component_start = by_component + num_gpus
    end = component_start + num_gpus
    return RoundGraph(
        words[0:first_slot],
        words[first_slot:slot_source],
        words[slot_source:expert],
        words[expert:first_edge],
        words[first_edge:first_child],
        words[first_child:edge_gpu],
        words[edge_gpu:edge_expert],
        words[edge_expert:share],
        words[share:first_at_gpu],
        words[first_at_gpu:edge_at_gpu],
        words[edge_at_gpu:first_below],
        words[first_below:end_below],
        words[end_below:level_start],
        words[level_start:by_component],
        words[by_component:component_start],
        words[component_start:end],
        doubles[0:num_gpus],
        doubles[num_gpus : 2 * num_gpus],
    )


class RoundGraphs(NamedTuple):
    """The graphs of all layers: `carve_graph` views them."""

    sizes: RoundSizes
    words: NDArray[Any]  # [L, graph_words(sizes)] int32
    doubles: NDArray[np.float64]  # [L, 2 D]


def build_round_graphs(
    phy2log: NDArray[np.int64], first_slot: NDArray[np.int64], graph: SplitGraph
) -> RoundGraphs:
    """Turn the graphs of a plan into rows.

    ``phy2log`` [L, P] int64; ``first_slot`` [D + 1] int64, first slot of each GPU, then P.
    """
    num_gpus = len(first_slot) - 1
    sizes = RoundSizes(
        num_gpus,
        phy2log.shape[1],
        graph.expert.shape[1],
        graph.edge_slot.shape[1],
        num_gpus,  # a level of the forest has a GPU of its own
        1 << max(num_gpus - 1, 0).bit_length(),
        graph.uniform,
    )
    words = np.zeros((len(phy2log), graph_words(sizes)), np.int32)
    doubles = np.zeros((len(phy2log), 2 * num_gpus))
    doubles[:, num_gpus:] = graph.slowness
    _build_rows(phy2log, first_slot, graph, sizes, words, doubles)
    return RoundGraphs(sizes, words, doubles)


class _Scratch(NamedTuple):
    edge: Ints  # [K], place of each edge in the row
    in_forest: Ints  # [K]
    parent: Ints  # [D], GPU from which the last walk came to each
    came_by: Ints  # [D], shared expert by which it came
    level: Ints  # [D], level of each GPU's own experts
    queue: Ints  # [D], GPUs in the order of the last walk
    up: Ints  # [M], edge that leads from each expert upwards
    expert_level: Ints  # [M]
    order: Ints  # [M], experts in the order in which the walks met them
    place: Ints  # [M], place of each expert in the row
    met: Ints  # [1], number of experts in `order`


@entry
def _build_rows(
    phy2log: Ints,
    first_slot: Ints,
    graph: SplitGraph,
    sizes: RoundSizes,
    words: NDArray[Any],
    doubles: Doubles,
) -> None:
    num_shared, num_edges = graph.expert.shape[1], graph.edge_slot.shape[1]
    num_gpus = first_slot.shape[0] - 1
    s = _Scratch(
        ints(num_edges), ints(num_edges), ints(num_gpus), ints(num_gpus), ints(num_gpus),
        ints(num_gpus), ints(num_shared), ints(num_shared), ints(num_shared), ints(num_shared),
        ints(1),
    )  # fmt: skip
    for i in range(words.shape[0]):
        row = carve_graph(words[i], doubles[i], sizes)
        for g in range(num_gpus + 1):
            row.first_slot[g] = first_slot[g]
        row.size[0] = graph.size[i, SHARED]
        row.size[1] = graph.size[i, EDGES]
        for k in range(graph.size[i, EDGES]):
            m = graph.edge_expert[i, k]
            s.in_forest[k] = 1 if k >= graph.first_child[i, m] else 0
        _hang_trees(i, graph, row, s)
        _list_levels(i, graph, row, s)
        _list_edges(i, graph, row, s)
        _name_sources(i, phy2log[i], graph, row, s)


@kernel
def _walk(i: Int, start: Int, graph: SplitGraph, hang: bool, s: _Scratch) -> Int:
    """Walk a tree from a GPU, breadth first: ``s.queue``; returns the number of its GPUs.

    If ``hang``, the tree is hung from there: levels, upward edges, and experts in the order in
    which they are met.
    """
    s.queue[0] = start
    s.came_by[start] = -1
    s.level[start] = 0
    head, tail = 0, 1
    while head < tail:
        g = s.queue[head]
        head += 1
        for j in range(graph.first_at_gpu[i, g], graph.first_at_gpu[i, g + 1]):
            up = graph.edge_at_gpu[i, j]
            m = graph.edge_expert[i, up]
            if s.in_forest[up] == 0 or s.came_by[g] == m:
                continue
            if hang:
                s.up[m] = up
                s.expert_level[m] = s.level[g]
                s.order[s.met[0]] = m
                s.met[0] += 1
            for k in range(graph.first_child[i, m], graph.first_edge[i, m + 1]):
                if k != up:
                    below = graph.edge_gpu[i, k]
                    s.parent[below] = g
                    s.came_by[below] = m
                    s.level[below] = s.level[g] + 1
                    s.queue[tail] = below
                    tail += 1
    return tail


@kernel
def _hang_trees(i: Int, graph: SplitGraph, row: RoundGraph, s: _Scratch) -> None:
    """Hang every tree from the middle of its longest path."""
    s.met[0] = 0
    place: Int = 0
    for start in range(graph.component.shape[1]):
        if graph.component[i, start] != start:
            continue
        seen = _walk(i, start, graph, False, s)
        seen = _walk(i, s.queue[seen - 1], graph, False, s)
        middle = s.queue[seen - 1]  # the far end of the longest path
        for _ in range(s.level[middle] // 2):
            middle = s.parent[middle]
        seen = _walk(i, middle, graph, True, s)
        for j in range(seen):
            row.by_component[place + j] = s.queue[j]
            row.component_start[place + j] = EMPTY
            row.component_slowness[place + j] = 0.0
        row.component_start[place + seen - 1] = place
        row.component_slowness[place + seen - 1] = graph.component_slowness[i, start]
        place += seen


@kernel
def _list_levels(i: Int, graph: SplitGraph, row: RoundGraph, s: _Scratch) -> None:
    """Order the experts by level, the deepest first, and list those below each GPU."""
    num_shared = graph.size[i, SHARED]
    num_gpus = graph.component.shape[1]
    deepest: Int = -1
    for m in range(num_shared):
        deepest = max(deepest, s.expert_level[m])
    row.size[2] = deepest + 1
    for g in range(num_gpus):
        row.first_below[g] = 0
        row.end_below[g] = 0
    n: Int = 0
    for turn in range(deepest + 1):
        row.level_start[turn] = n
        for j in range(num_shared):
            m = s.order[j]
            if s.expert_level[m] == deepest - turn:
                g = graph.edge_gpu[i, s.up[m]]
                if row.end_below[g] == 0:
                    row.first_below[g] = n
                s.place[m] = n
                row.expert[n] = graph.expert[i, m]
                n += 1
                row.end_below[g] = n
    row.level_start[deepest + 1] = n


@kernel
def _list_edges(i: Int, graph: SplitGraph, row: RoundGraph, s: _Scratch) -> None:
    """List the edges of each expert: outside the forest, then downwards in it, then upwards."""
    num_shared = graph.size[i, SHARED]
    for m in range(num_shared):
        s.order[s.place[m]] = m
    n: Int = 0
    for place in range(num_shared):
        m = s.order[place]
        row.first_edge[place] = n
        for turn in range(3):
            if turn == 1:
                row.first_child[place] = n
            for k in range(graph.first_edge[i, m], graph.first_edge[i, m + 1]):
                kind = 2 if k == s.up[m] else s.in_forest[k]
                if kind == turn:
                    row.edge_gpu[n] = graph.edge_gpu[i, k]
                    row.edge_expert[n] = place
                    row.share[n] = np.int64(graph.share[i, k] * (1 << SHARE_BITS))
                    s.edge[k] = n
                    n += 1
    row.first_edge[num_shared] = n
    for g in range(graph.component.shape[1] + 1):
        row.first_at_gpu[g] = graph.first_at_gpu[i, g]
    for j in range(n):
        row.edge_at_gpu[j] = s.edge[graph.edge_at_gpu[i, j]]


@kernel
def _name_sources(i: Int, phy2log: Ints, graph: SplitGraph, row: RoundGraph, s: _Scratch) -> None:
    """Say for each slot where its load comes from."""
    for slot in range(phy2log.shape[0]):
        row.slot_source[slot] = EMPTY
    for j in range(graph.size[i, SINGLE]):
        row.slot_source[graph.single_slot[i, j]] = graph.single_expert[i, j]
    for k in range(graph.size[i, EDGES]):
        row.slot_source[graph.edge_slot[i, k]] = edge_source(s.edge[k])
