"""What a group weighs, and how often the published algorithm refines: for every form of the plan.

The forms are `cpu.py`, `simd.py` and `cuda.py`.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.indexing import at
from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Floats, Int

GROUP_REFINE_STEPS = np.int64(1)


GPU_REFINE_STEPS = np.int64(2)


NO_REFINE_STEPS = np.int64(0)


@kernel
def group_load(weight: Floats, group: Int, group_size: Int) -> np.float32:
    """Load of a group: float64 sum of its consecutive experts, rounded once to float32."""
    total = 0.0
    e = group * group_size
    while e < (group + 1) * group_size:
        total += np.float64(weight[at(e)])
        e += 1
    return np.float32(total)
