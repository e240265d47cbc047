"""What counts as a fetch: a replica that a GPU needs and does not hold.

For each layer and GPU, experts are counted as multisets, before and after. What is there more often
than before must be fetched; in which slot of the GPU does not matter. Everything that counts,
limits or prices fetches follows this rule:

* `count_fetches` applies it to any two plans: `moved_replicas`, the replay.
* `fetched_slots` finds the same fetches in a mended plan, where each replica that stays on its GPU
  keeps its slot: limits.
* Mending charges a budget as it goes (``mending/budget.py``). Its total agrees with the two above
  or is higher, as later moves may undo earlier ones.
* `Moves.num_fetched` differs in one case. If a GPU is to hold an expert twice, and held it at most
  once, the second replica is a fetch here, but `Moves` copies it within the GPU and does not count
  it: it counts each expert that a GPU needs and does not hold once. Mending and the refined policy
  avoid such duplicates.

Letters: L layers, P slots.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

UNLIMITED = 1 << 40
"""A budget of fetches that is never used up."""


def count_fetches(
    old_phy2log: NDArray[np.integer],
    new_phy2log: NDArray[np.integer],
    gpu_of_slot: NDArray[np.int64],
) -> int:
    """Count the fetches from one plan [L, P] to another; ``gpu_of_slot`` [P] is each slot's GPU."""
    num_layers = old_phy2log.shape[0]
    layer_gpus = (int(gpu_of_slot.max()) + 1) * np.arange(num_layers)[:, None]
    gpu = (layer_gpus + gpu_of_slot).ravel()
    num_experts = int(max(old_phy2log.max(), new_phy2log.max())) + 1
    # One number for each (layer, GPU, expert) makes one multiset of all.
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
    """Tell which slots [L, P] of a mended plan fetch: those whose expert has changed.

    Much faster than `count_fetches`, but only right if what stays on a GPU keeps its slot.
    """
    fetched: NDArray[np.bool_] = (new_phy2log != old_phy2log) & (new_phy2log >= 0)
    return fetched
