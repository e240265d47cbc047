"""Which loads a placement for the split prepares for: one for each workload that was recorded."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_WINDOWS = 32
"""Windows that are compared with each other; of more, as many are picked at even distances."""

MOST_WORKLOADS = 8
"""More are merged, the most alike first: a placement is judged by a few samples around each."""

ALIKE = 1.5
"""Windows are of one workload if they differ by at most this times what noise makes them differ."""

ASSUMED_NOISE = 1e-4
"""Noise where a single window does not show it: about that of windows of prefill, 4e-5, and of
small decode batches, 1.4e-4."""

LEAST_NOISE = 1e-6
"""Windows that are copies of each other are still no promise of the next one."""


class LoadsToCome(NamedTuple):
    """Loads to prepare for, and how much each may vary."""

    share: NDArray[np.float64]  # [W, L, E], one for each workload; rows add up to 1
    noise: float  # variance of an expert's share over the share


def loads_to_come(history: NDArray[np.floating[Any]]) -> LoadsToCome:
    """Sort windows [W, L, E] into workloads.

    The noise is taken from the two windows that are most alike: in none of these pairs is it
    more. Then windows that differ by little more than noise are averaged. So steady windows become
    one load with little noise, and six recordings of different workloads stay six.
    """
    last = len(history) - 1
    picked = np.unique(np.linspace(0, last, min(last + 1, MOST_WINDOWS)).round().astype(np.int64))
    share = _shares(history[picked].astype(np.float64))
    if len(share) == 1:
        return LoadsToCome(share, ASSUMED_NOISE)
    unlike = max(1.0 - float(np.square(share).sum(axis=2).mean()), 1e-9)
    pairs = [_energy(share[i], share[j]) for i in range(len(share)) for j in range(i)]
    noise = max(min(pairs) / (2.0 * unlike), LEAST_NOISE)
    alike = ALIKE
    while True:
        workloads = _merge(share, noise * unlike * alike)
        if len(workloads) <= MOST_WORKLOADS:
            return LoadsToCome(workloads, noise)
        alike *= ALIKE


def _shares(load: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale rows to add up to 1. Rows without load get the mean of the other windows."""
    total = load.sum(axis=2, keepdims=True)
    share = np.divide(load, total, out=np.zeros_like(load), where=total > 0)
    known = np.maximum((total > 0).sum(axis=0), 1)
    mean = share.sum(axis=0) / known
    mean[mean.sum(axis=1) == 0] = 1.0 / load.shape[2]
    filled: NDArray[np.float64] = np.where(total > 0, share, mean)
    return filled


def _energy(share: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Squared distance of two loads [L, E], mean over the layers."""
    return float(np.square(share - other).sum(axis=1).mean())


def _merge(share: NDArray[np.float64], energy: float) -> NDArray[np.float64]:
    """Average windows, in order, with the nearest earlier mean, if it is within the noise."""
    means: list[NDArray[np.float64]] = []
    sizes: list[int] = []
    for window in share:
        near = [
            _energy(window, mean) / (1.0 + 1.0 / n) for mean, n in zip(means, sizes, strict=True)
        ]
        nearest = int(np.argmin(near)) if near else -1
        if near and near[nearest] <= energy:
            sizes[nearest] += 1
            means[nearest] = means[nearest] + (window - means[nearest]) / sizes[nearest]
        else:
            means.append(window)
            sizes.append(1)
    return np.stack(means)
