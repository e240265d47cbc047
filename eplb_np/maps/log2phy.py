"""``log2phy``, the inverse of ``phy2log``: the slots of each expert's replicas.

Its last axis has room for the replicas of any expert; policies differ in how much room.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eplb_np.topology import Topology


def width_for_any_plan(topology: Topology, logcnt: NDArray[np.integer]) -> int:
    """Room for an expert that has every redundant slot, as in the published hybrid program."""
    return topology.num_replicas - topology.num_experts + 1


def width_for_this_plan(topology: Topology, logcnt: NDArray[np.integer]) -> int:
    """Room for the expert with most replicas, as in deepseek-ai/EPLB."""
    return int(logcnt.max())


def make_log2phy(
    phy2log: NDArray[np.int64], phyrank: NDArray[np.int64], num_experts: int, width: int
) -> NDArray[np.int64]:
    """Slot of each replica of each expert: [L, E, width] int64, -1 after an expert's last one."""
    from eplb_np.maps.cpu import fill_log2phy

    log2phy = np.empty((phy2log.shape[0], num_experts, width), np.int64)
    log2phy.view(np.uint8).fill(0xFF)  # EMPTY is all ones; np.full takes 1.7 times as long
    fill_log2phy(phy2log, phyrank, log2phy)
    return log2phy
