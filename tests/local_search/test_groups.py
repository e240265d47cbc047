"""Groups to nodes: the best packing, and those that may suit the GPUs better."""

from itertools import combinations, permutations

import numpy as np
import pytest
from support import fewer

import eplb_np
from eplb_np.local_search import groups
from eplb_np.local_search.groups import pack_groups


def node_makespan(load: np.ndarray, nodes: list[tuple[int, ...]]) -> float:
    return max(sum(load[g] for g in node) for node in nodes)


def best_nodes(load: np.ndarray, num_nodes: int) -> float:
    """Smallest heaviest node over all ways to give each node equally many groups."""

    def search(groups: tuple[int, ...]) -> float:
        if not groups:
            return 0.0
        first, rest = groups[0], groups[1:]
        best = np.inf
        for others in combinations(rest, len(load) // num_nodes - 1):
            left = tuple(g for g in rest if g not in others)
            heaviest = node_makespan(load, [(first, *others)])
            if heaviest < best:
                best = min(best, max(heaviest, search(left)))
        return best

    return search(tuple(range(len(load))))


@pytest.mark.parametrize(("num_groups", "num_nodes"), [(8, 4), (8, 2), (12, 4), (12, 3)])
def test_groups_are_packed_as_well_as_an_enumeration_can(num_groups, num_nodes) -> None:
    generator = np.random.default_rng(num_groups + num_nodes)
    for _ in range(fewer(5, 1)):
        load = np.round(generator.lognormal(3, 1, (1, num_groups)))
        topology = eplb_np.Topology(num_groups, num_groups, num_nodes, num_nodes, num_groups)
        plan = eplb_np.make_plan(load, topology)
        largest = plan.gpu_load(load).max()
        assert largest == pytest.approx(best_nodes(load[0], num_nodes), rel=1e-12)


@pytest.mark.parametrize(("num_groups", "speeds"), [(6, [1, 2, 1]), (6, [1, 3]), (8, [2, 1, 2, 1])])
def test_groups_are_packed_for_the_speeds_of_nodes(num_groups, speeds) -> None:
    generator = np.random.default_rng(num_groups + len(speeds))
    nodes = np.repeat(np.arange(len(speeds)), num_groups // len(speeds)).tolist()
    ways = np.array(sorted(set(permutations(nodes))))
    on_node = ways[:, :, None] == np.arange(len(speeds))
    for _ in range(fewer(8, 1)):
        load = np.round(generator.lognormal(3, 1, (1, num_groups)))
        topology = eplb_np.Topology(
            num_groups, num_groups, len(speeds), len(speeds), num_groups, gpu_speeds=speeds
        )
        longest = eplb_np.make_plan(load, topology).gpu_time(load).max()
        best = ((load[0, :, None] * on_node).sum(axis=1) / speeds).max(axis=1).min()
        assert longest == pytest.approx(best, rel=1e-12)


def slowest_nodes(load, node, num_nodes) -> np.ndarray:
    return np.array(
        [np.bincount(n, row, num_nodes).max() for n, row in zip(node, load, strict=True)]
    )


@pytest.mark.parametrize(("num_groups", "num_nodes"), [(12, 4), (9, 3), (12, 3)])
def test_each_packing_is_no_better_than_the_one_before(num_groups, num_nodes) -> None:
    load = np.random.default_rng(num_groups).lognormal(3, 0.5, (fewer(200, 60), num_groups))
    nodes = [pack_groups(load, np.ones(num_nodes), packing) for packing in range(3)]
    for node in nodes:
        for row in node:
            assert np.bincount(row).tolist() == [num_groups // num_nodes] * num_nodes
    best, swapped, lpt = (slowest_nodes(load, node, num_nodes) for node in nodes)
    rounding = 1 + 1e-6  # the search sees float32
    assert (best <= swapped * rounding).all()
    assert (swapped <= lpt * rounding).all()
    assert (best * rounding < swapped).any()
    assert (swapped * rounding < lpt).any()
    for row, slowest in zip(load[:3], best, strict=False):
        assert slowest == pytest.approx(best_nodes(row, num_nodes), rel=1e-9)


def test_two_groups_a_node_are_paired_without_a_search(monkeypatch) -> None:
    monkeypatch.setattr(groups, "search_layers", None)
    load = np.array([[4.0, 9, 1, 6], [5, 5, 5, 5]])
    assert pack_groups(load, np.ones(2)).tolist() == [[1, 0, 0, 1], [0, 1, 1, 0]]
