"""Indices as compiled code takes them best, on a CPU and on a GPU."""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int


@kernel
def at(index: Int) -> np.uintp:
    """Index that is known not to be negative: spares the code for Python's wrap-around."""
    return np.uintp(index)
