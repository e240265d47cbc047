"""What users may limit when a plan in use is mended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import as_amount, as_size, check_is
from eplb_np.moves.fetches import UNLIMITED


@dataclass(frozen=True)
class MoveLimits:
    """Limits on the moves that mend a plan in use. Every move must pay in any case.

    Parameters
    ----------
    total : int, optional
        Replicas that all GPUs together may fetch, over all layers. They go where they gain most.
    per_gpu : int, optional
        Replicas that each GPU may fetch, over all layers. They also go where they gain most.
    price : float, default: 0.0
        Load, in the unit of the loads planned from, that a fetch must take off the busiest GPU
        of its layer (at speed 1). It is added to a price that follows from the noise.
    tolerance : float, default: 0.0
        A layer is left unchanged if its slowest GPU takes at most this share longer than it
        would in perfect balance.

    Raises
    ------
    ValueError
        If a limit is negative or not a number, or ``total`` or ``per_gpu`` is not an integer.

    Notes
    -----
    An expert that has lost all its replicas is placed whatever the limits are; those fetches are
    charged first.
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


def check_limits(limits: MoveLimits | None) -> None:
    """Raise ``ValueError`` unless ``limits`` is None or a `MoveLimits`."""
    if limits is not None:
        check_is("limits", limits, MoveLimits, "make one, as in MoveLimits(total=100)")


def fetch_budget(limits: MoveLimits, num_gpus: int) -> NDArray[np.int64]:
    """Return the fetches that each GPU, and in the last entry all together, may make."""
    budget = np.full(num_gpus + 1, UNLIMITED if limits.per_gpu is None else limits.per_gpu)
    budget[-1] = UNLIMITED if limits.total is None else limits.total
    return budget
