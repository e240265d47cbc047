"""The graph that a split moves load in: experts and GPUs, joined by replicas.

An expert with one replica has no choice: its load is fixed. The others, *shared* experts, are
nodes of a bipartite graph with the GPUs, and each of their replicas is an edge. Load moves along
paths of that graph, from a GPU over an expert to another GPU.

The graph also holds a spanning forest: the heaviest one, weighted by the load that each replica is
expected to take. A split starts by filling it from the leaves up (see `split_cpu`).

Letters: L layers, E logical experts, P slots, D GPUs; for each layer at most M shared experts and
K edges.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._numba.arrays import ints
from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.topology import Gpus


class SplitGraph(NamedTuple):
    """The graphs of all layers. Rows are padded to the longest."""

    size: NDArray[np.int64]  # [L, 4], single replicas, shared experts, edges, empty slots

    single_slot: NDArray[np.int64]  # [L, P], slots of single replicas; empty slots from the end on
    single_expert: NDArray[np.int64]  # [L, P], those experts
    single_gpu: NDArray[np.int64]  # [L, P], their GPUs

    expert: NDArray[np.int64]  # [L, M], the shared experts, in the order in which they are filled
    first_edge: NDArray[np.int64]  # [L, M + 1], first edge of each, then K
    first_child: NDArray[np.int64]  # [L, M], first edge of each in the forest; the last is upwards
    edge_slot: NDArray[np.int64]  # [L, K]
    edge_gpu: NDArray[np.int64]  # [L, K]
    edge_expert: NDArray[np.int64]  # [L, K], position in `expert`
    share: NDArray[np.float64]  # [L, K], expected share of the expert's load

    first_at_gpu: NDArray[np.int64]  # [L, D + 1], first entry of each GPU in the next, then K
    edge_at_gpu: NDArray[np.int64]  # [L, K], edges in the order of their GPUs

    component: NDArray[np.int64]  # [L, D], lowest GPU of each GPU's connected component
    component_slowness: NDArray[np.float64]  # [L, D], 1 / speed of that GPU's component, or 0
    expert_component: NDArray[np.int64]  # [L, M], lowest GPU of each shared expert's component
    slowness: NDArray[np.float64]  # [D], time of each GPU for a unit of load
    uniform: bool  # whether that is 1 for all


SINGLE, SHARED, EDGES, EMPTY_SLOTS = 0, 1, 2, 3
"""Columns of ``SplitGraph.size``."""


def build_graph(
    phy2log: NDArray[np.int64],
    logcnt: NDArray[np.int64],
    gpus: Gpus,
    slot_load: NDArray[np.float64],
) -> SplitGraph:
    """Build the graphs of a plan.

    ``phy2log`` [L, P] int64, ``logcnt`` [L, E] int64; ``slot_load`` [L, P] float64 is the load
    that each slot is expected to take.
    """
    num_layers, num_slots = phy2log.shape
    num_gpus = len(gpus.size)
    shared = logcnt >= 2
    most_shared = int(shared.sum(axis=1).max())
    most_edges = int((logcnt * shared).sum(axis=1).max())

    def table(width: int) -> NDArray[np.int64]:
        return np.zeros((num_layers, width), np.int64)

    graph = SplitGraph(
        size=table(4),
        single_slot=table(num_slots),
        single_expert=table(num_slots),
        single_gpu=table(num_slots),
        expert=table(most_shared),
        first_edge=table(most_shared + 1),
        first_child=table(most_shared),
        edge_slot=table(most_edges),
        edge_gpu=table(most_edges),
        edge_expert=table(most_edges),
        share=np.zeros((num_layers, most_edges)),
        first_at_gpu=table(num_gpus + 1),
        edge_at_gpu=table(most_edges),
        component=table(num_gpus),
        component_slowness=np.zeros((num_layers, num_gpus)),
        expert_component=table(most_shared),
        slowness=gpus.slowness,
        uniform=bool((gpus.slowness == 1.0).all()),
    )
    heaviest_first = np.argsort(-slot_load, axis=1, kind="stable")
    _build_layers(phy2log, logcnt, gpus, slot_load, heaviest_first, graph)
    return graph


class _Scratch(NamedTuple):
    gpu: Ints  # [P], GPU of each slot
    first: Ints  # [E + 1], first entry of each expert in the next
    slot: Ints  # [P], slots in the order of their experts
    root: Ints  # [E + D], union-find
    in_forest: Ints  # [P]
    seen: Ints  # [E + D]
    queue: Ints  # [D], GPUs
    order: Ints  # [E], shared experts from the roots of the forest down
    upwards: Ints  # [E], slot that leads from each expert to the root


@entry
def _build_layers(
    phy2log: Ints,
    logcnt: Ints,
    gpus: Gpus,
    slot_load: Doubles,
    heaviest_first: Ints,
    graph: SplitGraph,
) -> None:
    num_layers, num_slots = phy2log.shape
    num_experts = logcnt.shape[1]
    num_gpus = gpus.size.shape[0]
    scratch = _Scratch(
        ints(num_slots), ints(num_experts + 1), ints(num_slots), ints(num_experts + num_gpus),
        ints(num_slots), ints(num_experts + num_gpus), ints(num_gpus), ints(num_experts),
        ints(num_experts),
    )  # fmt: skip
    for g in range(num_gpus):
        for slot in range(gpus.first_slot[g], gpus.first_slot[g + 1]):
            scratch.gpu[slot] = g
    for i in range(num_layers):
        _list_slots(phy2log[i], logcnt[i], scratch)
        _list_singles(i, phy2log[i], logcnt[i], gpus, graph)
        _span_forest(phy2log[i], logcnt[i], heaviest_first[i], scratch)
        num_shared = _order_experts(i, phy2log[i], logcnt[i], gpus, scratch, graph)
        _list_edges(i, num_shared, slot_load[i], scratch, graph)
        _list_edges_at_gpus(i, graph)


@kernel
def _list_slots(phy2log: Ints, logcnt: Ints, scratch: _Scratch) -> None:
    """List the slots of every expert, ascending."""
    num_experts = logcnt.shape[0]
    first = scratch.first
    first[0] = 0
    for e in range(num_experts):
        first[e + 1] = first[e]
        if e > 0:
            first[e + 1] += logcnt[e - 1]
    for slot in range(phy2log.shape[0]):
        e = phy2log[slot]
        if e >= 0:
            scratch.slot[first[e + 1]] = slot
            first[e + 1] += 1


@kernel
def _list_singles(i: Int, phy2log: Ints, logcnt: Ints, gpus: Gpus, graph: SplitGraph) -> None:
    """List single replicas: the first slots of all GPUs, then the second, and so on.

    So neighbours in the list are on different GPUs, and adding up their loads need not wait.
    """
    num_gpus = gpus.size.shape[0]
    most = 0
    for g in range(num_gpus):
        most = max(most, gpus.size[g])
    n = 0
    for r in range(most):
        for g in range(num_gpus):
            if r < gpus.size[g]:
                slot = gpus.first_slot[g] + r
                e = phy2log[slot]
                if e < 0:
                    continue
                if logcnt[e] == 1:
                    graph.single_slot[i, n] = slot
                    graph.single_expert[i, n] = e
                    graph.single_gpu[i, n] = g
                    n += 1
    graph.size[i, SINGLE] = n
    num_slots = phy2log.shape[0]
    n = 0
    for slot in range(num_slots):
        if phy2log[slot] < 0:
            n += 1
            graph.single_slot[i, num_slots - n] = slot
    graph.size[i, EMPTY_SLOTS] = n


@kernel
def _span_forest(phy2log: Ints, logcnt: Ints, heaviest_first: Ints, scratch: _Scratch) -> None:
    """Mark the slots of the heaviest spanning forest (Kruskal, with path halving)."""
    num_experts = logcnt.shape[0]
    root = scratch.root
    for node in range(root.shape[0]):
        root[node] = node
    for j in range(phy2log.shape[0]):
        slot = heaviest_first[j]
        scratch.in_forest[slot] = 0
        e = phy2log[slot]
        if e < 0 or logcnt[e] < 2:
            continue
        a, b = e, num_experts + scratch.gpu[slot]
        while root[a] != a:
            root[a] = root[root[a]]
            a = root[a]
        while root[b] != b:
            root[b] = root[root[b]]
            b = root[b]
        if a != b:
            root[a] = b
            scratch.in_forest[slot] = 1


@kernel
def _order_experts(
    i: Int, phy2log: Ints, logcnt: Ints, gpus: Gpus, scratch: _Scratch, graph: SplitGraph
) -> Int:
    """Walk each tree of the forest from its lowest GPU; returns the number of shared experts."""
    num_experts = logcnt.shape[0]
    num_gpus = gpus.size.shape[0]
    seen, queue = scratch.seen, scratch.queue
    for node in range(num_experts + num_gpus):
        seen[node] = 0
    n: Int = 0
    for start in range(num_gpus):
        if seen[num_experts + start] == 1:
            continue
        seen[num_experts + start] = 1
        queue[0] = start
        head, tail = 0, 1
        speed = 0.0
        while head < tail:
            g = queue[head]
            head += 1
            graph.component[i, g] = start
            speed += 1.0 / gpus.slowness[g]
            for up in range(gpus.first_slot[g], gpus.first_slot[g] + gpus.size[g]):
                e = phy2log[up]
                if scratch.in_forest[up] == 0 or seen[e] == 1:
                    continue
                seen[e] = 1
                scratch.order[n] = e
                scratch.upwards[n] = up
                n += 1
                for j in range(scratch.first[e], scratch.first[e + 1]):
                    slot = scratch.slot[j]
                    below = scratch.gpu[slot]
                    if scratch.in_forest[slot] == 1 and seen[num_experts + below] == 0:
                        seen[num_experts + below] = 1
                        queue[tail] = below
                        tail += 1
        graph.component_slowness[i, start] = 1.0 / speed
    return n


@kernel
def _list_edges(
    i: Int, num_shared: Int, slot_load: Doubles, scratch: _Scratch, graph: SplitGraph
) -> None:
    """List the edges of each expert: outside the forest, then downwards in it, then upwards."""
    k = 0
    for m in range(num_shared):
        e = scratch.order[num_shared - 1 - m]
        up = scratch.upwards[num_shared - 1 - m]
        expected = 0.0
        for j in range(scratch.first[e], scratch.first[e + 1]):
            expected += slot_load[scratch.slot[j]]
        graph.expert[i, m] = e
        graph.expert_component[i, m] = graph.component[i, scratch.gpu[up]]
        graph.first_edge[i, m] = k
        for turn in range(3):
            if turn == 1:
                graph.first_child[i, m] = k
            for j in range(scratch.first[e], scratch.first[e + 1]):
                slot = scratch.slot[j]
                kind = 2 if slot == up else scratch.in_forest[slot]
                if kind == turn:
                    graph.edge_slot[i, k] = slot
                    graph.edge_gpu[i, k] = scratch.gpu[slot]
                    graph.edge_expert[i, k] = m
                    graph.share[i, k] = slot_load[slot] / expected if expected > 0.0 else 0.0
                    k += 1
    graph.first_edge[i, num_shared] = k
    graph.size[i, SHARED] = num_shared
    graph.size[i, EDGES] = k


@kernel
def _list_edges_at_gpus(i: Int, graph: SplitGraph) -> None:
    num_edges = graph.size[i, EDGES]
    num_gpus = graph.component.shape[1]
    first = graph.first_at_gpu[i]
    for g in range(num_gpus + 1):
        first[g] = 0
    for k in range(num_edges):
        first[graph.edge_gpu[i, k] + 1] += 1
    for g in range(num_gpus):
        first[g + 1] += first[g]
    for k in range(num_edges - 1, -1, -1):  # first[g + 1] is the end of GPU g, and counts down
        g = graph.edge_gpu[i, k]
        first[g + 1] -= 1
        graph.edge_at_gpu[i, first[g + 1]] = k
    for g in range(num_gpus):
        first[g] = first[g + 1]
    first[num_gpus] = num_edges
