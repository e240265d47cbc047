"""Plans made for the best split: layers are shared out to threads.

Letters: W windows, L layers, E logical experts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._numba.threads import BLOCK_SLOTS, choose_num_threads, for_each_block
from eplb_np.maps.homes import home_nodes
from eplb_np.maps.maps import Maps
from eplb_np.topology import Topology


class Effort(NamedTuple):
    """How long to search: counts, so that plans do not depend on the machine.

    For 288 replicas on 32 GPUs, a layer took 40 ms.
    """

    num_samples: int = 48
    """Loads that are drawn around a forecast."""

    work: int = 800_000
    """GPUs that the searches for paths may visit, twice."""


FULL = Effort()

SAMPLES_OF_WORKLOAD = 16
"""Loads drawn around each of several windows, with a work that grows with their number."""

MOST_SAMPLES = 128
"""If there are so many windows that this is exceeded, fewer are drawn around each, at least one."""


def place_for_split(
    maps: Maps,
    windows: NDArray[np.floating],
    topology: Topology,
    noise: float,
    num_threads: int | None = None,
    *,
    certain: bool = False,
    effort: Effort = FULL,
) -> Maps:
    """Change a plan so that the best split of the loads to come has room.

    Parameters
    ----------
    maps : Maps
        The plan to start from: a plan of the refined policy, or a mended one. Groups that are
        whole on their nodes stay there, but for bridges.
    windows : ndarray, shape [W, L, E], float32 or float64
        Checked loads: a forecast, or a window of each workload that the plan is to serve.
    topology : Topology
        The deployment of the plan.
    noise : float
        Variance of an expert's share in a window, over the share, as `LoadForecast.noise`.
    num_threads : int, optional
        Threads over layers; by default at most 4.
    certain : bool, default: False
        Whether every batch is sure to be split. If so, GPUs that cannot all be connected, because
        there are fewer spare slots than GPUs, are planned in two parts, where that is better.
        With an even split such a plan is bad. Otherwise, an even split of the forecast takes at
        most 2 % longer than with the plan to start from.
    effort : Effort
        How long to search.

    Returns
    -------
    Maps
        The new plan, int64; ranks follow the order of the slots.

    Notes
    -----
    Identical across runs and thread counts.
    """
    from eplb_np.dispatch.placement.layers import place_layers

    num_windows, num_layers, _ = windows.shape
    result = Maps(*(array.astype(np.int64) for array in maps))
    # Layers first, so that any block of them has no gaps in memory: gaps are another type to Numba.
    load = np.ascontiguousarray(windows.swapaxes(0, 1), np.float64)
    num_nodes = topology.num_nodes if topology.placement == "hierarchical" else 1
    num_samples = samples_for(num_windows, effort.num_samples)
    work = effort.work * num_samples // effort.num_samples
    if certain and topology.num_replicas - topology.num_experts < topology.num_gpus:
        num_samples *= 2  # GPUs on their own fit samples too well, if these are few
    bridges, home = bridges_and_homes(result.phy2log, topology)
    sizes = (num_nodes, num_samples, work, int(certain), int(maps.logcnt.max()), bridges)

    def place(start: int, stop: int) -> None:
        place_layers(
            load[start:stop], topology.gpus, float(noise), np.array([*sizes, start]),
            home[start:stop], Maps(*(array[start:stop] for array in result)),
        )  # fmt: skip

    threads = choose_num_threads(num_threads, num_layers, BLOCK_SLOTS)
    for_each_block(place, num_layers, BLOCK_SLOTS, threads)
    return result


def bridges_and_homes(
    phy2log: NDArray[np.int64], topology: Topology
) -> tuple[int, NDArray[np.int64]]:
    """Return the most bridges of a layer, and the lowest GPU of each expert's home node, [L, E].

    Without bridges, homes are not looked at.
    """
    if topology.bridges == 0 or topology.placement == "global":
        return 0, np.zeros((len(phy2log), topology.num_experts), np.int64)
    return topology.bridges, home_nodes(phy2log, topology) * topology.gpus_per_node


def samples_for(num_windows: int, num_samples: int) -> int:
    """Return how many loads to draw: equally many around each window, and at least so many.

    >>> [samples_for(windows, 48) for windows in (1, 5, 6, 200)]
    [48, 80, 96, 200]
    """
    least = -(-num_samples // num_windows)
    each = max(1, min(SAMPLES_OF_WORKLOAD, MOST_SAMPLES // num_windows))
    return num_windows * (least if num_windows == 1 else max(least, each))
