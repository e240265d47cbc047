"""Hill climbing from a plan in use: a move must be worth the replicas that GPUs fetch for it.

Letters: E logical experts, P slots, D GPUs, S samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Bools, Int, Ints
from eplb_np.dispatch.placement.flows import WORK
from eplb_np.dispatch.placement.layer import (
    FIRST,
    GAINS,
    LOSES,
    REASSIGN,
    SECOND,
    Layer,
)
from eplb_np.dispatch.placement.moves import propose
from eplb_np.dispatch.placement.search import (
    LEAST_GAIN,
    PROPOSAL_WORK,
    Search,
    sum_of,
    try_move,
)

RUNGS = 4
"""At first, a move must be worth several times its price, so that the best ones are made first:
the price is doubled so many times."""


class Fetches(NamedTuple):
    """What GPUs hold, and may fetch."""

    held: Bools  # [D, E], whether the GPU holds the expert in the plan in use
    left: Ints  # [D + 1], fetches left to each GPU, and to all together


@kernel
def mend(
    search: Search, total: float, work: Int, price: float, tolerance: float, fetches: Fetches
) -> float:
    """Make moves that pay until the work is done, or the mean time is within the tolerance.

    ``total`` is the sum of the samples' times, ``price`` what each fetch must take off their mean,
    and ``tolerance`` how far above its floor the mean may stay. Returns the new sum.
    """
    num_samples = search.sample.shape[1]
    while work > 0 and sum_of(search.excess) > tolerance * num_samples:
        work -= PROPOSAL_WORK
        if not propose(search.layer, search.cuts, search.excess, search.state, search.move):
            continue
        there, here = _extra_fetches(search.layer, search.move, fetches)
        if not _affordable(search.layer, search.move, there, here, fetches):
            continue
        gain = max(LEAST_GAIN, price * (there + here)) * num_samples
        done = search.flows.number[WORK]
        tried = try_move(search, total - gain)
        work -= search.flows.number[WORK] - done
        if tried < np.inf:
            total = tried
            _charge(search.layer, search.move, there, here, fetches)
    return total


@kernel
def _extra_fetches(layer: Layer, move: Ints, fetches: Fetches) -> tuple[Int, Int]:
    """Count the fetches that a move adds on the GPUs of its two slots, or saves."""
    held = fetches.held
    gains, loses = move[GAINS], move[LOSES]
    h = layer.gpu[move[SECOND]]
    here: Int = int(not held[h, gains]) - int(not held[h, loses])
    if move[FIRST] == REASSIGN:
        return 0, here
    g = layer.gpu[move[FIRST]]
    there: Int = int(not held[g, loses]) - int(not held[g, gains])
    return there, here


@kernel
def _affordable(layer: Layer, move: Ints, there: Int, here: Int, fetches: Fetches) -> bool:
    """Whether a move keeps within what may be fetched."""
    left = fetches.left
    last = left.shape[0] - 1
    if there + here > max(left[last], 0) or here > max(left[layer.gpu[move[SECOND]]], 0):
        return False
    return bool(move[FIRST] == REASSIGN or there <= max(left[layer.gpu[move[FIRST]]], 0))


@kernel
def _charge(layer: Layer, move: Ints, there: Int, here: Int, fetches: Fetches) -> None:
    left = fetches.left
    left[left.shape[0] - 1] -= there + here
    left[layer.gpu[move[SECOND]]] -= here
    if move[FIRST] != REASSIGN:
        left[layer.gpu[move[FIRST]]] -= there
