"""Layers of the refined policy whose groups have their nodes: node by node.

Letters: L layers, E logical experts, P slots, G groups, N nodes, D GPUs.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.arrays import ints
from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Doubles, Floats, Int, Ints
from eplb_np.local_search.node import SearchScratch, make_search_scratch, search_node
from eplb_np.maps.cpu import number_replicas
from eplb_np.maps.maps import EMPTY, Maps
from eplb_np.topology import Gpus


@entry
def search_layers(
    weight: Floats,
    node_of_group: Ints,
    good_enough: Doubles,
    gap: float,
    gpus: Gpus,
    maps: Maps,
    longest: Doubles,
) -> None:
    """Plan every row of ``weight`` [L, E] float32 by local search.

    ``node_of_group`` [L, G] int64 gives equally many groups to each node. The search of a node
    ends within ``good_enough`` [L, N] float64 of its lower bound. Where a plan ends farther than
    ``gap`` above the mean time, those with duplicates are searched, too. Out: ``maps`` int64, with
    -1 in the slots of GPUs that are gone, and ranks in the order of the slots; ``longest`` [L]
    float64, the longest time of a GPU, in the unit of the loads.
    """
    phy2log, phyrank, logcnt = maps
    num_layers, num_experts = weight.shape
    num_gpus = gpus.size.shape[0]
    num_nodes = good_enough.shape[1]
    scratch = make_search_scratch(most_slots(gpus), num_gpus // num_nodes, num_experts // num_nodes)
    scratch.gap[0] = gap
    member = ints(num_experts // num_nodes)
    speed = 0.0
    for g in range(num_gpus):
        if gpus.size[g] > 0:
            speed += 1.0 / gpus.slowness[g]
    for i in range(num_layers):
        total = 0.0
        for e in range(num_experts):
            total += np.float64(weight[i, e])
        unit = speed / total if total > 0.0 else 1.0
        time = search_layer(
            weight[i], unit, node_of_group[i], good_enough[i], gpus, phy2log[i], member, scratch
        )
        longest[i] = time / unit
        number_replicas(phy2log[i], phyrank[i], logcnt[i])


@kernel
def search_layer(
    weight: Floats,
    unit: float,
    node_of_group: Ints,
    good_enough: Doubles,
    gpus: Gpus,
    phy2log: Ints,
    member: Ints,
    scratch: SearchScratch,
) -> float:
    """Plan one layer: ``weight`` [E], scaled by ``unit``; out: ``phy2log`` [P].

    Scratch: ``member`` [E / N] int64. Returns the longest time of a GPU.
    """
    table = scratch.table
    size, slowness = table.size, table.slowness
    node_gpus = size.shape[0]
    group_size = weight.shape[0] // node_of_group.shape[0]
    longest = 0.0
    for slot in range(phy2log.shape[0]):
        phy2log[slot] = EMPTY
    for n in range(good_enough.shape[0]):
        i = 0
        for k in range(node_of_group.shape[0]):
            if node_of_group[k] == n:
                for e in range(k * group_size, (k + 1) * group_size):
                    member[i] = e
                    table.weight[i] = np.float64(weight[e]) * unit
                    i += 1
        for g in range(node_gpus):
            size[g] = gpus.size[n * node_gpus + g]
            slowness[g] = gpus.slowness[n * node_gpus + g]
        longest = max(longest, search_node(scratch, good_enough[n]))
        for g in range(node_gpus):
            first = gpus.first_slot[n * node_gpus + g]
            for r in range(size[g]):
                phy2log[first + r] = member[table.expert[r, g]]
    return longest


@kernel
def most_slots(gpus: Gpus) -> Int:
    """Slots of the largest GPU."""
    most: Int = 0
    for g in range(gpus.size.shape[0]):
        most = max(most, gpus.first_slot[g + 1] - gpus.first_slot[g])
    return most
