"""How long the tail is, and when the fix-up gains."""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int

FIXUP_MARGIN = 1e-12


@kernel
def tail_length(num_extra: Int) -> Int:
    """How many of the extra replicas the Sainte-Lague tail grants: the last tenth, at least 1."""
    return max(1, num_extra // 10) if num_extra > 0 else 0


@kernel
def is_lower(new_largest: np.float32, largest: np.float32) -> bool:
    """Whether the fix-up's new largest average is lower than the old one."""
    return bool(np.float64(new_largest) + FIXUP_MARGIN < np.float64(largest))
