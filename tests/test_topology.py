"""Sizes that fit, and what follows from them."""

import itertools

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
    assert [type(size) for size in vars(topology).values() if size is not None] == [int] * 6
    assert topology == Topology(12, 16, 8, 2, 4)
    assert hash(topology) == hash(Topology(12, 16, 8, 2, 4))


def test_a_topology_is_frozen():
    with pytest.raises(AttributeError):
        Topology(12, 16, 8).num_gpus = 4


def test_slots_that_gpus_do_not_divide_are_spread_evenly():
    topology = Topology(8, 10, 4)
    assert topology.gpu_slots == (2, 3, 2, 3)
    assert topology.slots_per_gpu == 3
    assert topology.first_slots.tolist() == [0, 2, 5, 7, 10]
    assert topology.gpu_of_slot.tolist() == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert topology == Topology(8, 10, 4, gpu_slots=[2, 3, 2, 3])


def test_gpus_that_are_alike_are_not_told_apart():
    plain = Topology(8, 12, 4)
    given = Topology(8, 12, 4, gpu_slots=np.full(4, 3), gpu_speeds=[1] * 4, active_gpus=range(4))
    assert given == plain
    assert hash(given) == hash(plain)
    assert (given.gpu_slots, given.gpu_speeds, given.active_gpus) == (None, None, None)


def test_gpus_that_are_gone_have_numbered_slots_that_are_not_used():
    topology = Topology(8, 12, 4, active_gpus=[3, 0, 1], gpu_speeds=[1, 2, 4, 0.5])
    assert topology.active_gpus == (0, 1, 3)
    assert topology.first_slots.tolist() == [0, 3, 6, 9, 12]
    assert topology.active_slots.tolist() == [3, 3, 0, 3]
    assert topology.slowness.tolist() == [1.0, 0.5, 0.25, 2.0]
    assert topology.active_speed == 3.5
    assert topology == Topology(
        8, 12, 4, active_gpus=np.array([True, True, False, True]), gpu_speeds=(1.0, 2.0, 4.0, 0.5)
    )


def test_placement_is_global_where_a_node_lacks_the_slots_for_its_groups():
    sizes = {"num_experts": 8, "num_replicas": 12, "num_gpus": 4, "num_nodes": 2, "num_groups": 4}
    assert Topology(**sizes, gpu_speeds=[1, 2, 1, 1]).placement == "hierarchical"
    assert Topology(**sizes, active_gpus=[0, 1, 2]).placement == "global"
    roomy = {**sizes, "num_replicas": 16}
    assert Topology(**roomy, active_gpus=[0, 1, 2]).placement == "hierarchical"


def test_placement_is_global_on_one_node_whose_groups_still_order_its_experts():
    topology = Topology(8, 12, 4, num_nodes=1, num_groups=4)
    assert topology.placement == "global"
    assert topology.packed_groups_and_nodes == (4, 1)


