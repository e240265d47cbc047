"""Compile everything before it is needed."""

from __future__ import annotations

import numpy as np


def warmup() -> None:
    """Make every kernel ready, from the disk cache or by compiling.

    A server calls this before it takes work, so that its first plan is as fast as all others.
    Calling it again, or from several threads at once, does nothing more.

    Notes
    -----
    Takes a fraction of a second where the cache holds this version's kernels.
    """
    from eplb_np.packing import balanced_packing
    from eplb_np.rebalance import rebalance_experts
    from eplb_np.replication import replicate_experts

    load = np.ones((1, 2))
    rebalance_experts(load, 4, 2, 1, 2)
    replicate_experts(load, 3)
    balanced_packing(load, 1)
