"""Which swap is better, and whether it brings a gain."""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel

LEAST_GAP_GAIN = 1e-9


@kernel
def swap_residual(delta: np.float32, heavy: np.float32, light: np.float32) -> np.float32:
    """How far apart two packs are, ``delta`` before, once they have swapped two items."""
    return abs(delta - np.float32(2) * (heavy - light))