def test_arrays_are_read_only():
    topology = Topology(8, 12, 4)
    for array in (topology.first_slots, topology.active_slots, topology.slowness):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"gpu_slots": [3, 3, 3]}, ["gpu_slots has 3 entries", "num_gpus=4", "one for each"]),
        ({"gpu_slots": [3, 3, 3, 4]}, ["add up to 13", "num_replicas=12", "num_replicas=13"]),
        ({"gpu_slots": [3, 3, 7, -1]}, ["gpu_slots=-1", "at least 0"]),
        ({"gpu_speeds": [1, 1, 1, 0]}, ["gpu_speeds is 0", "positive", "active_gpus"]),
        ({"gpu_speeds": [1, 1, 1, float("nan")]}, ["gpu_speeds is nan"]),
        ({"gpu_speeds": [1, 1, 1, "x"]}, ["gpu_speeds is 'x'"]),
        ({"gpu_speeds": [5e-324] * 4}, ["gpu_speeds is 5e-324", "2**-40 to 2**40"]),
        ({"gpu_speeds": [1e300] * 4}, ["gpu_speeds is 1e+300", "2**-40 to 2**40"]),
        ({"gpu_speeds": [1, 1, 1, float("inf")]}, ["gpu_speeds is inf", "2**-40 to 2**40"]),
        ({"gpu_speeds": [1, 1, 1, 10**400]}, ["gpu_speeds is 1000", "2**-40 to 2**40"]),
        ({"gpu_speeds": [1, 2, 0.001, 1]}, ["from 0.001 to 2.0", "at most 1000 times"]),
        ({"gpu_speeds": [1]}, ["gpu_speeds has 1 entries"]),
        ({"active_gpus": []}, ["active_gpus=[] must be unique GPU ids in 0..3", "bools"]),
        ({"active_gpus": [0, 0, 1, 2]}, ["active_gpus=[0, 0, 1, 2] must be unique"]),
        ({"active_gpus": [1, 2, 3, 4]}, ["active_gpus"]),
        ({"active_gpus": [-1, 2, 3]}, ["active_gpus"]),
        ({"active_gpus": [0.5, 1]}, ["active_gpus"]),
        ({"active_gpus": np.arange(2000)}, ["active_gpus=array([ 0, 1, 2,", "0..3"]),
        ({"gpu_slots": 3}, ["gpu_slots=3 is not a sequence", "one entry for each GPU"]),
        ({"active_gpus": [True, False]}, ["active_gpus"]),
        ({"active_gpus": [1, 2]}, ["2 active GPUs have 6 slots", "2 slots are missing"]),
    ],
)
def test_gpus_that_do_not_fit_are_refused(given, parts):
    with refused(*parts):
        Topology(8, 12, 4, **given)


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ({"num_gpus": 13}, ["num_replicas=12 is less than num_gpus=13", "a slot", "fewer GPUs"]),
        ({"num_gpus": 10**9}, ["num_gpus=1000000000 is too large", "at most 1048576"]),
        ({"num_gpus": 10**6}, ["num_replicas=12 is less than num_gpus=1000000"]),
        ({"num_gpus": 10**6, "active_gpus": [0]}, ["num_replicas=12 is less than num_gpus"]),
        ({"num_replicas": 2**40}, ["num_replicas=1099511627776 is too large"]),
        ({"num_experts": 2**64}, ["num_experts=18446744073709551616 is too large"]),
        ({"num_experts": 10**5000}, ["num_experts=<int> is too large"]),
        ({"num_experts": -(10**5000)}, ["num_experts=<int> is too small"]),
        ({"gpu_slots": 5}, ["gpu_slots=5 is not a sequence"]),
        ({"gpu_slots": itertools.count()}, ["gpu_slots has 5 or more entries", "num_gpus=4"]),
        ({"gpu_slots": [3, 3, 3, 10**400]}, ["an entry of gpu_slots", "too large"]),
        ({"active_gpus": range(10**12)}, ["active_gpus=range(0, 1000000000000)"]),
        ({"active_gpus": itertools.count()}, ["active_gpus=count(0)"]),
    ],
)
def test_sizes_are_compared_before_anything_is_built(sizes, parts):
    with refused(*parts):
        Topology(**{"num_experts": 8, "num_replicas": 12, "num_gpus": 4, **sizes})


def test_long_values_are_shortened_in_messages():
    with pytest.raises(ValueError, match=r"\.\.\. must be unique") as error:
        Topology(8, 1 << 20, 1 << 12, active_gpus=[-1] * (1 << 12))
    assert len(str(error.value)) < 1000


def test_the_largest_range_of_speeds_is_accepted():
    for slowest in (2.0**-40, 1.0, 2.0**40 / 1000):
        speeds = (slowest, slowest, slowest * 1000, slowest)
        assert Topology(8, 12, 4, gpu_speeds=speeds).gpu_speeds == speeds
