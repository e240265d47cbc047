"""The price of a fetch: mends a plan in use so that its moves pay and fit the limits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eplb_np._numba.threads import choose_num_threads, for_each_block
from eplb_np.forecast import Expected
from eplb_np.maps.maps import Maps
from eplb_np.mending.limits import MoveLimits, fetch_budget
from eplb_np.moves.fetches import UNLIMITED, fetched_slots
from eplb_np.plan import Plan
from eplb_np.topology import Topology

FETCH_PRICE = 5.5
"""Default price of a fetch: this times the turnover K, in units of tau / D. One fetch must shrink
the sum of the exponentials by 5.5 K times the share that an average GPU has in it. Why these units:
tau, because a gain that drowns in noise is not worth a move; 1 / D, because a fetch keeps one of D
GPUs busy; K, because knowledge of the load is replaced at that rate, and the worth of a move is
lost with it. Why 5.5: chosen on development traces, where 4 to 7 hardly differ in balance."""

LEAST_SURCHARGE = 2.0**-14
"""The least that is added to the price so that the fetches fit a total, in units of the largest
excess of a layer over its mean. At one unit hardly anything pays; this little hardly adds to the
price that follows from the noise."""

SURCHARGE_ROUNDS = 8
"""Rounds of bisection. Each halves the logarithm of the range: 8 leave 2**(14 / 256), or 4 %."""

SURCHARGES_PER_GPU = np.ldexp(1.0, -np.arange(5, 13))
"""Surcharges to try if GPUs have used up their fetches, in the same unit. On development traces the
best was among these wherever there was something to gain."""


def mend_maps(
    expected: Expected,
    in_use: NDArray[np.integer[Any]],
    topology: Topology,
    limits: MoveLimits,
    num_threads: int | None = None,
) -> Maps:
    """Mend the plan ``in_use`` [L, P] for the coming window; the arguments have been checked."""
    mending = _Mending(expected, in_use, topology, limits, num_threads)
    maps = mending.at_price(limits.price)
    if not mending.fits_total(maps):
        return _share_out_total(mending)
    if mending.uses_up_a_gpu(maps):
        return _share_out_per_gpu(mending, maps)
    return maps


class _Mending:
    """A plan in use, repaired and ready to be mended at any price."""

    def __init__(
        self,
        expected: Expected,
        in_use: NDArray[np.integer[Any]],
        topology: Topology,
        limits: MoveLimits,
        num_threads: int | None,
    ) -> None:
        from eplb_np.mending.group_swaps import SCATTERED
        from eplb_np.mending.layers import repair_layers

        num_layers = len(in_use)
        self.expected = expected
        self.load = np.asarray(expected.load, np.float64)
        self.topology = topology
        self.limits = limits
        self.sizes = (*topology.packed_groups_and_nodes, topology.gpus)
        self.held = np.array(in_use, np.int64, order="C")
        self.repaired = self.held.copy()
        self.budget = fetch_budget(limits, topology.num_gpus)
        self.excess = np.empty(num_layers)  # load of the slowest GPU above the mean
        unlimited = bool(self.budget.min() >= self.held.size)
        repair_layers(self.load, *self.sizes, self.budget, unlimited, self.repaired, self.excess)
        if (self.excess == SCATTERED).any():
            from eplb_np.mending.regrouping import regroup_layers

            regroup_layers(self.load, *self.sizes, self.budget, self.repaired, self.excess)
        self.num_threads = choose_num_threads(num_threads, num_layers, topology.num_replicas)

    def at_price(self, price: float) -> Maps:
        """Mend within all limits but the total."""
        budget = self.budget.copy()
        budget[-1] = UNLIMITED
        return self._mend(price, budget, shared=self.limits.per_gpu is not None)

    def within_total(self, price: float) -> Maps:
        """Mend within all limits, until the total is used up."""
        return self._mend(price, self.budget.copy(), shared=True)

    def fits_total(self, maps: Maps) -> bool:
        """Whether the total allows all fetches (`eplb_np.moves.fetches` says what counts)."""
        return (
            self.limits.total is None
            or fetched_slots(self.held, maps.phy2log).sum() <= self.limits.total
        )

    def uses_up_a_gpu(self, maps: Maps) -> bool:
        """Whether some GPU makes all the fetches it may; False if none may fetch at all."""
        if not self.limits.per_gpu:
            return False
        gpu = self.topology.gpu_of_slot[np.nonzero(fetched_slots(self.held, maps.phy2log))[1]]
        fetches = np.bincount(gpu, minlength=self.topology.num_gpus)
        return bool((fetches >= self.limits.per_gpu).any())

    def expected_time(self, maps: Maps) -> float:
        """Time of all layers with these maps, if the loads are as expected."""
        plan = Plan(maps.phy2log, maps.phyrank, self.topology, "refined")
        return float(plan.gpu_time(self.expected.load).max(axis=1).sum())

    def _mend(self, price: float, budget: NDArray[np.int64], *, shared: bool) -> Maps:
        """Mend every layer; layers that share a budget in turn, the least balanced first."""
        from eplb_np.mending.layers import Terms, mend_layers

        load, noise, turnover = self.load, self.expected.noise, self.expected.turnover
        num_layers, num_slots = self.held.shape
        maps = Maps(
            self.repaired.copy(), np.empty((num_layers, num_slots), np.int64),
            np.empty(load.shape, np.int64),
        )  # fmt: skip
        order = np.argsort(-self.excess, kind="stable") if shared else np.arange(num_layers)
        patience = FETCH_PRICE * turnover

        def mend(start: int, stop: int) -> None:
            fetches = budget if shared else budget.copy()
            terms = Terms(noise, price, patience, self.limits.tolerance, fetches)
            mend_layers(load, *self.sizes, order[start:stop], terms, self.held, maps)

        for_each_block(mend, num_layers, num_slots, 1 if shared else self.num_threads)
        return maps


def _share_out_total(mending: _Mending) -> Maps:
    """Find by bisection the lowest price at which the fetches that pay fit the total; mend at it.

    One price for all layers shares a total out: no fetch is made in one layer while it would gain
    more in another (Everett's generalized Lagrange multipliers, 1963). If layers took turns, the
    first would spend the total on their last, least gains, and leave nothing for the last.
    """
    price = mending.limits.price
    most = float(mending.excess.max())
    maps = mending.at_price(price + most)
    if not mending.fits_total(maps):  # repairs have no price
        return mending.within_total(price + most)
    too_low, enough = most * LEAST_SURCHARGE, most
    for _ in range(SURCHARGE_ROUNDS):
        surcharge = float(np.sqrt(too_low * enough))
        mended = mending.at_price(price + surcharge)
        if mending.fits_total(mended):
            maps, enough = mended, surcharge
        else:
            too_low = surcharge
    return maps


def _share_out_per_gpu(mending: _Mending, maps: Maps) -> Maps:
    """Try several prices, and keep the plan whose layers are expected to take the least time.

    Every GPU has its own fetches, which the layers spend in turn; ``maps`` is the result without a
    surcharge. At a higher price the first layers make only the fetches that gain much, and leave
    the others to the layers behind them. No single price is right for all GPUs, so the expected
    time decides.
    """
    least = mending.expected_time(maps)
    for surcharge in mending.excess.max() * SURCHARGES_PER_GPU:
        mended = mending.at_price(mending.limits.price + surcharge)
        time = mending.expected_time(mended)
        if time < least and mending.fits_total(mended):
            maps, least = mended, time
    return maps
