"""Mends plans in use for the best split, layer by layer.

Letters: W workloads, L layers, E logical experts, P slots, D GPUs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._numba.arrays import double_table, ints
from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.threads import for_each_block
from eplb_np._numba.types import Bools, Doubles, Int, Ints
from eplb_np.dispatch.placement.generator import seed_generator
from eplb_np.dispatch.placement.layer import fill_layer, longest_even_time
from eplb_np.dispatch.placement.layers import (
    EVEN_SLACK,
    MORE_REPLICAS,
    allow_bridges,
    list_slots,
    make_search,
    take_load,
    take_plan,
)
from eplb_np.dispatch.placement.mend import RUNGS, Fetches, mend
from eplb_np.dispatch.placement.planner import bridges_and_homes
from eplb_np.dispatch.placement.samples import draw_samples
from eplb_np.dispatch.placement.search import Search, start_search, sum_of
from eplb_np.maps.cpu import number_replicas
from eplb_np.maps.maps import EMPTY, Maps, empty_maps
from eplb_np.mending.repair import keep_places
from eplb_np.topology import Gpus, Topology

NUM_SAMPLES = 16
"""Loads that are drawn around the workloads, half of them around the coming window."""

WORK = 100_000
"""GPUs that the searches for paths in a layer may visit."""

WIDENING = 1.2
"""Samples are drawn with this many times the standard deviation."""

PRICE = 5e-4
"""Share of the mean GPU time that each fetch must take off the slowest one's."""

TOLERANCE = 5e-3
"""A layer is left unchanged if its slowest GPU is expected to take at most this share longer than
the best placement would."""


NODES, MOST_REPLICAS, WORK_LEFT, DOUBLINGS, CERTAIN, BRIDGES = range(6)


class Ahead(NamedTuple):
    """What a plan in use is to be ready for, and what that may cost."""

    share: NDArray[np.float64]  # [L, W, E], the workloads that may come
    noise: float  # variance of an expert's share over the share
    price: NDArray[np.float64]  # [L], extra price of each fetch, as a share of the mean GPU time
    tolerance: float  # excess of a layer over its floor that is accepted in any case
    certain: bool  # whether batches are always split, so that the even split need not be guarded


class Terms(NamedTuple):
    """What a fetch must be worth, and how many may be made."""

    noise: float  # variance of an expert's share over the share
    tolerance: float  # excess over the floor that is accepted
    price: Doubles  # [L], what each fetch must take off the mean time
    left: Ints  # [D + 1] int64, fetches left to each GPU and to all together; charged
    excess: Doubles  # [L], out: share of the mean time by which a layer stays above the floor


