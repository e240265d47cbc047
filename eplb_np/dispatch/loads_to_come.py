"""Which loads a placement for the split prepares for: one for each workload that was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_WINDOWS = 32
"""Windows that are compared with each other; of more, as many are picked at even distances."""

MOST_WORKLOADS = 8
"""More are merged, the most alike first: a placement is judged by a few samples around each."""

ALIKE = 1.5
"""Windows are of one workload if they differ by at most this times what noise makes them differ."""

FIRST_NOISE = 2e-4
"""Noise that no window has shown to be less yet."""

LONGEST_MEMORY = 16
"""Windows that a workload's mean goes back, so that it follows a drift."""

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


class Workloads:
    """The workloads met so far, in memory that does not grow.

    Windows come one by one, and each is taken into the mean of the workload that it is alike, or
    becomes a new one. If there are too many, the two that are most alike become one.

    Parameters
    ----------
    num_layers : int
        Layers, L.
    num_experts : int
        Logical experts, E.
    """

    def __init__(self, num_layers: int, num_experts: int) -> None:
        self._share = np.empty((0, num_layers, num_experts))
        self._windows = np.empty(0)
        self._noise = FIRST_NOISE

    def observe(self, window: NDArray[np.floating[Any]]) -> None:
        """Take in a window [L, E]; one without any load is ignored."""
        if not window.any():
            return
        total = window.sum(axis=1, keepdims=True, dtype=np.float64)
        even = np.full(window.shape, 1.0 / window.shape[1])
        share = np.divide(window, total, out=even, where=total > 0)
        unlike = max(1.0 - float(np.square(share).sum(axis=1).mean()), 1e-9)
        if len(self._share):
            ratio = np.array([_energy(share, mean) for mean in self._share])
            ratio /= (1.0 + 1.0 / self._windows) * unlike
            nearest = int(ratio.argmin())
            self._noise = min(self._noise, max(float(ratio[nearest]), LEAST_NOISE))
            if ratio[nearest] <= ALIKE * self._noise:
                self._windows[nearest] = min(self._windows[nearest] + 1, LONGEST_MEMORY)
                self._share[nearest] += (share - self._share[nearest]) / self._windows[nearest]
                return
        self._share = np.concatenate([self._share, share[None]])
        self._windows = np.append(self._windows, 1.0)
        if len(self._share) > MOST_WORKLOADS:
            self._merge_nearest()

    def to_come(self) -> LoadsToCome:
        """Return the workloads, and the least noise that was seen."""
        return LoadsToCome(self._share, self._noise)

    def _merge_nearest(self) -> None:
        number = len(self._share)
        pairs = [(i, j) for i in range(number) for j in range(i)]
        nearest = int(np.argmin([_energy(self._share[i], self._share[j]) for i, j in pairs]))
        i, j = pairs[nearest]
        weight = self._windows[[i, j]]
        self._share[j] = np.average(self._share[[i, j]], axis=0, weights=weight)
        self._windows[j] = min(float(weight.sum()), LONGEST_MEMORY)
        self._share = np.delete(self._share, i, axis=0)
        self._windows = np.delete(self._windows, i)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return the whole state, to save it."""
        return {
            "share": self._share.copy(),
            "windows": self._windows.copy(),
            "noise": np.array([self._noise]),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a saved state, which may come from anywhere.

        Raises
        ------
        ValueError
            If it is not a state of these layers and experts.
        """
        share, windows, noise = (
            np.array(state[name], np.float64) for name in ("share", "windows", "noise")
        )
        good = (
            share.ndim == 3
            and share.shape[1:] == self._share.shape[1:]
            and len(share) <= MOST_WORKLOADS
            and windows.shape == (len(share),)
            and noise.shape == (1,)
            and bool(((share >= 0) & (share <= 1)).all())
            and bool(((windows >= 1) & (windows <= LONGEST_MEMORY)).all())
            and bool(((noise >= LEAST_NOISE) & (noise <= FIRST_NOISE)).all())
        )
        if not good:
            raise ValueError("its workloads hold what no window can leave behind")
        self._share, self._windows, self._noise = share, windows, float(noise[0])


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
