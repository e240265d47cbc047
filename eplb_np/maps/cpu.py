"""Ranks, counts and slots of each expert, from what the slots hold."""

from __future__ import annotations

from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Ints
from eplb_np.maps.maps import EMPTY


@entry
def fill_log2phy(phy2log: Ints, phyrank: Ints, log2phy: Ints) -> None:
    """Slot of each replica of each expert: ``log2phy`` [L, E, X] int64, filled with -1 before."""
    for layer in range(phy2log.shape[0]):
        for slot in range(phy2log.shape[1]):
            if phy2log[layer, slot] >= 0:  # else it is empty
                log2phy[layer, phy2log[layer, slot], phyrank[layer, slot]] = slot


@kernel
def number_replicas(phy2log: Ints, phyrank: Ints, logcnt: Ints) -> None:
    """Ranks in the order of the slots, and counts, of one layer's plan; -1 in empty slots."""
    for e in range(logcnt.shape[0]):
        logcnt[e] = 0
    for slot in range(phy2log.shape[0]):
        e = phy2log[slot]
        phyrank[slot] = EMPTY
        if e != EMPTY:
            phyrank[slot] = logcnt[e]
            logcnt[e] += 1
