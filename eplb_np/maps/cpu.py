"""Loops over the maps: ranks and counts from ``phy2log``, and the inverse map ``log2phy``.

``cuda.py`` has `fill_log2phy` for a GPU. Letters: L layers, E logical experts, P slots, X replicas
that ``log2phy`` has room for.
"""

from __future__ import annotations

from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Ints
from eplb_np.maps.maps import EMPTY


@entry
def fill_log2phy(phy2log: Ints, phyrank: Ints, log2phy: Ints) -> None:
    """Write each replica's slot into ``log2phy`` [L, E, X] int64, which holds -1 everywhere."""
    for layer in range(phy2log.shape[0]):
        for slot in range(phy2log.shape[1]):
            if phy2log[layer, slot] != EMPTY:
                log2phy[layer, phy2log[layer, slot], phyrank[layer, slot]] = slot


@kernel
def number_replicas(phy2log: Ints, phyrank: Ints, logcnt: Ints) -> None:
    """Rank the replicas of each expert in the order of the slots, and count them.

    `rank_by_slots` in ``maps.py`` is its form in NumPy.

    ``phy2log`` [P] is one layer's plan. Out: ``phyrank`` [P], -1 in empty slots; ``logcnt`` [E].
    """
    for e in range(logcnt.shape[0]):
        logcnt[e] = 0
    for slot in range(phy2log.shape[0]):
        e = phy2log[slot]
        phyrank[slot] = EMPTY
        if e != EMPTY:
            phyrank[slot] = logcnt[e]
            logcnt[e] += 1
