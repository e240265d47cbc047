"""Home nodes: where the groups of a plan are, and which replicas are elsewhere.

Letters: L layers, E logical experts, P slots, G groups, N nodes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eplb_np.topology import Topology


def home_nodes(phy2log: NDArray[np.signedinteger[Any]], topology: Topology) -> NDArray[np.int64]:
    """Return the home node of each logical expert, [L, E]: that of its group.

    Most of a group's experts have a replica there; of several such nodes, the one with most of the
    group's replicas; then the lowest. So a plan in which every expert has a replica on the node
    that its group was planned for has no more bridges by this count, even if this is another node.
    """
    num_layers, num_slots = phy2log.shape
    num_groups, num_nodes = topology.num_groups, topology.num_nodes
    group_size = topology.num_experts // num_groups
    layer, slot = np.nonzero(phy2log >= 0)
    expert = layer * topology.num_experts + phy2log[layer, slot]
    place = expert * num_nodes + _node_of_slot(topology)[slot]
    count = np.bincount(place, minlength=num_layers * topology.num_experts * num_nodes)
    count = count.reshape(num_layers, num_groups, group_size, num_nodes)
    rank = (count > 0).sum(axis=2) * (num_slots + 1) + count.sum(axis=2)
    home: NDArray[np.int64] = rank.argmax(axis=2).repeat(group_size, axis=1)
    return home


def away_from_home(
    phy2log: NDArray[np.signedinteger[Any]], topology: Topology
) -> NDArray[np.bool_]:
    """Return which slots hold a replica that is not on the home node of its expert, [L, P]."""
    home = home_nodes(phy2log, topology)
    away: NDArray[np.bool_] = np.take_along_axis(home, np.maximum(phy2log, 0), axis=1) != (
        _node_of_slot(topology)
    )
    return away & (phy2log >= 0)


def groups_are_home(phy2log: NDArray[np.signedinteger[Any]], topology: Topology) -> bool:
    """Whether groups are whole on their nodes, but for the bridges; True if placement is global."""
    if topology.placement == "global":
        return True
    away = away_from_home(phy2log, topology)
    if (away.sum(axis=1) > topology.bridges).any():
        return False
    layer, slot = np.nonzero((phy2log >= 0) & ~away)
    has_home = np.zeros((len(phy2log), topology.num_experts), bool)
    has_home[layer, phy2log[layer, slot]] = True
    return bool(has_home.all())


def _node_of_slot(topology: Topology) -> NDArray[np.int64]:
    return topology.gpu_of_slot // topology.gpus_per_node
