"""The hook of SGLang: what its balancer relies on, the map in use, and ranks that are gone."""

import sys
from enum import Enum, auto
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from engine_tables import LOADS, check_tables, engine_module, repeated, unchanged
from support import refused, run_python

from eplb_np import MoveLimits, Plan, make_plan
from eplb_np.engines import sglang


class EplbAlgorithm(Enum):
    """As SGLang 0.5.23 has it."""

    deepseek = auto()
    deepseek_hierarchical = auto()
    deepseek_vec_hierarchical = auto()
    elasticity_aware = auto()
    elasticity_aware_hierarchical = auto()


class Tensor:
    """What the hook needs of a tensor, and no more."""

    def __init__(self, array):
        self.array = array
        self.shape = array.shape

    def sum(self, dim):
        return Tensor(self.array.sum(axis=dim))

    def detach(self):
        return self

    def cpu(self):
        return self

    def double(self):
        return Tensor(self.array.astype(np.float64))

    def numpy(self):
        return self.array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype)


@pytest.fixture(params=["stand-in", "torch"])
def library(request, monkeypatch):
    if request.param == "torch":
        return pytest.importorskip("torch", reason="torch is not installed")
    module = ModuleType("stand_in_torch")
    module.from_numpy = Tensor
    module.Tensor = Tensor
    monkeypatch.setattr(Tensor, "__module__", "stand_in_torch")
    monkeypatch.setitem(sys.modules, "stand_in_torch", module)
    return module


def ask(tokens, algorithm=EplbAlgorithm.deepseek_hierarchical, *, groups=4, nodes=2, **wishes):
    return sglang.rebalance_experts(
        tokens_per_expert=tokens,
        num_physical_experts=24,
        num_local_physical_experts=6,
        num_groups=groups,
        num_nodes=nodes,
        algorithm=algorithm,
        **wishes,
    )


@pytest.fixture
def in_use(monkeypatch):
    """Let SGLang hold a map in use, or none."""
    held = SimpleNamespace(metadata=None)
    engine_module(
        monkeypatch, sglang.LOCATION, get_global_expert_location_metadata=lambda: held.metadata
    )

    def hold(phy2log):
        metadata = SimpleNamespace(physical_to_logical_map_cpu=phy2log)
        held.metadata = None if phy2log is None else metadata

    return hold


@pytest.fixture
def active_ranks(monkeypatch):
    """Let SGLang watch ranks."""

    def watch(ranks):
        state = None if ranks is None else SimpleNamespace(active_ranks=Tensor(np.array(ranks)))
        manager = SimpleNamespace(instance=lambda: state)
        engine_module(monkeypatch, sglang.ELASTIC, ElasticEPStateManager=manager)

    return watch


def steps(load, num_steps=5):
    """A ring of steps that add up to a load, some of them empty."""
    ring = np.zeros((num_steps, *load.shape), load.dtype)
    ring[3] = load // 3
    ring[0] = load - ring[3]
    return ring


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOADS)
def test_tables_of_all_loads(library, name, weighted):
    ring = steps(LOADS[name])
    with unchanged(ring):
        tables = ask(library.from_numpy(ring), weighted=weighted)
    assert all(isinstance(table, library.Tensor) for table in tables)
    check_tables(tables, 16, 24)
    if name == "skewed":
        assert repeated(tables) == weighted


def test_steps_count_together_in_any_order():
    ring = steps(LOADS["drawn"])
    for order in ([0, 1, 2, 3, 4], [3, 4, 0, 1, 2], [1, 2, 4, 3, 0]):
        for table, same in zip(ask(ring[order]), ask(ring.sum(axis=0)), strict=True):
            np.testing.assert_array_equal(table, same)


def test_small_counts_do_not_overflow_when_added():
    ring = np.full((3, 4, 16), 2**31 - 1, np.int32)
    ring[:, :, 5:9] = 2**30
    np.testing.assert_array_equal(ask(ring)[0], ask(ring.astype(np.int64))[0])


def test_groups_stay_on_nodes_only_where_the_algorithm_says_so():
    ring = steps(LOADS["drawn"])

    def nodes_of_groups(tables):
        node = np.arange(24) // 12
        groups = tables[0] // 4
        return [len(set(node[row == group])) for row in groups for group in range(4)]

    assert set(nodes_of_groups(ask(ring))) == {1}
    assert set(nodes_of_groups(ask(ring, EplbAlgorithm.deepseek_vec_hierarchical))) == {1}
    assert 2 in nodes_of_groups(ask(ring, EplbAlgorithm.deepseek))
    check_tables(ask(ring, EplbAlgorithm.deepseek, groups=None), 16, 24)
    check_tables(ask(ring, groups=3, nodes=3), 16, 24)


def test_the_map_in_use_changes_little(library, in_use):
    load = LOADS["drawn"]
    before = np.array(ask(load, EplbAlgorithm.deepseek)[0])
    later = load + np.random.default_rng(0).integers(0, 9, load.shape)
    anew = np.array(ask(later, EplbAlgorithm.deepseek)[0])
    in_use(library.from_numpy(before))
    changed = np.asarray(ask(library.from_numpy(later[None]), EplbAlgorithm.deepseek)[0])
    assert (changed != before).sum() < 0.2 * (anew != before).sum()
    held = np.array(ask(later, EplbAlgorithm.deepseek, limits=MoveLimits(total=0))[0])
    np.testing.assert_array_equal(held, before)


