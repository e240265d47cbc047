"""Which swap is better, and whether it brings a gain: for `cpu.py`, `simd.py` and `cuda.py`.

A gap counts twice in a swap: one pack loses it and the other gains it. It is written as a sum,
``gap + gap``, because a GPU's compiler could fuse a product with the subtraction around it and
round once instead of twice. Both forms are exact, so a CPU gets the same bits from either.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel

LEAST_GAP_GAIN = 1e-9


@kernel
def is_level(delta: np.float32) -> bool:
    """Whether the heaviest and the lightest pack, ``delta`` apart, are too close for a gain."""
    return bool(np.float64(delta) <= LEAST_GAP_GAIN)


@kernel
def swap_residual(delta: np.float32, heavy: np.float32, light: np.float32) -> np.float32:
    """How far apart two packs are after a swap, in float32, which decides between swaps.

    ``delta`` is how far apart they were; ``heavy`` and ``light`` are the loads of the two items.
    """
    gap = heavy - light
    return abs(delta - (gap + gap))


@kernel
def narrows(delta: np.float32, heavy: np.float32, light: np.float32) -> bool:
    """Whether a swap narrows the gap between two packs, in float64; arguments as above."""
    gap = np.float64(heavy) - np.float64(light)
    return bool(abs(np.float64(delta) - (gap + gap)) < np.float64(delta) - LEAST_GAP_GAIN)
