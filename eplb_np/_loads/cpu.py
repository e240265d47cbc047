"""A check of loads on the host, in one pass.

Twin of `find_doubtful_rows` in `cuda.py`. Letters: L layers, E experts.
"""

from __future__ import annotations

import numpy as np

from eplb_np._arguments import LARGEST_TOTAL
from eplb_np._numba.jit import entry
from eplb_np._numba.types import Floats, Int


@entry
def first_bad_load(weight: Floats) -> tuple[Int, Int]:
    """Position of the first load that is NaN, infinite or negative, or of a layer that overflows.

    ``weight`` [L, E] float32. Returns ``(layer, expert)``; ``expert`` is -1 if the sum of the
    layer is `LARGEST_TOTAL` or more, and ``layer`` is -1 if all loads are good. O(L E).
    """
    num_layers, num_experts = weight.shape
    for layer in range(num_layers):
        total = 0.0
        smallest = np.float32(0)
        for e in range(num_experts):
            total += np.float64(weight[layer, e])
            smallest = min(smallest, weight[layer, e])
        # A NaN or an infinity anywhere makes the total fail this comparison too.
        if smallest >= 0 and total < LARGEST_TOTAL:
            continue
        for e in range(num_experts):
            load = weight[layer, e]
            if not (load >= 0 and load < np.inf):
                return layer, e
        return layer, -1
    return -1, -1
