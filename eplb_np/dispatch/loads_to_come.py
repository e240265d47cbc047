"""Which loads a placement for the split prepares for: one for each workload that was met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eplb_np.forecast import Expected

MOST_WORKLOADS = 8
"""More are merged, the most alike first: a placement is judged by a few samples around each."""

ALIKE = 1.5
"""Windows are of one workload if they differ by at most this times what noise makes them differ."""

FIRST_NOISE = 2e-4
"""Noise that no window has shown to be less yet. That of windows of prefill is about 4e-5, and that
of small decode batches 1.4e-4."""

LEAST_NOISE = 1e-6
"""Windows that are copies of each other are still no promise of the next one."""

LONGEST_MEMORY = 16
"""Windows that a workload's mean goes back, so that it follows a drift."""


class Workloads:
    """The workloads met so far, in memory that does not grow.

    Windows come one by one, and each is taken into the mean of the workload that it is alike, or
    becomes a new one. If there are too many, the two that are most alike become one. How much
    windows of one workload differ, their noise, is learned from those that differ least. So steady
    windows become one workload, and recordings that differ by more than noise stay apart.

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
        """Take in a window [L, E]. One without any load is ignored.

        A layer without load says nothing, and is taken for the mean of the workloads known. Until
        it has load for the first time, all experts are taken for alike.
        """
        loaded = window.any(axis=1)
        if not loaded.any():
            return
        share = rows_to_one(window)
        if len(self._share):
            first = loaded & (self._share == 1.0 / share.shape[1]).all(axis=(0, 2))
            self._share[:, first] = share[first]
            share[~loaded] = self._share[:, ~loaded].mean(axis=0)
            compared = loaded & ~first
            if not compared.any():
                return
            ratio = np.array([_energy(share[compared], mean[compared]) for mean in self._share])
            unlike = max(1.0 - float(np.square(share[compared]).sum(axis=1).mean()), 1e-9)
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

    def added_to(self, expected: Expected) -> Expected:
        """Return a forecast with all workloads, and the least noise that was seen."""
        if len(self._share) == 0:
            return expected
        return expected._replace(workloads=self._share, noise=self._noise)

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


def rows_to_one(load: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Scale the last axis to add up to 1; rows without load are even."""
    # Cast first: sum(dtype=...) casts piece by piece, and pieces differ between versions of NumPy.
    total = load.astype(np.float64).sum(axis=-1, keepdims=True)
    share = np.full(load.shape, 1.0 / load.shape[-1])
    np.divide(load, total, out=share, where=total > 0)
    return share


def _energy(share: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Squared distance of two loads [L, E], mean over the layers."""
    return float(np.square(share - other).sum(axis=1).mean())
