"""The lower bound is under every plan, and exact where it says so."""

import naive
import numpy as np
import pytest
from support import fewer, refused

from eplb_np import Topology, lower_bound

RNG = np.random.default_rng(4)
ROUNDING = 1 + 1e-12

# experts, replicas, GPUs, nodes, groups
TINY = [
    (3, 4, 2, 1, 1),
    (5, 8, 4, 1, 1),
    (4, 8, 2, 1, 1),
    (3, 8, 4, 2, 3),  # global, as 2 nodes do not divide 3 groups
    (4, 4, 2, 2, 4),
    (4, 8, 4, 2, 2),
    (4, 6, 2, 2, 4),
]
LOADS = {
    "integers": lambda shape: RNG.integers(0, 20, shape),
    "skewed": lambda shape: RNG.lognormal(0, 2, shape),
    "one hot": lambda shape: np.eye(shape[1])[RNG.integers(0, shape[1], shape[0])] * 1000,
    "zero": np.zeros,
}


def optima(load, topology):
    sizes = topology.num_replicas, topology.num_gpus, topology.num_nodes, topology.num_groups
    return np.array([naive.optimal_makespan(row, *sizes) for row in load])


@pytest.mark.parametrize("kind", LOADS)
@pytest.mark.parametrize("sizes", TINY, ids=str)
def test_bound_is_under_the_best_plan(sizes, kind):
    topology = Topology(*sizes)
    load = LOADS[kind]((fewer(30, 5), topology.num_experts))
    assert (lower_bound(load, topology) <= optima(load, topology) * ROUNDING).all()


@pytest.mark.parametrize("num_replicas", [4, 5, 8])
def test_bound_is_the_largest_replica_where_a_gpu_has_one_slot(num_replicas):
    load = RNG.lognormal(0, 1, (20, 4))
    topology = Topology(4, num_replicas, num_replicas)
    np.testing.assert_allclose(lower_bound(load, topology), optima(load, topology), rtol=1e-12)


@pytest.mark.parametrize("num_nodes", [2, 3])
def test_bound_is_the_best_pairing_where_a_node_has_two_groups(num_nodes):
    load = RNG.lognormal(0, 1, (20, 2 * num_nodes))
    topology = Topology(2 * num_nodes, 2 * num_nodes, num_nodes, num_nodes, 2 * num_nodes)
    np.testing.assert_allclose(lower_bound(load, topology), optima(load, topology), rtol=1e-12)


def test_bound_is_the_mean_where_nothing_is_in_the_way():
    load = np.full((1, 8), 2.5)
    assert lower_bound(load, Topology(8, 8, 4)).tolist() == [5.0]


def test_groups_raise_the_bound():
    load = [[9, 9, 1, 1, 1, 1, 1, 1]]
    assert lower_bound(load, Topology(8, 12, 4)) == 6
    assert lower_bound(load, Topology(8, 12, 4, num_nodes=2, num_groups=4)) == 10


def test_many_groups_to_a_node_bound_from_the_heaviest():
    # Of the 4 heaviest groups, two share a node, with the lightest at best.
    load = np.array([[8.0, 8, 8, 8, 1, 1, 1, 1, 1]])
    topology = Topology(9, 9, 3, 3, 9)
    assert lower_bound(load, topology) == 17
    assert lower_bound(load * 1e30, topology) == pytest.approx(17e30)


def test_bound_is_on_the_loads_as_given():
    """Not on their float32 images."""
    load = np.array([[2**24 + 1, 2**24 + 1]])
    assert lower_bound(load, Topology(2, 2, 2)) == 2**24 + 1


def test_loads_of_other_experts_are_refused():
    with refused("load has 3 experts", "num_experts=4"):
        lower_bound([[1, 2, 3]], Topology(4, 4, 2))
