"""Limits on the moves that mend a plan in use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import as_amount, as_size, check_is
from eplb_np.moves.fetches import UNLIMITED


@dataclass(frozen=True)
class MoveLimits:
    """Limits on the moves that mend a plan in use; each move must pay off in any case.

    Parameters
    ----------
    total : int, optional
        Maximum number of replicas that all GPUs together fetch, over all layers. They are spent
        where they gain most.
    per_gpu : int, optional
        Maximum number of replicas that each GPU fetches, over all layers. They are spent where
        they gain most.
    price : float, default: 0.0
        Minimum load, in the unit of the loads planned from, that each fetch must take off the
        busiest GPU of its layer (at speed 1). It is added to a price that follows from the noise
        of the loads.
    tolerance : float, default: 0.0
        Imbalance that is accepted: a layer is left unchanged if its slowest GPU takes at most
        this share longer than perfectly balanced GPUs would. At 0.05, for instance, 5 % longer.

    Raises
    ------
    ValueError
        If ``total`` or ``per_gpu`` is not an integer of at least 0, or ``price`` or
        ``tolerance`` is not a finite number of at least 0.

    Notes
    -----
    A limit holds for every plan that is made, with one exception: an expert that no active GPU
    holds any more is placed whatever the limits. These fetches are counted against the limits
    first. If placement becomes hierarchical again because a lost GPU is back, the groups go back
    to their nodes within the limits, over several plans if need be. A total of 2 is enough for
    that.

    A limit of 2**40 replicas or more is no limit, and is stored as None.

    Examples
    --------
    >>> from eplb_np import MoveLimits, make_plan
    >>> in_use = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
    >>> load = [[10, 30, 90, 10]]
    >>> make_plan(load, current=in_use).moves_from(in_use).num_fetched
    1
    >>> limited = make_plan(load, current=in_use, limits=MoveLimits(total=0))
    >>> limited.moves_from(in_use).num_fetched
    0
    """

    total: int | None = None
    per_gpu: int | None = None
    price: float = 0.0
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        for name in ("total", "per_gpu"):
            if getattr(self, name) is not None:
                most = as_size(name, getattr(self, name), minimum=0, maximum=None)
                object.__setattr__(self, name, most if most < UNLIMITED else None)
        for name in ("price", "tolerance"):
            object.__setattr__(self, name, as_amount(name, getattr(self, name)))


NO_LIMITS = MoveLimits()


def check_limits(limits: MoveLimits | None) -> None:
    """Raise ``ValueError`` unless the limits are `MoveLimits` or None."""
    if limits is not None:
        check_is("limits", limits, MoveLimits, "give one, as in MoveLimits(total=100)")


def fetch_budget(limits: MoveLimits, num_gpus: int) -> NDArray[np.int64]:
    """Return how many fetches each GPU may make and, as the last entry, all together."""
    budget = np.full(num_gpus + 1, UNLIMITED if limits.per_gpu is None else limits.per_gpu)
    budget[-1] = UNLIMITED if limits.total is None else limits.total
    return budget