def mend_for_split(
    phy2log: NDArray[np.int64],
    held: NDArray[np.int64],
    topology: Topology,
    ahead: Ahead,
    left: NDArray[np.int64],
    num_threads: int = 1,
) -> Maps:
    """Move replicas where the split alone cannot balance the loads to come.

    ``phy2log`` [L, P] int64 is the plan to change, ``held`` [L, P] what GPUs hold, and ``left``
    [D + 1] int64 how many fetches each GPU may still make, and all together.
    """
    num_layers, num_slots = phy2log.shape
    maps = empty_maps(num_layers, topology)
    maps.phy2log[:] = phy2log
    num_nodes = topology.num_nodes if topology.placement == "hierarchical" else 1
    most = int(np.apply_along_axis(_most_common, 1, phy2log).max()) + MORE_REPLICAS
    bridges, home = bridges_and_homes(phy2log, topology)
    excess = np.zeros(num_layers)
    tolerance = max(TOLERANCE, ahead.tolerance)

    def run(order: NDArray[np.int64], work: int, rungs: int, factor: float) -> None:
        budget = left if limited else left.copy()
        terms = Terms(ahead.noise, tolerance, (ahead.price + PRICE) * factor, budget, excess)
        sizes = np.array([num_nodes, most, work, rungs, int(ahead.certain), bridges], np.int64)
        mend_layers(ahead.share, topology.gpus, sizes, order, terms, held, home, maps)

    limited = bool(left.min() < phy2log.size)
    if not limited:
        for_each_block(
            lambda start, stop: run(np.arange(start, stop), WORK, RUNGS, 1.0),
            num_layers, num_slots, num_threads,
        )  # fmt: skip
        return maps
    # Layers share the fetches, which are to be spent where they gain most. So all layers first
    # make the moves that are worth a high price.
    run(np.arange(num_layers), 0, 0, 1.0)
    for rung in range(RUNGS, -1, -1):
        run(np.argsort(-excess, kind="stable"), WORK // (RUNGS + 1), 0, float(1 << rung))
    return maps


def _most_common(row: NDArray[np.int64]) -> int:
    return int(np.bincount(row[row != EMPTY]).max())


@entry
def mend_layers(
    share: Doubles, gpus: Gpus, sizes: Ints, order: Ints, terms: Terms, held: Ints, home: Ints,
    maps: Maps,
) -> None:  # fmt: skip
    """Mend the layers ``order`` [l], in turn.

    ``sizes`` holds the number of nodes, the most replicas that an expert may get, the work for each
    layer, how often prices are doubled at first, whether the even split does not matter, and the
    most bridges. In and out: ``maps``.
    """
    phy2log, phyrank, logcnt = maps
    num_windows, num_experts = share.shape[1], share.shape[2]
    num_nodes, most = sizes[NODES], sizes[MOST_REPLICAS]
    num_gpus = gpus.size.shape[0]
    scaled = double_table(num_windows, num_experts)
    usable = ints(phy2log.shape[1])
    fetches = Fetches(np.empty((num_gpus, num_experts), np.bool_), terms.left)
    for i in order:
        num_used = list_slots(phy2log[i], gpus, usable)
        search = make_search(num_used, num_gpus, num_experts, most, NUM_SAMPLES)
        take_plan(search.layer, phy2log[i], usable, gpus, num_nodes)
        allow_bridges(search.layer, home[i], sizes[BRIDGES])
        speed = take_load(search.layer, share[i], scaled)
        _list_held(held[i], gpus, fetches.held)
        if speed > 0.0:
            terms.excess[i] = _mend_layer(search, scaled, speed, i, sizes, terms, fetches)
        for j in range(num_used):
            phy2log[i, usable[j]] = search.layer.expert[j]
        for g in range(num_gpus):
            keep_places(held[i], phy2log[i], gpus.first_slot[g], gpus.first_slot[g + 1])
        number_replicas(phy2log[i], phyrank[i], logcnt[i])


@kernel
def _mend_layer(
    search: Search,
    share: Doubles,
    speed: float,
    layer: Int,
    sizes: Ints,
    terms: Terms,
    fetches: Fetches,
) -> float:
    """Mend one layer; returns how far its mean time stays above the floor."""
    work, rungs = sizes[WORK_LEFT], sizes[DOUBLINGS]
    num_samples = search.sample.shape[1]
    fill_layer(search.layer)
    even = longest_even_time(search.layer)
    search.layer.longest[0] = np.inf if sizes[CERTAIN] == 1 else even * EVEN_SLACK
    noise = terms.noise * WIDENING * WIDENING
    draw_samples(share, noise, speed, layer, search.state, search.sample)
    seed_generator(search.state, layer + 1_000_000)
    total = start_search(search)
    for rung in range(rungs, -1, -1):
        # Not 2.0**rung: that would become a call of the system's exp2.
        price = terms.price[layer] * float(1 << rung)
        total = mend(search, total, work // (rungs + 1), price, terms.tolerance, fetches)
    return float(sum_of(search.excess) / num_samples)


@kernel
def _list_held(phy2log: Ints, gpus: Gpus, held: Bools) -> None:
    held[:] = False
    for g in range(gpus.size.shape[0]):
        for slot in range(gpus.first_slot[g], gpus.first_slot[g + 1]):
            if phy2log[slot] != EMPTY:
                held[g, phy2log[slot]] = True
