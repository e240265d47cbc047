"""Hill climbing: a move is made if it lowers the sum of the samples' times.

Letters: E logical experts, P slots, D GPUs, S samples, K sets.
"""

from __future__ import annotations

from typing import NamedTuple

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
from eplb_np.dispatch.placement.flows import Flows, solve, split_evenly, start_trial
from eplb_np.dispatch.placement.layer import Layer, make_move, undo_move
from eplb_np.dispatch.placement.moves import propose

LEAST_GAIN = 1e-7
"""A move must lower the mean time by this much."""

PERFECT = 1e-5
"""The search ends when the mean time is this close to its floor."""

SOLVE_WORK = 4
"""Work of a solve, in proposals that are refused without one."""


class Search(NamedTuple):
    """All that the search of a layer works on."""

    layer: Layer
    sample: Doubles  # [E, S]
    flows: Flows
    cuts: Cuts
    excess: Doubles  # [S], time of each sample above its floor
    member: Ints  # [D], scratch
    state: Ints  # [1], of the generator
    move: Ints  # [MOVE_SIZE]


@kernel
def start_search(search: Search, num_nodes: Int) -> float:
    """Split all samples of a new layer, or of new samples; returns the sum of their times."""
    layer, flows, cuts = search.layer, search.flows, search.cuts
    num_gpus = cuts.gpu_key.shape[0]
    node_gpus = num_gpus // num_nodes
    cuts.number[SETS] = 0
    num_samples = search.sample.shape[1]
    for s in range(num_samples):
        cuts.binding[s] = 0
        flows.order[s] = s
    for n in range(num_nodes):
        size = 0
        for g in range(n * node_gpus, (n + 1) * node_gpus):
            if layer.first[g] < layer.first[g + 1]:
                search.member[size] = g
                size += 1
        if size > 0:
            add_set(cuts, layer, search.sample, search.member, size)
    cuts.number[FLOORS] = cuts.number[SETS]
    cuts.number[NEXT] = cuts.number[SETS]
    total = 0.0
    for s in range(num_samples):
        split_evenly(flows, layer, search.sample, s)
        bound = cuts.time[cuts.binding[s], s]
        flows.time[s] = solve(flows, layer, s, flows.side[s], bound, 1e300)
        keep_stuck(search, s)
        total += flows.time[s]
    _set_excess(search)
    return total


@kernel
def climb(search: Search, total: float, work: Int) -> float:
    """Make moves until the work is done or nothing is left to gain; returns the sum of times."""
    num_samples = search.sample.shape[1]
    least_gain = LEAST_GAIN * num_samples
    while work > 0 and sum_of(search.excess) > PERFECT * num_samples:
        work -= 1
        if not propose(search.layer, search.cuts, search.excess, search.state, search.move):
            continue
        bound = bound_move(
            search.cuts, search.layer, search.sample, search.move, search.flows.trial
        )
        most = total - least_gain
        if bound >= most:
            continue
        make_move(search.layer, search.move)
        solved, tried = solve_all(search, bound, most)
        work -= SOLVE_WORK * solved
        undo_move(search.layer, search.move)
        if tried < most:
            total = tried
            accept(search)
        else:
            keep_stuck(search, search.flows.order[0])
    return total


@kernel
def solve_all(search: Search, bound: float, most: float) -> tuple[Int, float]:
    """Solve the samples until the sum of times cannot stay below ``most``.

    Returns the number of samples solved, and the sum, in which bounds stand for the rest.
    """
    flows = search.flows
    total = bound
    for i in range(flows.order.shape[0]):
        s = flows.order[i]
        start_trial(flows, search.layer, search.sample, s, search.move)
        others = total - flows.trial[s]
        time = solve(flows, search.layer, s, 1 - flows.side[s], flows.trial[s], most - others)
        flows.trial[s] = time
        total = others + time
        if total >= most:
            for j in range(i, 0, -1):
                flows.order[j] = flows.order[j - 1]
            flows.order[0] = s
            return i + 1, total
    return flows.order.shape[0], total


@kernel
def accept(search: Search) -> None:
    """Make the move, all samples of which are solved."""
    flows = search.flows
    follow_move(search.cuts, search.layer, search.sample, search.move)
    make_move(search.layer, search.move)
    for s in range(flows.order.shape[0]):
        flows.side[s] = 1 - flows.side[s]
        flows.time[s] = flows.trial[s]
        keep_stuck(search, s)
    _set_excess(search)


@kernel
def keep_stuck(search: Search, s: Int) -> None:
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
