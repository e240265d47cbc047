"""The slow twin of the split in rounds and of ``assign``, in plain Python.

It takes the replicas of one layer as a list of `Edge`, and does what
``eplb_np/dispatch/cuda_steps.py`` describes, with dictionaries and loops. All that happens between
two barriers there reads what was before, and is written here as such.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

FAR = 1 << 30


class Edge(NamedTuple):
    """A replica of an expert that has several."""

    slot: int
    gpu: int
    expert: int
    in_forest: bool
    share: float  # of the expert's expected load


class Layer(NamedTuple):
    single: list[tuple[int, int, int]]  # slot, GPU and expert of each expert with one replica
    edges: list[Edge]  # those of an expert side by side
    at_gpu: list[list[int]]  # the edges of each GPU, in the order in which it gives load up
    component: list[int]  # lowest GPU of each GPU's component
    slowness: list[float]
    num_slots: int


def layer_of_graph(graph, i, num_slots):
    """Write a layer of a ``SplitGraph`` as a `Layer`."""
    num_single, num_shared, num_edges, _ = graph.size[i]
    edges = []
    for m in range(num_shared):
        for k in range(graph.first_edge[i, m], graph.first_edge[i, m + 1]):
            in_forest = k >= graph.first_child[i, m]
            slot, gpu = int(graph.edge_slot[i, k]), int(graph.edge_gpu[i, k])
            expert = int(graph.expert[i, m])
            edges.append(Edge(slot, gpu, expert, bool(in_forest), float(graph.share[i, k])))
    assert len(edges) == num_edges
    first = graph.first_at_gpu[i]
    num_gpus = len(first) - 1
    return Layer(
        [
            (int(graph.single_slot[i, j]), int(graph.single_gpu[i, j]), int(expert))
            for j, expert in enumerate(graph.single_expert[i, :num_single])
        ],
        edges,
        [[int(k) for k in graph.edge_at_gpu[i, first[g] : first[g + 1]]] for g in range(num_gpus)],
        [int(c) for c in graph.component[i]],
        [float(s) for s in graph.slowness],
        num_slots,
    )


def walk(layer, of_expert, start):
    """GPUs of a tree from one of them on, their parents and levels, and each expert's way up."""
    parent, came_by, level, up = {start: None}, {start: None}, {start: 0}, {}
    queue = [start]
    for g in queue:
        for k in layer.at_gpu[g]:
            m = layer.edges[k].expert
            if not layer.edges[k].in_forest or m == came_by[g]:
                continue
            up[m] = k
            for other in of_expert[m]:
                below = layer.edges[other].gpu
                if layer.edges[other].in_forest and other != k:
                    parent[below], came_by[below], level[below] = g, m, level[g] + 1
                    queue.append(below)
    return queue, parent, level, up


