"""The hook of FastDeploy: what its expert manager relies on."""

from types import SimpleNamespace

import numpy as np
import pytest
from engine_tables import LOADS, check_tables, engine_module, repeated, unchanged

from eplb_np.engines import fastdeploy

UNEVEN = np.random.default_rng(1).gamma(0.3, 100, (3, 4, 16))[2]


def ask(load, replicas=24, gpus=4, **wishes):
    """As the manager asks: a group for each expert."""
    return fastdeploy.rebalance_experts(load, replicas, load.shape[1], 1, gpus, "", **wishes)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOADS)
def test_tables_of_all_loads(name, weighted):
    with unchanged(LOADS[name]):
        tables = ask(LOADS[name], weighted=weighted)
    assert all(type(table) is np.ndarray for table in tables)
    check_tables(tables, 16, 24, np.int32)
    assert tables[1].shape[2] <= 24 - 16 + 1


@pytest.mark.parametrize("replicas", [16, 17, 18, 20, 24])
def test_tables_fit_where_few_experts_are_redundant(replicas):
    tables = ask(LOADS["drawn"], replicas, 1, weighted=True)
    check_tables(tables, 16, replicas, np.int32)
    assert tables[1].shape[2] <= replicas - 16 + 1


@pytest.mark.parametrize("weighted", [False, True])
def test_the_first_map_is_the_same_whoever_asks(weighted):
    """The model asks with its own numbers of nodes and GPUs, the manager with 8 and 64."""
    ones = np.ones((4, 16), np.int32)
    model = fastdeploy.rebalance_experts(
        weight=ones, num_replicas=24, num_groups=1, num_nodes=8, num_gpus=4, weighted=weighted
    )
    manager = fastdeploy.rebalance_experts(ones, 24, 1, 8, 64, "", weighted=weighted)
    for table, same in zip(model, manager, strict=True):
        np.testing.assert_array_equal(table, same)
    np.testing.assert_array_equal(model[0], np.tile(np.arange(24) % 16, (4, 1)))
    check_tables(model, 16, 24, np.int32)


def test_in_and_out_again(monkeypatch):
    def own(*args, fd_config=None, **others):
        return args, fd_config, others

    module = engine_module(monkeypatch, fastdeploy.MODULE, rebalance_experts=own)
    manager = engine_module(monkeypatch, "fastdeploy.eplb.experts_manager", rebalance_experts=own)
    fastdeploy.uninstall()
    together = SimpleNamespace(afd_config=SimpleNamespace(enable_afd=False))
    apart = SimpleNamespace(afd_config=SimpleNamespace(enable_afd=True))
    for weighted in (False, True):
        fastdeploy.install(weighted=weighted)
        for config in (None, together, SimpleNamespace()):
            tables = manager.rebalance_experts(UNEVEN, 24, 16, 1, 8, fd_config=config)
            assert repeated(tables) == weighted
        keyed = module.rebalance_experts(
            weight=LOADS["drawn"], num_replicas=24, num_groups=1, num_nodes=8, num_gpus=4,
            fd_config=together,
        )  # fmt: skip
        check_tables(keyed, 16, 24, np.int32)
        asked = module.rebalance_experts(1, 2, fd_config=apart, keep=3)
        assert asked == ((1, 2), apart, {"keep": 3})
    fastdeploy.uninstall()
    assert module.rebalance_experts is manager.rebalance_experts is own


def test_plugged_in_by_the_environment(monkeypatch):
    def own():
        return "own"

    module = engine_module(monkeypatch, fastdeploy.MODULE, rebalance_experts=own)
    monkeypatch.delenv(fastdeploy.VARIABLE, raising=False)
    fastdeploy.plug_in()
    assert module.rebalance_experts is own
    monkeypatch.setenv(fastdeploy.VARIABLE, "weighted")
    fastdeploy.plug_in()
    assert repeated(module.rebalance_experts(UNEVEN, 24, 16, 1, 8))
    fastdeploy.uninstall()
    assert module.rebalance_experts is own