def test_loads_that_tell_nothing_change_nothing(in_use):
    before = np.array(ask(LOADS["drawn"], EplbAlgorithm.deepseek)[0])
    in_use(before)
    for name in ("zeros", "ones"):
        np.testing.assert_array_equal(ask(LOADS[name], EplbAlgorithm.deepseek)[0], before)


@pytest.mark.parametrize(
    "odd", [np.full((4, 24), -1), np.full((4, 24), 99), np.zeros((3, 24), int), np.zeros((4, 30))]
)
def test_maps_in_use_that_do_not_fit(in_use, odd):
    in_use(odd.astype(np.int64))
    for weighted in (False, True):
        check_tables(ask(LOADS["drawn"], weighted=weighted), 16, 24)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("hierarchical", ["", "_hierarchical"])
def test_ranks_that_are_gone_hold_expert_0_and_no_table_names_them(
    active_ranks, in_use, hierarchical, weighted
):
    algorithm = EplbAlgorithm["elasticity_aware" + hierarchical]
    in_use(np.tile(np.arange(24) % 16, (4, 1)))
    active_ranks([1, 0, 1, 1, 1, 0])  # with two ranks more, whose slots do not count yet
    tables = ask(steps(LOADS["drawn"]), algorithm, weighted=weighted)
    check_tables(tables, 16, 24, dead=range(6, 12))
    assert (tables[0][:, 6:12] == 0).all()
    active_ranks([1, 1, 1, 1])
    in_use(None)
    anew = balance(ask(steps(LOADS["drawn"]), algorithm))
    in_use(tables[0])
    back = ask(steps(LOADS["drawn"]), algorithm)
    check_tables(back, 16, 24)
    assert balance(back) > 0.97 * anew
    per_gpu = back[0].reshape(4, 4, 6)
    assert hierarchical or all(len(set(gpu)) == 6 for layer in per_gpu.tolist() for gpu in layer)


def balance(tables):
    topology = make_plan(LOADS["drawn"], num_replicas=24, num_gpus=4).topology
    rank = np.zeros_like(tables[0])
    for layer, row in enumerate(tables[0].tolist()):
        rank[layer] = [row[:slot].count(expert) for slot, expert in enumerate(row)]
    return Plan(tables[0], rank, topology, "hook").balancedness(LOADS["drawn"])


def test_ranks_count_only_where_sglang_watches_them(active_ranks):
    active_ranks([1, 0, 1, 1])
    check_tables(ask(LOADS["drawn"], EplbAlgorithm.deepseek), 16, 24)
    active_ranks(None)
    check_tables(ask(LOADS["drawn"], EplbAlgorithm.elasticity_aware), 16, 24)


def test_too_few_ranks_are_refused(active_ranks):
    active_ranks([1, 0, 0, 1])
    with refused("num_replicas=12"):
        ask(LOADS["drawn"], EplbAlgorithm.elasticity_aware)


def test_in_and_out_again(monkeypatch):
    def own():
        return "own"

    module = engine_module(monkeypatch, sglang.MODULE, rebalance_experts=own)
    importer = engine_module(monkeypatch, "of_a_user", rebalance_experts=own)
    sglang.uninstall()
    assert module.rebalance_experts is own
    sglang.install()
    even = module.rebalance_experts
    assert not repeated(even(LOADS["skewed"][None], 24, 6, 1, 1, EplbAlgorithm.deepseek))
    sglang.install(weighted=True)
    tables = importer.rebalance_experts(LOADS["skewed"][None], 24, 6, 1, 1, EplbAlgorithm.deepseek)
    assert repeated(tables)
    sglang.uninstall()
    assert module.rebalance_experts is importer.rebalance_experts is own


def test_plugged_in_by_the_environment(monkeypatch):
    def own():
        return "own"

    module = engine_module(monkeypatch, sglang.MODULE, rebalance_experts=own)
    for value in ("", "even", "weighted"):
        monkeypatch.setenv(sglang.VARIABLE, value)
        sglang.plug_in()
        if not value:
            assert module.rebalance_experts is own
            continue
        tables = module.rebalance_experts(LOADS["skewed"], 24, 6, 1, 1, "deepseek")
        assert repeated(tables) == (value == "weighted")
    sglang.uninstall()
    monkeypatch.setenv(sglang.VARIABLE, "always")
    with refused("EPLB_NP_SGLANG='always'", "even or weighted"):
        sglang.plug_in()


def test_loads_without_the_engine_and_without_torch():
    code = (
        "import sys, eplb_np.engines.sglang, eplb_np.engines.sglang_jax, "
        "eplb_np.engines.fastdeploy\n"
        "engines = {'torch', 'sglang', 'sgl_jax', 'jax', 'fastdeploy', 'paddle'}\n"
        "assert not engines & set(sys.modules)"
    )
    assert run_python("-c", code).returncode == 0
    with pytest.raises(ImportError):
        sglang.install()
