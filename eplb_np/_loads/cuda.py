"""Kernels for loads on the GPU: a cast to float32, and a check.

Letters: X rows of n loads each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda, types

from eplb_np._arguments import LARGEST_TOTAL
from eplb_np._cuda.jit import launched
from eplb_np._numba.types import Floats, Ints

CHECK_THREADS = 32


DOUBTFUL_TOTAL = LARGEST_TOTAL * (1 - 1e-9)
"""The host sums in another order, so it decides about totals above this one."""


@launched
def cast_rows(given: Any, weight: Floats) -> None:
    """Write ``given`` [X, n] of any real dtype and layout as float32, on a grid [X]."""
    row = cuda.blockIdx.x
    for i in range(cuda.threadIdx.x, weight.shape[1], cuda.blockDim.x):
        weight[row, i] = np.float32(given[row, i])


@launched
def find_doubtful_rows(weight: Floats, doubtful: Ints) -> None:
    """Set ``doubtful`` [X] int32 to 1 for rows that may hold a bad load, else to 0.

    `first_bad_load` in `cpu.py` then decides. On a grid [X] with ``CHECK_THREADS`` threads.
    """
    totals = cuda.shared.array(CHECK_THREADS, types.float64)
    row = cuda.blockIdx.x
    thread = cuda.threadIdx.x
    total = 0.0
    for i in range(thread, weight.shape[1], cuda.blockDim.x):
        load = weight[row, i]
        if load >= 0:
            total += np.float64(load)
        else:  # negative or NaN
            total += np.inf
    totals[thread] = total
    cuda.syncthreads()
    if thread == 0:
        total = 0.0
        for i in range(cuda.blockDim.x):
            total += totals[i]
        doubtful[row] = 0
        if not total < DOUBTFUL_TOTAL:
            doubtful[row] = 1
