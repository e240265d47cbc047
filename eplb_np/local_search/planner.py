"""Plans of the refined policy from scratch: layers are shared out to threads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eplb_np._numba.threads import choose_num_threads, for_each_block
from eplb_np.maps.maps import Maps, empty_maps
from eplb_np.topology import Topology


def make_maps(
    weight: NDArray[np.float32], topology: Topology, policy: str, num_threads: int | None = None
) -> Maps:
    """Plan checked loads ``weight`` [L, E]; groups stay whole where placement is hierarchical."""
    from eplb_np.local_search.layers import search_layers

    num_layers = len(weight)
    maps = empty_maps(num_layers, topology)

    def plan(start: int, stop: int) -> None:
        search_layers(
            weight[start:stop], *topology.packed_groups_and_nodes, topology.gpus,
            Maps(*(array[start:stop] for array in maps)),
        )  # fmt: skip

    threads = choose_num_threads(num_threads, num_layers, topology.num_replicas)
    for_each_block(plan, num_layers, topology.num_replicas, threads)
    return maps
