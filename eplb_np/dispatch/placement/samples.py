"""Loads drawn around windows: what a placement is judged by.

An expert's share of a window is random: a gamma variable of mean p and variance f p has the
variance of a multinomial's counts and of a Dirichlet's shares alike, for any p that is small. `f`
is the noise, as in `eplb_np.forecast`.

Letters: W windows, E logical experts, S samples.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.jit import kernel
from eplb_np._numba.types import Doubles, Int, Ints
from eplb_np.dispatch.placement.generator import normal, seed_generator


@kernel
def draw_samples(
    share: Doubles, noise: float, speed: float, seed: Int, state: Ints, sample: Doubles
) -> None:
    """Draw S loads; sample s is around window s % W.

    Parameters
    ----------
    share : [W, E] float64
        Shares of each window; rows add up to 1.
    noise : float
        Variance of a share over the share.
    speed : float
        What each sample adds up to.
    seed : int
        Seed; the same one gives the same deviates, whatever the noise.
    state : [1] int64
        Scratch.
    sample : [E, S] float64
        Out. For every window, the mean over its samples is the window, up to the scaling.

    Notes
    -----
    The cube of a normal variable is close to a gamma variable [1]_.

    References
    ----------
    .. [1] E. B. Wilson and M. M. Hilferty, "The Distribution of Chi-Square", Proceedings of the
       National Academy of Sciences 17(12), 1931.
    """
    num_windows, num_experts = share.shape
    num_samples = sample.shape[1]
    seed_generator(state, seed)
    for e in range(num_experts):
        for s in range(num_samples):
            mean = share[s % num_windows, e]
            deviate = normal(state)
            # 1 / (9 shape), where the shape is the mean over the noise
            ninth = noise / (9.0 * mean) if mean > 0.0 else 0.0
            root = max(1.0 - ninth + deviate * np.sqrt(ninth), 0.0)
            sample[e, s] = mean * root * root * root
        for w in range(min(num_windows, num_samples)):
            _recentre(sample[e], w, num_windows, share[w, e])
    for s in range(num_samples):
        total = 0.0
        for e in range(num_experts):
            total += sample[e, s]
        unit = speed / total if total > 0.0 else 0.0
        for e in range(num_experts):
            sample[e, s] *= unit


@kernel
def _recentre(drawn: Doubles, start: Int, step: Int, mean: float) -> None:
    """Scale every ``step``-th entry so that their mean is as given."""
    total = 0.0
    number = 0
    for s in range(start, drawn.shape[0], step):
        total += drawn[s]
        number += 1
    for s in range(start, drawn.shape[0], step):
        drawn[s] = drawn[s] * (mean * number / total) if total > 0.0 else mean
