"""Who gets the next replica, how long the tail is, and when the fix-up brings a gain.

The forms of replica allocation share these: `cpu.py`, `simd.py` and `cuda.py`.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int
from eplb_np.stages.decisions import adams_quotient, sainte_lague_quotient

FIXUP_MARGIN = 1e-12


@kernel
def tail_length(num_extra: Int) -> Int:
    """How many of the extra replicas the Sainte-Lague tail grants: the last tenth, at least 1."""
    return max(1, num_extra // 10) if num_extra > 0 else 0


@kernel
def grant_quotient(weight: np.float32, count: Int, adams: bool) -> np.float32:
    """Quotient with which an expert that has ``count`` replicas competes for the next one.

    `cpu.py` has a loop for each quotient instead.
    """
    return adams_quotient(weight, count) if adams else sainte_lague_quotient(weight, count)


@kernel
def is_lower(new_largest: np.float32, largest: np.float32) -> bool:
    """Whether the fix-up's new largest average is lower than the old one."""
    return bool(np.float64(new_largest) + FIXUP_MARGIN < np.float64(largest))
