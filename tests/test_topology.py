"""Sizes that fit, and what follows from them."""

import numpy as np
import pytest
from support import refused

from eplb_np import Topology


def test_sizes_of_a_deployment():
    topology = Topology(256, 288, 32, 4, 8)
    assert topology.slots_per_gpu == 9
    assert topology.gpus_per_node == 8
    assert topology.placement == "hierarchical"
    assert topology.packed_groups_and_nodes == (8, 4)
    topology.check_hierarchical()


def test_groups_that_nodes_do_not_divide_are_not_kept_apart():
    topology = Topology(256, 288, 32, num_nodes=4, num_groups=2)
    assert topology.placement == "global"
    assert topology.packed_groups_and_nodes == (1, 1)
    with refused("num_groups=2 is not a multiple of num_nodes=4"):
        topology.check_hierarchical()


def test_sizes_become_ints():
    topology = Topology(np.int32(12), np.uint8(16), np.array(8), np.int64(2), True + 3)
    assert [type(size) for size in vars(topology).values()] == [int] * 5
    assert topology == Topology(12, 16, 8, 2, 4)
    assert hash(topology) == hash(Topology(12, 16, 8, 2, 4))


def test_a_topology_is_frozen():
    with pytest.raises(AttributeError):
        Topology(12, 16, 8).num_gpus = 4
