"""The three arrays that engines of SGLang's kind take: maps of a plan, even or weighted.

Letters: L layers, E logical experts, P slots, X entries of an expert's row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np.plan import Plan

WIDTH = 32
"""Entries of an expert in weighted tables, where the engine has room for so many."""


class Tables(NamedTuple):
    """Fresh arrays of int64 that the engine may keep and change."""

    phy2log: NDArray[np.int64]
    log2phy: NDArray[np.int64]
    entries: NDArray[np.int64]


def tables_of(plan: Plan, load: ArrayLike | None = None, width: int = WIDTH) -> Tables:
    """Return [L, P], [L, E, X] padded with -1, and the number of entries [L, E].

    With a load [L, E], entries follow its best split, up to ``width`` of them and more only where
    an expert has more replicas. Each replica has one: engines load weights by this table.
    """
    most = int(plan.logcnt.max())
    if load is None:
        log2phy = plan.log2phy
    else:
        log2phy = plan.weighted_log2phy(load, max(width, most), every_replica=True)
    entries = (log2phy >= 0).sum(axis=-1)
    used = np.array(log2phy[:, :, : entries.max()], dtype=np.int64, order="C")
    return Tables(plan.phy2log.astype(np.int64), used, entries)
