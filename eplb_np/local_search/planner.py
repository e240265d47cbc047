"""Plans of the refined policy from scratch: groups to nodes, then the search, block by block."""

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
    from eplb_np.local_search.node import DUPLICATES_GAP

    return _make_maps(weight, topology, DUPLICATES_GAP, num_threads)


def make_separate_maps(
    weight: NDArray[np.float32], topology: Topology, num_threads: int | None = None
) -> Maps:
    """Plan as `make_maps`, with an expert twice on a GPU only where that cannot be avoided."""
    from eplb_np.local_search.node import NO_DUPLICATES

    return _make_maps(weight, topology, NO_DUPLICATES, num_threads)


def _make_maps(
    weight: NDArray[np.float32], topology: Topology, gap: float, num_threads: int | None
) -> Maps:
    num_layers = len(weight)
    maps = empty_maps(num_layers, topology)
    num_nodes = topology.packed_groups_and_nodes[1]

    def plan(start: int, stop: int) -> None:
        rows = Maps(*(array[start:stop] for array in maps))
        if num_nodes == 1:
            together = np.zeros((stop - start, 1))
            _search(weight[start:stop], together.astype(np.int64), together, gap, topology, rows)
        else:
            _plan_nodes(weight[start:stop], gap, topology, rows)

    threads = choose_num_threads(num_threads, num_layers, topology.num_replicas)
    for_each_block(plan, num_layers, topology.num_replicas, threads)
    return maps


def _plan_nodes(weight: NDArray[np.float32], gap: float, topology: Topology, maps: Maps) -> None:
    """Plan rows whose groups go to nodes first.

    The best packing of the groups is not always that of the best plan, as the GPUs of a node may
    be hard to balance. Layers that end far from their slowest node's mean try the others, too.
    """
    from eplb_np.local_search.groups import NUM_PACKINGS, pack_groups
    from eplb_np.local_search.node import DUPLICATES_GAP

    num_layers = len(weight)
    num_groups, num_nodes = topology.packed_groups_and_nodes
    group_load = weight.reshape(num_layers, num_groups, -1).sum(axis=2, dtype=np.float64)
    speed = np.where(topology.active_slots > 0, 1.0 / topology.slowness, 0.0)
    slowness = 1.0 / speed.reshape(num_nodes, -1).sum(axis=1)

    node = pack_groups(group_load, slowness)
    node_time = _node_times(group_load, node, slowness)
    longest = _search(weight, node, node_time, gap, topology, maps)
    enough = node_time.max(axis=1) * (1.0 + DUPLICATES_GAP)
    for packing in range(1, NUM_PACKINGS):
        far = np.flatnonzero(longest > enough)
        if len(far) == 0 or num_groups == num_nodes:
            break
        load = group_load[far]
        node = pack_groups(load, slowness, packing)
        node_time = _node_times(load, node, slowness)
        others = empty_maps(len(far), topology)
        times = _search(weight[far], node, node_time, gap, topology, others)
        better = times < longest[far]
        for array, other in zip(maps, others, strict=True):
            array[far[better]] = other[better]
        longest[far[better]] = times[better]


def _node_times(
    group_load: NDArray[np.float64], node: NDArray[np.int64], slowness: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Time that each node takes at least: [L, N]."""
    on_node = node[:, None, :] == np.arange(len(slowness))[:, None]
    times: NDArray[np.float64] = (group_load[:, None, :] * on_node).sum(axis=2) * slowness
    return times


def _search(
    weight: NDArray[np.float32],
    node_of_group: NDArray[np.int64],
    node_time: NDArray[np.float64],
    gap: float,
    topology: Topology,
    maps: Maps,
) -> NDArray[np.float64]:
    """Plan rows into ``maps``; returns the longest time of a GPU in each."""
    from eplb_np.local_search.layers import search_layers
    from eplb_np.local_search.node import GOOD_ENOUGH, IDLE_GOOD_ENOUGH

    waits = node_time < node_time.max(axis=1, keepdims=True)
    good_enough = np.where(waits, IDLE_GOOD_ENOUGH, GOOD_ENOUGH)
    longest = np.empty(len(weight))
    search_layers(weight, node_of_group, good_enough, gap, topology.gpus, maps, longest)
    return longest
