"""The best split of every sample, repaired after each move.

The split is found as in `eplb_np.dispatch.split_cpu`: shift load along shortest paths off the GPUs
that are above a bound on the time; where there is no path, the GPUs seen raise the bound. But here
the replicas move. A move changes two experts, so the flows of all others are still nearly right,
and a few paths repair them.

Letters: E logical experts, P slots, D GPUs, S samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.arrays import doubles, int_table, ints
from eplb_np._numba.jit import allocator, kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.dispatch.placement.layer import FIRST, GAINS, LOSES, REASSIGN, SECOND, Layer

ABOVE = 1e-8
"""A GPU may take longer than the bound by this share."""

BELOW = 1e-12
"""A GPU has room for more load if it is below the bound by this share."""

DUST = 1e-13
"""A flow that is not larger than this is zero. GPUs have a load of about 1."""

SOLVE_WORK = 20
"""Work of a solve without any search, in GPUs that a search visits."""


class Flows(NamedTuple):
    """The splits of all samples, twice: those of the plan, and those of a plan that is tried."""

    flow: Doubles  # [2, S, P], load of each replica, but 0 where the expert has only one
    load: Doubles  # [2, S, D], load of each GPU
    side: Ints  # [S], which of the two is the plan's
    time: Doubles  # [S], longest time of the plan's
    trial: Doubles  # [S], of the one that is tried, or a bound on it
    speed: Doubles  # [D]
    seen: Ints  # [D], number of the last search that saw the GPU
    seen_expert: Ints  # [E]
    taken_from: Ints  # [D], slot that gives load up on the path that led to the GPU
    given_to: Ints  # [D], slot that takes it
    queue: Ints  # [D], GPUs seen
    stuck: Ints  # [S, D], GPUs that raised the time last when a sample was solved
    num_stuck: Ints  # [S], their number, 0 if the bound was tight
    number: Ints  # [3], see the indices below


SEARCHES, NUM_SEEN, WORK = 0, 1, 2


@allocator
def make_flows(num_slots: Int, num_gpus: Int, num_experts: Int, num_samples: Int) -> Flows:
    """Allocate `Flows`."""
    return Flows(
        np.zeros((2, num_samples, num_slots)), np.zeros((2, num_samples, num_gpus)),
        ints(num_samples), doubles(num_samples), doubles(num_samples), doubles(num_gpus),
        np.zeros(num_gpus, np.int64), np.zeros(num_experts, np.int64), ints(num_gpus),
        ints(num_gpus), ints(num_gpus), int_table(num_samples, num_gpus), ints(num_samples),
        np.zeros(3, np.int64),
    )  # fmt: skip


@kernel
def split_evenly(flows: Flows, layer: Layer, sample: Doubles, s: Int) -> None:
    """Start the plan's split of a sample from an even one."""
    flow, load = flows.flow[flows.side[s], s], flows.load[flows.side[s], s]
    for g in range(load.shape[0]):
        load[g] = 0.0
    for slot in range(flow.shape[0]):
        e = layer.expert[slot]
        replica = sample[e, s] / layer.logcnt[e]
        flow[slot] = replica if layer.logcnt[e] > 1 else 0.0
        load[layer.gpu[slot]] += replica


@kernel
def start_trial(flows: Flows, layer: Layer, sample: Doubles, s: Int, move: Ints) -> None:
    """Take over the plan's split of a sample, with the change that a move, just made, brings."""
    side = flows.side[s]
    flow, load = flows.flow[1 - side, s], flows.load[1 - side, s]
    old_flow, old_load = flows.flow[side, s], flows.load[side, s]
    for slot in range(flow.shape[0]):
        flow[slot] = old_flow[slot]
    for g in range(load.shape[0]):
        load[g] = old_load[g]
    b, x, y = move[SECOND], move[GAINS], move[LOSES]
    h = layer.gpu[b]
    logcnt, replica = layer.logcnt, layer.replica
    if move[FIRST] != REASSIGN:
        a = move[FIRST]
        flow[a], flow[b] = flow[b], flow[a]
        moved = flow[b] if logcnt[x] > 1 else sample[x, s]
        moved -= flow[a] if logcnt[y] > 1 else sample[y, s]
        load[layer.gpu[a]] -= moved
        load[h] += moved
        return
    freed = flow[b]
    load[h] -= freed
    flow[b] = 0.0
    slot = replica[y, 0]
    if logcnt[y] == 1:
        flow[slot] = 0.0
    else:
        for j in range(1, logcnt[y]):
            if load[layer.gpu[replica[y, j]]] < load[layer.gpu[slot]]:
                slot = replica[y, j]
        flow[slot] += freed
    load[layer.gpu[slot]] += freed
    if logcnt[x] == 2:
        flow[replica[x, 0] + replica[x, 1] - b] = sample[x, s]


