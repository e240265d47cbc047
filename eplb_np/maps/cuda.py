"""`eplb_np.maps.cpu.fill_log2phy` on a GPU. Letters as there."""

from __future__ import annotations

import numpy as np
from numba import cuda

from eplb_np._cuda.jit import launched
from eplb_np._numba.indexing import at
from eplb_np._numba.types import Ints
from eplb_np.maps.maps import EMPTY


@launched
def fill_log2phy(phy2log: Ints, phyrank: Ints, log2phy: Ints) -> None:
    """Write each replica's slot into ``log2phy`` [L, E, X], -1 elsewhere, on a grid [L]."""
    layer = np.int64(cuda.blockIdx.x)
    thread = np.int64(cuda.threadIdx.x)
    for e in range(log2phy.shape[1]):
        for r in range(thread, log2phy.shape[2], cuda.blockDim.x):
            log2phy[layer, e, r] = EMPTY
    cuda.syncthreads()
    for slot in range(thread, phy2log.shape[1], cuda.blockDim.x):
        log2phy[layer, at(phy2log[layer, slot]), at(phyrank[layer, slot])] = slot