def hang_forest(layer, of_expert):
    """Level and way up of each expert, every tree hung from the middle of its longest path."""
    expert_level, ways = {}, {}
    for start in sorted(set(layer.component)):
        one_end = walk(layer, of_expert, start)[0][-1]
        queue, parent, level, _ = walk(layer, of_expert, one_end)
        middle = queue[-1]
        for _ in range(level[queue[-1]] // 2):
            middle = parent[middle]
        _, _, level, up = walk(layer, of_expert, middle)
        ways |= up
        expert_level |= {m: level[layer.edges[k].gpu] for m, k in up.items()}
    return expert_level, ways


def folded(values):
    """Sum of floats, halves added to halves, after zeros up to a power of two."""
    size = 1
    while size < len(values):
        size *= 2
    values = values + [0.0] * (size - len(values))
    while size > 1:
        size //= 2
        values = [values[j] + values[j + size] for j in range(size)]
    return values[0]


def most_load(time, slowness, uniform):
    most = int(time / slowness)
    if uniform:
        return most + (most < time)
    if (most + 1) * slowness <= time:
        return most + 1
    return most - (most * slowness > time)


def split_layer(layer, component_slowness, counts, most_rounds=1 << 10):
    """Load of each slot; ``component_slowness`` [D], that of the component of each lowest GPU."""
    gpus = range(len(layer.slowness))
    edges = range(len(layer.edges))
    gpu_of = [edge.gpu for edge in layer.edges]
    expert_of = [edge.expert for edge in layer.edges]
    uniform = all(s == 1.0 for s in layer.slowness)
    of_expert = defaultdict(list)
    for k in edges:
        of_expert[expert_of[k]].append(k)
    expert_level, way_up = hang_forest(layer, of_expert)
    order = {  # of an expert's edges: outside the forest, downwards, upwards
        m: sorted(ks, key=lambda k: (layer.edges[k].in_forest + (k == way_up[m]), k))
        for m, ks in of_expert.items()
    }

    single = [sum(int(counts[e]) for _, gpu, e in layer.single if gpu == g) for g in gpus]
    flow = [0] * len(layer.edges)
    for k in edges:
        if not layer.edges[k].in_forest:
            share = int(layer.edges[k].share * (1 << 24))
            flow[k] = (share * int(counts[expert_of[k]])) >> 24
    for m, ks in of_expert.items():
        flow[way_up[m]] = int(counts[m]) - sum(flow[k] for k in ks)

    def load_of(g):
        return single[g] + sum(flow[k] for k in layer.at_gpu[g])

    def fill_forest():
        load = [load_of(g) for g in gpus]
        for k in edges:
            load[gpu_of[k]] -= flow[k] if layer.edges[k].in_forest else 0
        for m in sorted(of_expert, key=lambda m: -expert_level[m]):
            rest = sum(flow[k] for k in of_expert[m] if layer.edges[k].in_forest)
            for k in order[m]:
                if layer.edges[k].in_forest and k != way_up[m]:
                    flow[k] = min(rest, max(cap[gpu_of[k]] - load[gpu_of[k]], 0))
                    rest -= flow[k]
                    load[gpu_of[k]] += flow[k]
            flow[way_up[m]] = rest
            load[gpu_of[way_up[m]]] += rest

    def caps(time):
        return [most_load(time, slowness, uniform) for slowness in layer.slowness]

    times = [single[g] * layer.slowness[g] for g in gpus]
    for c in set(layer.component):
        whole = sum(load_of(g) for g in gpus if layer.component[g] == c)
        times.append(float(whole) * component_slowness[c])
    cap = caps(max(times))
    fill_forest()

    for _ in range(most_rounds):
        load = [load_of(g) for g in gpus]
        if all(load[g] <= cap[g] for g in gpus):
            break
        room = [max(cap[g] - load[g], 0) for g in gpus]
        distance = [0 if room[g] > 0 else FAR for g in gpus]
        far, expert_room = dict.fromkeys(of_expert, FAR), {}
        level = 0
        while True:
            for m, ks in of_expert.items():
                found = sum(room[gpu_of[k]] for k in ks if distance[gpu_of[k]] == level)
                if far[m] == FAR and found > 0:
                    far[m], expert_room[m] = level, found
            if all(distance[g] != FAR for g in gpus if load[g] > cap[g]):
                break
            reached = False
            for g in gpus:
                ways = [k for k in layer.at_gpu[g] if far[expert_of[k]] == level]
                found = sum(min(flow[k], expert_room[expert_of[k]]) for k in ways)
                if distance[g] == FAR and found > 0:
                    distance[g], room[g], reached = level + 1, found, True
            if not reached:
                left = [distance[g] == FAR for g in gpus]
                needed = folded([float(load[g]) if left[g] else 0.0 for g in gpus])
                speed = folded([1.0 / layer.slowness[g] if left[g] else 0.0 for g in gpus])
                higher = min(float(cap[g] + 1) * layer.slowness[g] for g in gpus if left[g])
                cap = caps(max(needed / speed, higher))
                fill_forest()
                level = 0
                break
            level += 1
        while level > 0:
            given = [0] * len(layer.edges)
            for g in gpus:
                above = load_of(g) - cap[g]
                for k in layer.at_gpu[g] if distance[g] == level else []:
                    if above > 0 and far[expert_of[k]] == level - 1:
                        given[k] = min(above, flow[k], expert_room[expert_of[k]])
                        flow[k] -= given[k]
                        above -= given[k]
            level -= 1
            for m, ks in of_expert.items():
                amount = sum(given[k] for k in ks)
                last = None
                for k in order[m] if amount > 0 else []:
                    if far[m] == level == distance[gpu_of[k]] and amount > 0:
                        part = min(amount, room[gpu_of[k]])
                        flow[k] += part
                        amount -= part
                        last = k
                if amount > 0:
                    flow[last] += amount

    slot_load = np.zeros(layer.num_slots, np.int64)
    for slot, _, e in layer.single:
        slot_load[slot] = counts[e]
    for k in edges:
        slot_load[layer.edges[k].slot] = flow[k]
    return slot_load


def assign(topk_ids, quotas, log2phy):
    """Slots of the ids [T, k] of one rank: row by row, each slot up to its quota, in order."""
    num_experts = len(log2phy)
    seen = [0] * num_experts
    slots = np.full_like(topk_ids, -1)
    for t, row in enumerate(topk_ids):
        for i, e in enumerate(row):
            if not 0 <= e < num_experts:
                continue
            n = seen[e]
            seen[e] += 1
            for slot in log2phy[e]:
                if slot < 0:
                    break
                slots[t, i] = slot
                if n < quotas[slot]:
                    break
                n -= max(quotas[slot], 0)
    return slots