@kernel
def solve(flows: Flows, layer: Layer, s: Int, side: Int, bound: float, most: float) -> float:
    """Repair the split of a sample; returns its longest time, or something above ``most``.

    ``bound`` is a lower bound on the time. If it was not tight, ``flows.stuck`` lists the GPUs that
    raised it last.
    """
    load, speed = flows.load[side, s], flows.speed
    flows.num_stuck[s] = 0
    flows.number[WORK] += SOLVE_WORK
    time = bound
    for g in range(load.shape[0]):
        while load[g] > time * speed[g] * (1.0 + ABOVE):
            if _relieve(flows, layer, s, side, g, time):
                continue
            time = _raise(flows, s, load, time)
            if time > most:
                return time
    return time


@kernel
def _raise(flows: Flows, s: Int, load: Doubles, time: float) -> float:
    """Raise the time to what the GPUs of the last search need, and note them."""
    needed = 0.0
    speed = 0.0
    for j in range(flows.number[NUM_SEEN]):
        g = flows.queue[j]
        flows.stuck[s, j] = g
        needed += load[g]
        speed += flows.speed[g]
    flows.num_stuck[s] = flows.number[NUM_SEEN]
    # Rounding must not leave the time as it is, which would be an endless loop.
    return max(needed / speed, time * (1.0 + BELOW))


@kernel
def _relieve(flows: Flows, layer: Layer, s: Int, side: Int, start: Int, time: float) -> bool:
    """Shift load from a GPU above the time along a shortest path to one below it, if there is one.

    If not, the GPUs that can be reached are in ``flows.queue``.
    """
    flow, load, speed = flows.flow[side, s], flows.load[side, s], flows.speed
    seen, queue = flows.seen, flows.queue
    flows.number[SEARCHES] += 1
    search = flows.number[SEARCHES]
    seen[start] = search
    queue[0] = start
    head, tail = 0, 1
    while head < tail:
        g = queue[head]
        head += 1
        flows.number[WORK] += 1
        for source in range(layer.first[g], layer.first[g + 1]):
            if not flow[source] > DUST:
                continue
            e = layer.expert[source]
            if flows.seen_expert[e] == search:
                continue
            flows.seen_expert[e] = search
            for j in range(layer.logcnt[e]):
                slot = layer.replica[e, j]
                target = layer.gpu[slot]
                if seen[target] == search:
                    continue
                seen[target] = search
                flows.taken_from[target] = source
                flows.given_to[target] = slot
                room = time * speed[target] - load[target]
                if room > time * speed[target] * BELOW:
                    _shift(flows, layer, flow, load, start, target, time, room)
                    return True
                queue[tail] = target
                tail += 1
    flows.number[NUM_SEEN] = tail
    return False


@kernel
def _shift(
    flows: Flows, layer: Layer, flow: Doubles, load: Doubles, start: Int, target: Int,
    time: float, room: float,
) -> None:  # fmt: skip
    """Shift what both ends and the path of the last search allow."""
    taken_from, given_to = flows.taken_from, flows.given_to
    amount = min(load[start] - time * flows.speed[start], room)
    g = target
    while g != start:
        amount = min(amount, flow[taken_from[g]])
        g = layer.gpu[taken_from[g]]
    g = target
    while g != start:
        flow[taken_from[g]] -= amount
        flow[given_to[g]] += amount
        g = layer.gpu[taken_from[g]]
    load[start] -= amount
    load[target] += amount
