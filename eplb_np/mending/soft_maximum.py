"""The soft maximum of GPU times, by which mending measures what a move gains.

A layer takes as long as its slowest GPU, but the loads to come are uncertain. So mending lowers a
*soft maximum* of the GPU times, ``tau * log(sum(exp(time / tau)))``. With noise of standard
deviation s on each of D GPUs, the expected longest time is about that at
``tau = s / sqrt(2 log D)``. All GPUs within the noise of the slowest one count, and relieving one
of several equally slow GPUs gains little. That keeps a plan still when the noise is large.

Letters: D GPUs, N nodes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Doubles, Int
from eplb_np.local_search.slot_table import SlotTable, gpu_time, longest_time
from eplb_np.mending.elementary import exp, log

MIN_TAU = 1e-3
"""Softness of the maximum where loads are hardly noisy: a thousandth of the mean time."""

UNKNOWN_TAU = 1e-2
"""Softness after a single window, which says nothing about noise. Windows of ten thousand tokens
per layer are about that noisy, larger ones less."""

FAR_AHEAD = 500.0
"""Exponents stop here: where other nodes are that much later, nothing gained here shows."""


class Objective(NamedTuple):
    """What mending a node lowers, and what each fetch must gain; in units of the mean GPU time."""

    tau: float  # softness
    elsewhere: float  # soft maximum of the other nodes at best; -inf if there are none
    price: float  # what a fetch must lower the soft maximum by
    tolerated: float  # longest time up to which a node is left unchanged


@kernel
def soft_maximum(table: SlotTable, objective: Objective) -> float:
    """Soft maximum of the GPU times and of the other nodes."""
    tau = objective.tau
    longest = longest_time(table)
    total = exp(min((objective.elsewhere - longest) / tau, FAR_AHEAD))
    for g in range(table.size.shape[0]):
        if table.size[g] > 0:
            total += exp((gpu_time(table, g) - longest) / tau)
    return float(longest + tau * log(total))


@kernel
def ideal_soft_maximum(table: SlotTable, objective: Objective) -> float:
    """Soft maximum if all GPUs ended at the same time: a lower bound."""
    tau = objective.tau
    total = 0.0
    speed = 0.0
    live = 0
    for g in range(table.size.shape[0]):
        if table.size[g] > 0:
            total += table.gpu_load[g]
            speed += 1.0 / table.slowness[g]
            live += 1
    time = total / speed
    others = exp(min((objective.elsewhere - time) / tau, FAR_AHEAD))
    return float(time + tau * log(live + others))


@kernel
def softness(table: SlotTable, noise: float, num_active: Int) -> float:
    """Softness tau = s / sqrt(2 log D), with s the standard deviation of a GPU's time.

    ``noise`` is the variance of an expert's load over its load. ``num_active`` counts the GPUs of
    the whole layer, of which the table may hold one node's.
    """
    if noise <= 0.0:
        return UNKNOWN_TAU
    variance = 0.0
    live = 0
    for g in range(table.size.shape[0]):
        if table.size[g] > 0:
            live += 1
    for e in range(table.weight.shape[0]):
        variance += noise * table.weight[e] / table.logcnt[e]
    return tau_of(variance / max(live, 1), num_active)


@kernel
def tau_of(variance: float, num_active: Int) -> float:
    """Softness for GPU times with this variance."""
    return float(max(np.sqrt(variance / (2.0 * log(float(max(num_active, 2))))), MIN_TAU))


@kernel
def best_elsewhere(
    node_load: Doubles, node_speed: Doubles, node: Int, node_gpus: Int, tau: float
) -> float:
    """Soft maximum of the nodes other than ``node`` if each were in perfect balance."""
    latest = -np.inf
    for n in range(node_load.shape[0]):
        if n != node:
            latest = max(latest, node_load[n] / node_speed[n])
    if latest == -np.inf:
        return latest
    total = 0.0
    for n in range(node_load.shape[0]):
        if n != node:
            total += node_gpus * exp((node_load[n] / node_speed[n] - latest) / tau)
    return float(latest + tau * log(total))
