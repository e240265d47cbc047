"""Layers of the refined policy: groups to nodes, then node by node.

Letters: L layers, E logical experts, P slots, G groups, N nodes, D GPUs.
"""

from __future__ import annotations

import numpy as np

from eplb_np._numba.arrays import ints
from eplb_np._numba.jit import entry, kernel
from eplb_np._numba.types import Doubles, Floats, Int, Ints
from eplb_np.local_search.groups import GroupsScratch, assign_groups, make_groups_scratch
from eplb_np.local_search.node import (
    GOOD_ENOUGH,
    IDLE_GOOD_ENOUGH,
    SearchScratch,
    make_search_scratch,
    search_node,
)
from eplb_np.maps.cpu import number_replicas
from eplb_np.maps.maps import EMPTY, Maps
from eplb_np.topology import Gpus


@entry
def search_layers(weight: Floats, num_groups: Int, num_nodes: Int, gpus: Gpus, maps: Maps) -> None:
    """Plan every row of ``weight`` [L, E] float32 by local search.

    Out: ``maps`` int64, with -1 in the slots of GPUs that are gone; ranks follow the order of the
    slots.
    """
    phy2log, phyrank, logcnt = maps
    num_layers, num_experts = weight.shape
    num_gpus = gpus.size.shape[0]
    node_experts = num_experts // num_nodes
    scratch = make_search_scratch(most_slots(gpus), num_gpus // num_nodes, node_experts)
    groups = make_groups_scratch(num_groups, num_nodes)
    member = ints(node_experts)
    for i in range(num_layers):
        search_layer(weight[i], gpus, phy2log[i], member, groups, scratch)
        number_replicas(phy2log[i], phyrank[i], logcnt[i])


@kernel
def search_layer(
    weight: Floats,
    gpus: Gpus,
    phy2log: Ints,
    member: Ints,
    groups: GroupsScratch,
    scratch: SearchScratch,
) -> None:
    """Plan one layer: ``weight`` [E], out: ``phy2log`` [P]. Scratch: ``member`` [E / N] int64."""
    table = scratch.table
    num_groups = groups.load.shape[0]
    num_nodes = groups.node_load.shape[0]
    group_size = weight.shape[0] // num_groups
    node_gpus = table.size.shape[0]
    speed = node_speeds(gpus, groups.node_speed)
    total = 0.0
    for e in range(weight.shape[0]):
        total += np.float64(weight[e])
    unit = speed / total if total > 0.0 else 1.0

    for k in range(num_groups):
        groups.load[k] = 0.0
        for e in range(k * group_size, (k + 1) * group_size):
            groups.load[k] += np.float64(weight[e]) * unit
    for n in range(num_nodes):
        groups.search.table.slowness[n] = groups.node_speed[0] / groups.node_speed[n]
    assign_groups(groups)
    node_load = groups.node_load
    for n in range(num_nodes):
        node_load[n] = 0.0
    for k in range(num_groups):
        node_load[groups.node[k]] += groups.load[k]
    longest = 0.0
    for n in range(num_nodes):
        longest = max(longest, node_load[n] / groups.node_speed[n])

    for slot in range(phy2log.shape[0]):
        phy2log[slot] = EMPTY
    for n in range(num_nodes):
        i = 0
        for k in range(num_groups):
            if groups.node[k] == n:
                for e in range(k * group_size, (k + 1) * group_size):
                    member[i] = e
                    table.weight[i] = np.float64(weight[e]) * unit
                    i += 1
        for g in range(node_gpus):
            table.size[g] = gpus.size[n * node_gpus + g]
            table.slowness[g] = gpus.slowness[n * node_gpus + g]
        waits = node_load[n] / groups.node_speed[n] < longest
        search_node(scratch, IDLE_GOOD_ENOUGH if waits else GOOD_ENOUGH)
        for g in range(node_gpus):
            for r in range(table.size[g]):
                phy2log[gpus.first_slot[n * node_gpus + g] + r] = member[table.expert[r, g]]


@kernel
def most_slots(gpus: Gpus) -> Int:
    """Slots of the largest GPU."""
    most: Int = 0
    for g in range(gpus.size.shape[0]):
        most = max(most, gpus.first_slot[g + 1] - gpus.first_slot[g])
    return most


@kernel
def node_speeds(gpus: Gpus, speed: Doubles) -> float:
    """Sum the speeds of each node's active GPUs into ``speed`` [N]; returns the sum of all."""
    num_nodes = speed.shape[0]
    node_gpus = gpus.size.shape[0] // num_nodes
    total = 0.0
    for n in range(num_nodes):
        speed[n] = 0.0
        for g in range(n * node_gpus, (n + 1) * node_gpus):
            if gpus.size[g] > 0:
                speed[n] += 1.0 / gpus.slowness[g]
        total += speed[n]
    return total
