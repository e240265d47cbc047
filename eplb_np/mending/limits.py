"""Limits on the moves by which a plan in use is mended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import as_amount, as_size, check_is
from eplb_np.moves.fetches import UNLIMITED


@dataclass(frozen=True)
class MoveLimits:
    """How much may be moved when a plan in use is mended, beyond that each move must pay.

    Parameters
    ----------
    total : int, optional
        Replicas that all GPUs together may fetch, over all layers. They go where they gain most.
    per_gpu : int, optional
        Replicas that each GPU may fetch, over all layers. They, too, go where they gain most.
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


NO_LIMITS = MoveLimits()


def check_limits(limits: MoveLimits | None) -> None:
    """Raise ``ValueError`` where something else than limits of moves is given."""
    if limits is not None:
        check_is("limits", limits, MoveLimits, "make one, as in MoveLimits(total=100)")


def fetch_budget(limits: MoveLimits, num_gpus: int) -> NDArray[np.int64]:
    """Return the fetches that each GPU, and in the last place all together, may make."""
    budget = np.full(num_gpus + 1, UNLIMITED if limits.per_gpu is None else limits.per_gpu)
    budget[-1] = UNLIMITED if limits.total is None else limits.total
    return budget
