"""A kernel that keeps the GPU busy while work to be timed queues up."""

from __future__ import annotations

import numpy as np

from eplb_np._cuda.jit import launched
from eplb_np._numba.types import Floats, Int


@launched
def keep_busy(sink: Floats, steps: Int) -> None:
    """Occupy one thread for a few nanoseconds per step."""
    value = np.float32(1)
    for _ in range(steps):
        value = value / np.float32(1.0001)
    sink[0] = value
