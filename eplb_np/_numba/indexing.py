"""Array indices without Python's wrap-around."""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Int


@kernel
def at(index: Int) -> np.uintp:
    """Index that is known not to be negative: the compiler omits the code for negative ones."""
    return np.uintp(index)
