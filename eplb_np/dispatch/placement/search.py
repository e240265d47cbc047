"""Hill climbing: a move is made if it lowers the sum of the samples' times.

Letters: E logical experts, P slots, D GPUs, S samples, K sets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.dispatch.placement.cuts import (
    FLOORS,
    NEXT,
    SETS,
    Cuts,
    add_set,
    bound_move,
    follow_move,
)
from eplb_np.dispatch.placement.flows import WORK, Flows, solve, split_evenly, start_trial
from eplb_np.dispatch.placement.layer import MOST, Layer, make_move, undo_move
from eplb_np.dispatch.placement.moves import propose
from eplb_np.dispatch.placement.parts import Parts

LEAST_GAIN = 1e-7
"""A move must lower the mean time by this much."""

PERFECT = 1e-5
"""The search ends when the mean time is this close to its floor."""

PROPOSAL_WORK = 20
"""Work of a move that is refused without a solve, in GPUs that a search visits."""

ANY_NODE = -1
"""Instead of a node."""


class Search(NamedTuple):
    """All that the search of a layer works on."""

    layer: Layer
    sample: Doubles  # [E, S], the loads that are drawn
    flows: Flows
    cuts: Cuts
    parts: Parts
    excess: Doubles  # [S], time of each sample above its floor
    solved: Ints  # [S], whether a sample is solved for the move that is tried
    member: Ints  # [D], scratch
    state: Ints  # [1], of the generator
    move: Ints  # [MOVE_SIZE], the move that is tried
    last: Ints  # [1], the sample that was solved last
    saved: Ints  # [P], a plan to go back to


@kernel
def start_search(search: Search) -> float:
    """Split all samples of a new layer, or of new samples; returns the sum of their times."""
    layer, flows, cuts = search.layer, search.flows, search.cuts
    num_gpus = cuts.gpu_key.shape[0]
    cuts.number[SETS] = 0
    cuts.number[FLOORS] = num_gpus
    num_samples = search.sample.shape[1]
    for s in range(num_samples):
        cuts.binding[s] = 0
        flows.side[s] = 0
    for g in range(num_gpus):
        flows.speed[g] = 1.0 / layer.slowness[g]
    joined = layer.bridges[MOST] > 0
    if joined:  # bridges take load off nodes: only all GPUs together are a floor
        _add_gpus(search, ANY_NODE)
        _end_floors(cuts)
    for n in range(num_gpus):
        _add_gpus(search, n)
    if not joined:
        _end_floors(cuts)
    total = 0.0
    for s in range(num_samples):
        split_evenly(flows, layer, search.sample, s)
        bound = cuts.time[cuts.binding[s], s]
        flows.time[s] = solve(flows, layer, s, flows.side[s], bound, 1e300)
        _keep_stuck(search, s)
        total += flows.time[s]
    _set_excess(search)
    return total


@kernel
def _add_gpus(search: Search, node: Int) -> None:
    """Keep the set of a node's GPUs that have slots, or that of all."""
    layer = search.layer
    size = 0
    for g in range(layer.node.shape[0]):
        if (node == ANY_NODE or layer.node[g] == node) and layer.first[g] < layer.first[g + 1]:
            search.member[size] = g
            size += 1
    if size > 0:
        add_set(search.cuts, layer, search.sample, search.member, size)


@kernel
def _end_floors(cuts: Cuts) -> None:
    """Let the sets so far be the floors."""
    cuts.number[FLOORS] = cuts.number[SETS]
    cuts.number[NEXT] = cuts.number[SETS]


@kernel
def climb(search: Search, total: float, work: Int) -> float:
    """Make moves until the work is done or nothing is left to gain; returns the sum of times."""
    num_samples = search.sample.shape[1]
    least_gain = LEAST_GAIN * num_samples
    while work > 0 and sum_of(search.excess) > PERFECT * num_samples:
        work -= PROPOSAL_WORK
        if not propose(search.layer, search.cuts, search.excess, search.state, search.move):
            continue
        done = search.flows.number[WORK]
        total = min(total, try_move(search, total - least_gain))
        work -= search.flows.number[WORK] - done
    return total


@kernel
def try_move(search: Search, most: float) -> float:
    """Make the move proposed if the sum of the samples' times is below ``most`` then.

    Returns that sum, or infinity if the move is not made.
    """
    bound = bound_move(search.cuts, search.layer, search.sample, search.move, search.flows.trial)
    if bound >= most:
        return np.inf
    make_move(search.layer, search.move)
    total = _solve_all(search, bound, most)
    undo_move(search.layer, search.move)
    if total < most:
        _accept(search)
        return total
    _keep_stuck(search, search.last[0])
    return np.inf


@kernel
def _solve_all(search: Search, bound: float, most: float) -> float:
    """Solve the samples until the sum of times cannot stay below ``most``.

    Returns the sum, in which bounds stand for samples that are not solved. ``search.last[0]`` is
    the one that was solved last. Those whose bounds fell most come first: what they promise is the
    least certain.
    """
    flows, solved = search.flows, search.solved
    num_samples = solved.shape[0]
    total = bound
    for s in range(num_samples):
        solved[s] = 0
    for _ in range(num_samples):
        s = -1
        promise = -np.inf
        for i in range(num_samples):
            if solved[i] == 0 and flows.time[i] - flows.trial[i] > promise:
                s = i
                promise = flows.time[i] - flows.trial[i]
        solved[s] = 1
        start_trial(flows, search.layer, search.sample, s, search.move)
        others = total - flows.trial[s]
        flows.trial[s] = solve(
            flows, search.layer, s, 1 - flows.side[s], flows.trial[s], most - others
        )
        total = others + flows.trial[s]
        if total >= most:
            search.last[0] = s
            break
    return total


@kernel
def _accept(search: Search) -> None:
    """Make the move, all samples of which are solved."""
    flows = search.flows
    follow_move(search.cuts, search.layer, search.sample, search.move)
    make_move(search.layer, search.move)
    for s in range(flows.side.shape[0]):
        flows.side[s] = 1 - flows.side[s]
        flows.time[s] = flows.trial[s]
        _keep_stuck(search, s)
    _set_excess(search)


@kernel
def _keep_stuck(search: Search, s: Int) -> None:
    """Keep the set that raised the time of a sample when it was solved last."""
    flows = search.flows
    if flows.num_stuck[s] > 0:
        add_set(search.cuts, search.layer, search.sample, flows.stuck[s], flows.num_stuck[s])


@kernel
def _set_excess(search: Search) -> None:
    cuts = search.cuts
    for s in range(search.excess.shape[0]):
        floor = 0.0
        for k in range(cuts.number[FLOORS]):
            floor = max(floor, cuts.time[k, s])
        search.excess[s] = search.flows.time[s] - floor


@kernel
def sum_of(values: Doubles) -> float:
    """Add up the entries."""
    total = 0.0
    for i in range(values.shape[0]):
        total += values[i]
    return total
