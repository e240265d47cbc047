"""The hook of sglang-jax: what its start relies on."""

from enum import Enum, auto

import numpy as np
import pytest
from engine_tables import LOADS, check_tables, engine_module, repeated, unchanged
from support import refused

from eplb_np.engines import sglang_jax


class EplbAlgorithm(Enum):
    """As sglang-jax has it."""

    deepseek = auto()
    deepseek_hierarchical = auto()


def ask(load, algorithm=EplbAlgorithm.deepseek_hierarchical, *, groups=4, nodes=2, **wishes):
    return sglang_jax.rebalance_experts(
        tokens_per_expert=load,
        num_physical_experts=24,
        num_local_physical_experts=6,
        num_groups=groups,
        num_nodes=nodes,
        algorithm=algorithm,
        **wishes,
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("algorithm", EplbAlgorithm)
@pytest.mark.parametrize("name", LOADS)
def test_tables_of_all_loads(name, algorithm, weighted):
    with unchanged(LOADS[name]):
        tables = ask(LOADS[name], algorithm, weighted=weighted)
    assert all(type(table) is np.ndarray for table in tables)
    check_tables(tables, 16, 24)
    if name == "skewed":
        assert repeated(tables) == weighted
    for table, same in zip(tables, ask(LOADS[name], algorithm, weighted=weighted), strict=True):
        np.testing.assert_array_equal(table, same)


@pytest.mark.parametrize("algorithm", EplbAlgorithm)
def test_groups_stay_on_nodes_only_where_the_algorithm_says_so(algorithm):
    phy2log = ask(LOADS["drawn"], algorithm)[0]
    nodes = [set(np.flatnonzero(row // 4 == group) // 12) for row in phy2log for group in range(4)]
    assert all(len(node) == 1 for node in nodes) == (algorithm is not EplbAlgorithm.deepseek)


@pytest.mark.parametrize(("groups", "nodes"), [(None, 1), (1, 3), (3, 2), (5, 5)])
def test_sizes_that_do_not_divide_count_as_one(groups, nodes):
    check_tables(ask(LOADS["drawn"], groups=groups, nodes=nodes), 16, 24)


def test_loads_that_are_none_are_refused():
    with refused("load[0, 0] = -1.0 ", "not negative"):
        ask(-np.ones((4, 16)))


def test_in_and_out_again(monkeypatch):
    def own():
        return "own"

    module = engine_module(monkeypatch, sglang_jax.MODULE, rebalance_experts=own)
    sglang_jax.uninstall()
    for weighted in (False, True):
        sglang_jax.install(weighted=weighted)
        tables = module.rebalance_experts(LOADS["skewed"], 24, 6, 1, 1, EplbAlgorithm.deepseek)
        assert repeated(tables) == weighted
    sglang_jax.uninstall()
    assert module.rebalance_experts is own
