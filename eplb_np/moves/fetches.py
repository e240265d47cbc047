"""What counts as a fetch: a replica that a GPU gets and did not hold.

For each layer and GPU, experts are counted as multisets, before and after: what is there more often
than before must be fetched. Where on the GPU a replica sits does not matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

UNLIMITED = 1 << 40
"""A budget of fetches that never ends."""


def count_fetches(
    old_phy2log: NDArray[np.integer],
    new_phy2log: NDArray[np.integer],
    gpu_of_slot: NDArray[np.int64],
) -> int:
    """Count the fetches from one plan to another, [L, P], with the GPU of each slot given, [P]."""
    num_layers = old_phy2log.shape[0]
    layer_gpus = (int(gpu_of_slot.max()) + 1) * np.arange(num_layers)[:, None]
    gpu = (layer_gpus + gpu_of_slot).ravel()
    num_experts = int(max(old_phy2log.max(), new_phy2log.max())) + 1
    # One number for each (layer, GPU, expert), so that multisets of all GPUs are one.
    old = (gpu * num_experts + old_phy2log.ravel())[old_phy2log.ravel() >= 0]
    new = (gpu * num_experts + new_phy2log.ravel())[new_phy2log.ravel() >= 0]
    held, held_count = np.unique(old, return_counts=True)
    needed, needed_count = np.unique(new, return_counts=True)
    place = np.minimum(np.searchsorted(held, needed), held.size - 1)
    have = np.where(held[place] == needed, held_count[place], 0)
    return int(np.maximum(needed_count - have, 0).sum())


def fetched_slots(
    old_phy2log: NDArray[np.integer[Any]], new_phy2log: NDArray[np.integer[Any]]
) -> NDArray[np.bool_]:
    """Tell which slots [L, P] fetch, where what stays on a GPU has kept its slot.

    That holds for mended plans, and finds their fetches much sooner.
    """
    fetched: NDArray[np.bool_] = (new_phy2log != old_phy2log) & (new_phy2log >= 0)
    return fetched
