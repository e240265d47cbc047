"""The rounds of the split that `cuda_steps` starts: searches and pushes. Letters as there."""

from __future__ import annotations

import numpy as np

from eplb_np._numba.indexing import at
from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int
from eplb_np.dispatch.cuda_graph import RoundGraph, RoundSizes
from eplb_np.dispatch.cuda_steps import RoundScratch, gpu_load

FAR = 1 << 30
"""Instead of a distance: not reached."""

MOST_ROUNDS = 1 << 10
"""Rounds after which a split stays as it is, so that a kernel ends whatever its memory holds."""


@kernel
def start_round(graph: RoundGraph, s: RoundScratch, thread: Int, threads: Int) -> bool:
    """Sum the loads, and start the search from the GPUs below their cap.

    Returns whether one of the thread's GPUs is above.
    """
    above = False
    g = thread
    while g < s.load.shape[0]:
        load = gpu_load(g, graph, s)
        room: Int = s.cap[at(g)] - load
        distance: Int = np.int64(0)
        if room <= 0:
            above = above or bool(room < 0)
            room = np.int64(0)
            distance = np.int64(FAR)
        s.load[at(g)] = load
        s.room[at(g)] = room
        s.distance[at(g)] = distance
        g += threads
    m = thread
    while m < graph.size[0]:
        s.expert_distance[at(m)] = FAR
        m += threads
    return above


@kernel
def reach_experts(
    level: Int, graph: RoundGraph, s: RoundScratch, thread: Int, threads: Int
) -> bool:
    """Reach the experts with a replica on a GPU of this level.

    Returns whether one of the thread's GPUs is above its cap and not reached.
    """
    m = thread
    while m < graph.size[0]:
        if s.expert_distance[at(m)] == FAR:
            room: Int = np.int64(0)
            k = np.int64(graph.first_edge[at(m)])
            stop = np.int64(graph.first_edge[at(m + 1)])
            while k < stop:
                target = np.int64(graph.edge_gpu[at(k)])
                if s.distance[at(target)] == level:
                    room += s.room[at(target)]
                k += 1
            if room > 0:
                s.expert_room[at(m)] = room
                s.expert_distance[at(m)] = level
        m += threads
    missing = False
    g = thread
    while g < s.load.shape[0]:
        missing = missing or bool(s.distance[at(g)] == FAR and s.load[at(g)] > s.cap[at(g)])
        g += threads
    return missing


@kernel
def reach_gpus(level: Int, graph: RoundGraph, s: RoundScratch, thread: Int, threads: Int) -> bool:
    """Reach the GPUs with load of an expert of this level; returns whether there is one."""
    reached = False
    g = thread
    while g < s.load.shape[0]:
        if s.distance[at(g)] == FAR:
            room: Int = np.int64(0)
            j = np.int64(graph.first_at_gpu[at(g)])
            stop = np.int64(graph.first_at_gpu[at(g + 1)])
            while j < stop:
                k = np.int64(graph.edge_at_gpu[at(j)])
                m = np.int64(graph.edge_expert[at(k)])
                if s.expert_distance[at(m)] == level:
                    flow = s.flow[at(k)]
                    most = s.expert_room[at(m)]
                    room += flow if flow < most else most
                j += 1
            if room > 0:
                s.room[at(g)] = room
                s.distance[at(g)] = level + 1
                reached = True
        g += threads
    return reached


@kernel
def give_up(level: Int, graph: RoundGraph, s: RoundScratch, thread: Int, threads: Int) -> None:
    """Let the GPUs of a level give what they have above their cap to experts one level down."""
    g = thread
    while g < s.load.shape[0]:
        if s.distance[at(g)] == level:
            above: Int = gpu_load(g, graph, s) - s.cap[at(g)]
            j = np.int64(graph.first_at_gpu[at(g)])
            stop = np.int64(graph.first_at_gpu[at(g + 1)])
            while j < stop:
                k = np.int64(graph.edge_at_gpu[at(j)])
                m = np.int64(graph.edge_expert[at(k)])
                amount: Int = np.int64(0)
                if above > 0 and s.expert_distance[at(m)] == level - 1:
                    flow = s.flow[at(k)]
                    amount = s.expert_room[at(m)]
                    amount = amount if amount < flow else flow
                    amount = amount if amount < above else above
                    s.flow[at(k)] = flow - amount
                    above -= amount
                s.given[at(k)] = amount
                j += 1
        g += threads


@kernel
def pass_on(level: Int, graph: RoundGraph, s: RoundScratch, thread: Int, threads: Int) -> None:
    """Let the experts of a level pass what they were given to their GPUs of this level."""
    m = thread
    while m < graph.size[0]:
        if s.expert_distance[at(m)] == level:
            first = np.int64(graph.first_edge[at(m)])
            stop = np.int64(graph.first_edge[at(m + 1)])
            amount: Int = np.int64(0)
            k = first
            while k < stop:
                if s.distance[at(graph.edge_gpu[at(k)])] == level + 1:
                    amount += s.given[at(k)]
                k += 1
            last = first
            k = first
            while k < stop and amount > 0:
                g = np.int64(graph.edge_gpu[at(k)])
                if s.distance[at(g)] == level:
                    room = s.room[at(g)]
                    part = room if room < amount else amount
                    s.flow[at(k)] += part
                    amount -= part
                    last = k
                k += 1
            s.flow[at(last)] += amount  # more than there was room for: for the next round
        m += threads


@kernel
def list_unreached(
    sizes: RoundSizes, graph: RoundGraph, s: RoundScratch, thread: Int, threads: Int
) -> None:
    """Write the load, the speed and the least higher time of the GPUs not reached."""
    room = sizes.room
    g = thread
    while g < room:
        s.time[at(g)] = 0.0
        s.time[at(room + g)] = 0.0
        s.time[at(2 * room + g)] = np.inf
        if g < sizes.num_gpus and s.distance[at(g)] == FAR:
            slowness = graph.slowness[at(g)]
            s.time[at(g)] = np.float64(s.load[at(g)])
            s.time[at(room + g)] = 1.0 / slowness
            s.time[at(2 * room + g)] = np.float64(s.cap[at(g)] + 1) * slowness
        g += threads


@kernel
def needed_step(half: Int, sizes: RoundSizes, s: RoundScratch, thread: Int, threads: Int) -> None:
    """Fold the three lists of `list_unreached` to ``half``, by two sums and a minimum."""
    room = sizes.room
    i = thread
    while i < half:
        s.time[at(i)] += s.time[at(i + half)]
        s.time[at(room + i)] += s.time[at(room + i + half)]
        other = s.time[at(2 * room + i + half)]
        if other < s.time[at(2 * room + i)]:
            s.time[at(2 * room + i)] = other
        i += threads


@kernel
def needed_time(sizes: RoundSizes, s: RoundScratch) -> float:
    """Time that the GPUs not reached need at least: they have more load than their caps allow."""
    time = float(s.time[0] / s.time[at(sizes.room)])
    higher = float(s.time[at(2 * sizes.room)])
    return higher if higher > time else time
