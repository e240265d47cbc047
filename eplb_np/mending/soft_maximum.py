"""Soft maximum of GPU times."""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Doubles, Int
from eplb_np.local_search.slot_table import SlotTable, slowest_gpu

MIN_TAU = 1e-3
"""Softness of the maximum where loads are hardly noisy: a thousandth of the mean time."""


UNKNOWN_TAU = 1e-2
"""Softness where a single window has been seen, so that nothing is known about noise: windows of
ten thousand tokens a layer are about that noisy, larger ones less."""


FAR_AHEAD = 500.0
"""Exponents stop here: where other nodes are that much later, nothing gained here shows."""


@kernel
def soft_maximum(grid: SlotTable, tau: float, elsewhere: float) -> float:
    """Soft maximum of the GPU times and of ``elsewhere``, the soft maximum of other nodes."""
    slowest = slowest_gpu(grid)
    longest = grid.gpu_load[slowest] * grid.slowness[slowest]
    total = np.exp(min((elsewhere - longest) / tau, FAR_AHEAD))
    for g in range(grid.size.shape[0]):
        if grid.size[g] > 0:
            total += np.exp((grid.gpu_load[g] * grid.slowness[g] - longest) / tau)
    return float(longest + tau * np.log(total))


@kernel
def ideal_soft_maximum(grid: SlotTable, tau: float, elsewhere: float) -> float:
    """Soft maximum if all GPUs were done at the same time: none can be below it."""
    total = 0.0
    speed = 0.0
    live = 0
    for g in range(grid.size.shape[0]):
        if grid.size[g] > 0:
            total += grid.gpu_load[g]
            speed += 1.0 / grid.slowness[g]
            live += 1
    time = total / speed
    return float(time + tau * np.log(live + np.exp(min((elsewhere - time) / tau, FAR_AHEAD))))


@kernel
def could_gain(grid: SlotTable, tau: float, elsewhere: float) -> float:
    """How far the soft maximum is above that of GPUs which are all done at once."""
    return soft_maximum(grid, tau, elsewhere) - ideal_soft_maximum(grid, tau, elsewhere)


@kernel
def softness(grid: SlotTable, noise: float, num_active: Int) -> float:
    """Softness tau = s / sqrt(2 log D), with s the standard deviation of a GPU's time.

    ``noise`` is the variance of an expert's load over its load, ``num_active`` the GPUs of the
    whole layer, of which the grid may hold one node's.
    """
    if noise <= 0.0:
        return UNKNOWN_TAU
    variance = 0.0
    live = 0
    for g in range(grid.size.shape[0]):
        if grid.size[g] > 0:
            live += 1
    for e in range(grid.weight.shape[0]):
        variance += noise * grid.weight[e] / grid.logcnt[e]
    return tau_of(variance / max(live, 1), num_active)


@kernel
def tau_of(variance: float, num_active: Int) -> float:
    """Softness for GPU times of a variance."""
    return float(max(np.sqrt(variance / (2.0 * np.log(max(num_active, 2)))), MIN_TAU))


@kernel
def best_elsewhere(
    node_load: Doubles, node_speed: Doubles, node: Int, node_gpus: Int, tau: float
) -> float:
    """Soft maximum of the other nodes, were each of them in perfect balance."""
    latest = -np.inf
    for n in range(node_load.shape[0]):
        if n != node:
            latest = max(latest, node_load[n] / node_speed[n])
    if latest == -np.inf:
        return latest
    total = 0.0
    for n in range(node_load.shape[0]):
        if n != node:
            total += node_gpus * np.exp((node_load[n] / node_speed[n] - latest) / tau)
    return float(latest + tau * np.log(total))
