"""Mending a plan in use: limits on the moves, and the way from what is expected to changed maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eplb_np._check import as_amount, as_size
from eplb_np._threads import choose_num_threads, for_each_block
from eplb_np.forecast import Expected
from eplb_np.policies import Maps
from eplb_np.topology import Topology

PATIENCE = 5.5
"""Default price of a fetch: this times the turnover K, in units of tau / D. One fetch must shrink
the sum of the exponentials by 5.5 K of the part that an average GPU has in it. Why these units:
tau, because a gain that drowns in noise is not worth a move; 1 / D, because a fetch keeps one of D
GPUs busy; K, because what is known is replaced at that rate, and with it the worth of a move is
lost. Why 5.5: chosen on development traces, where 4 to 7 hardly differ in balance."""

UNLIMITED = 1 << 40


@dataclass(frozen=True)
class MoveLimits:
    """How much may be moved when a plan in use is mended, beyond that each move must pay.

    Parameters
    ----------
    total : int, optional
        Replicas that all GPUs together may fetch, over all layers.
    per_gpu : int, optional
        Replicas that each GPU may fetch, over all layers.
    price : float, default: 0.0
        Load, in the unit of the loads planned from, that a fetch must take off the busiest GPU
        of its layer (at speed 1). It comes on top of a price that follows from the noise.
    tolerance : float, default: 0.0
        A layer whose slowest GPU takes at most this share longer than if all were done at once
        is let be.

    Raises
    ------
    ValueError
        If a limit is negative, or no number of its kind.

    Notes
    -----
    An expert that has lost all its replicas gets a seat whatever the limits are; what that takes
    is charged first.
    """

    total: int | None = None
    per_gpu: int | None = None
    price: float = 0.0
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        for name in ("total", "per_gpu"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_size(name, getattr(self, name), minimum=0))
        for name in ("price", "tolerance"):
            object.__setattr__(self, name, as_amount(name, getattr(self, name)))


def fetch_budget(limits: MoveLimits, num_gpus: int) -> NDArray[np.int64]:
    """Return the fetches that each GPU, and in the last place all together, may make."""
    budget = np.full(num_gpus + 1, UNLIMITED if limits.per_gpu is None else limits.per_gpu)
    budget[-1] = UNLIMITED if limits.total is None else limits.total
    return budget


def mend_maps(
    expected: Expected,
    in_use: NDArray[np.integer[Any]],
    topology: Topology,
    limits: MoveLimits,
    num_threads: int | None = None,
) -> Maps:
    """Mend the plan ``in_use`` [L, P] for the coming window; checked arguments only.

    A budget is spent in the order of what the layers could gain, so with one the layers are not
    shared out to threads.
    """
    from eplb_np.kernels.mended import mend_layers, seat_layers

    load = expected.load
    num_layers, num_experts = load.shape
    num_slots = topology.num_replicas
    sizes = (
        *topology.packed_groups_and_nodes,
        topology.first_slots,
        topology.active_slots,
        topology.slowness,
    )
    stakes = (expected.noise, limits.price, PATIENCE * expected.turnover, limits.tolerance)
    held = np.array(in_use, np.int64, order="C")
    phy2log = held.copy()
    phyrank = np.empty((num_layers, num_slots), np.int64)
    logcnt = np.empty((num_layers, num_experts), np.int64)
    excess = np.empty(num_layers)
    budget = fetch_budget(limits, topology.num_gpus)
    seat_layers(load, *sizes, budget, phy2log, excess)

    limited = limits.total is not None or limits.per_gpu is not None
    order = np.argsort(-excess, kind="stable") if limited else np.arange(num_layers)

    def mend(start: int, stop: int) -> None:
        mend_layers(
            load, *sizes, order[start:stop], *stakes, budget if limited else budget.copy(),
            held, phy2log, phyrank, logcnt,
        )  # fmt: skip

    threads = 1 if limited else choose_num_threads(num_threads, num_layers, num_slots)
    for_each_block(mend, num_layers, num_slots, threads)
    return Maps(phy2log, phyrank, logcnt)
