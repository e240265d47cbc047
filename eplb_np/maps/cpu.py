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
    """Write the slot of each replica into the table of each expert. Nothing is checked.

    Parameters
    ----------
    phy2log : ndarray, shape [L, P], int64
        Logical expert in each slot, -1 in an empty one.
    phyrank : ndarray, shape [L, P], int64
        Which of its expert's replicas is in the slot, from 0; -1 in an empty one.
    log2phy : ndarray, shape [L, E, X], int64
        Out: slot of each replica of each expert, by rank. Fill it with -1 first.

    Notes
    -----
    O(L P).

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_np.kernels import fill_log2phy
    >>> log2phy = np.full((1, 2, 2), -1)
    >>> fill_log2phy(np.array([[0, 1, 0]]), np.array([[0, 0, 1]]), log2phy)
    >>> log2phy.tolist()
    [[[0, 2], [1, -1]]]
    """
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
