"""The planning function for ATOM, against what ATOM does with its plans."""

import inspect
import os
import sys
import types

import ml_dtypes
import numpy as np
import pytest
from engine_stand_ins import (
    Tensor,
    carry_out,
    check_map,
    fake_torch,  # noqa: F401 - a fixture
    logical_maps,
    slots_that_could_stay,
    slots_that_stay,
)
from support import PACKAGE, output_of, refused, run_python

from eplb_np import MoveLimits
from eplb_np.engines import atom
from eplb_np.engines.atom import install, make_rebalance_experts, rebalance_experts, uninstall
from eplb_np.maps.homes import groups_are_home
from eplb_np.topology import Topology

L, E, P, D = 3, 16, 24, 4
LOAD = np.random.default_rng(6).integers(0, 1000, (L, E)) ** 2
IN_ORDER = np.tile(np.arange(P, dtype=np.int32) % E, (L, 1))
SIZES = {
    "num_physical": P, "num_groups": 8, "num_nodes": 2, "num_gpus": D,
    "enable_hierarchical": False,
}  # fmt: skip


def not_called(*args):
    raise AssertionError("ATOM's own placement of a layer")


OLD_MAPS = {
    "none": None,
    "in order": IN_ORDER,
    "wider": np.tile(np.arange(P + 12, dtype=np.int32) % E, (L, 1)),
    "narrower": IN_ORDER[:, : P - 6],
    "holes": np.where(IN_ORDER == 5, np.int32(-1), IN_ORDER),
    "of another policy": IN_ORDER[:, np.random.default_rng(1).permutation(P)],
    "twice on a GPU": np.hstack([IN_ORDER[:, :E], np.full((L, P - E), 2, np.int32)]),
}
LOADS = {
    "counts": LOAD.astype(np.int32),
    "zeros": np.zeros((L, E), np.int32),
    "ones": np.ones((L, E), np.int32),
    "dense layers": LOAD * (np.arange(L) > 1)[:, None],
    "bfloat16": LOAD.astype(ml_dtypes.bfloat16),
}


@pytest.mark.parametrize("old", OLD_MAPS.values(), ids=OLD_MAPS)
@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("hierarchical", [False, True])
def test_a_plan_is_what_atom_relies_on(hierarchical, load, old):
    before = [array.tobytes() for array in (load, old) if array is not None]
    p2l, l2p, count = rebalance_experts(
        load, **{**SIZES, "enable_hierarchical": hierarchical}, policy=not_called, old_p2l=old
    )
    assert [array.tobytes() for array in (load, old) if array is not None] == before
    assert {array.dtype for array in (p2l, l2p, count)} == {np.dtype(np.int32)}
    check_map(p2l, L, E, P)
    table, number = logical_maps(p2l, E, count.max())
    np.testing.assert_array_equal(l2p, table)
    np.testing.assert_array_equal(count, number)
    assert l2p.shape[2] <= P - E + 1  # the room of ATOM's own table
    assert old is None or not np.shares_memory(p2l, old)


def test_groups_are_whole_on_nodes_only_where_that_is_asked_for():
    by_nodes = Topology(E, P, D, 2, 8)
    for hierarchical in (False, True):
        p2l, _, _ = rebalance_experts(LOAD, **{**SIZES, "enable_hierarchical": hierarchical})
        assert groups_are_home(p2l, by_nodes) == hierarchical


def test_ranks_carry_a_plan_out():
    for name in ("in order", "of another policy"):
        old = OLD_MAPS[name]
        new, _, _ = rebalance_experts(LOAD, **SIZES, old_p2l=old)
        within, received = carry_out(old, new, D)
        assert (within, received > 0) == (0, True)
        assert slots_that_stay(old, new) == slots_that_could_stay(old, new, D)


def test_the_map_in_use_is_changed_within_the_limits():
    rebalance = make_rebalance_experts(MoveLimits(total=3))
    new, _, _ = rebalance(LOAD, **SIZES, old_p2l=IN_ORDER)
    assert 0 < (new != IN_ORDER).sum() <= 3
    same, _, _ = rebalance(np.zeros_like(LOAD), **SIZES, old_p2l=IN_ORDER)
    np.testing.assert_array_equal(same, IN_ORDER)


@pytest.mark.usefixtures("fake_torch")
def test_tensors_come_back_on_the_device_of_the_loads():
    load = Tensor(LOAD.astype(np.int32), "cuda:2")
    results = rebalance_experts(load, **SIZES, old_p2l=Tensor(IN_ORDER.copy(), "cuda:2"))
    assert [(type(result), result.device) for result in results] == [(Tensor, "cuda:2")] * 3
    expected = rebalance_experts(LOAD, **SIZES, old_p2l=IN_ORDER)
    for result, array in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.array, array)


def test_tensors_of_pytorch():
    torch = pytest.importorskip("torch")
    load, old = torch.from_numpy(LOAD.astype(np.int32)), torch.from_numpy(IN_ORDER.copy())
    p2l, l2p, count = rebalance_experts(load, **SIZES, old_p2l=old)
    assert {result.dtype for result in (p2l, l2p, count)} == {torch.int32}
    assert p2l.data_ptr() != old.data_ptr()
    check_map(p2l.numpy(), L, E, P)


def test_the_signature_is_the_published_one():
    parameters = inspect.signature(rebalance_experts).parameters
    assert list(parameters) == ["weight", *SIZES, "policy", "old_p2l"]
    keyword = {one.name for one in parameters.values() if one.kind is one.KEYWORD_ONLY}
    assert keyword == set(parameters) - {"weight"}


def test_plugged_in_and_taken_out(monkeypatch):
    module = types.SimpleNamespace(rebalance_experts=not_called)
    for name in ("atom", "atom.model_ops"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "atom.model_ops.eplb", module)
    monkeypatch.setattr(atom, "_replaced", [])
    uninstall()
    assert module.rebalance_experts is not_called
    install()
    assert module.rebalance_experts is rebalance_experts
    mine = make_rebalance_experts(MoveLimits(total=7))
    install(mine)
    install(mine)
    assert module.rebalance_experts is mine
    uninstall()
    uninstall()
    assert module.rebalance_experts is not_called
    with refused("function=5 cannot be called"):
        install(5)
    del module.rebalance_experts
    with refused("ATOM has no rebalance_experts"):
        install()


START = """
from eplb_np.engines.atom import install
install()  # every process that is started runs this, too

if __name__ == "__main__":
    import runpy
    runpy.run_module("atom.server", run_name="__main__")
"""
SERVER = """
import multiprocessing
from atom.worker import engine

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    process = multiprocessing.Process(target=engine)
    process.start()
    process.join()
"""
WORKER = """
import multiprocessing
from atom.model_ops import eplb

def engine():
    print(eplb.rebalance_experts.__module__, flush=True)
    if multiprocessing.parent_process().name == "MainProcess":
        process = multiprocessing.Process(target=engine)
        process.start()
        process.join()
"""


def test_processes_that_atom_starts_have_the_function_too(tmp_path):
    """ATOM's engine is a fresh process, and starts its workers as fresh ones."""
    (tmp_path / "atom" / "model_ops").mkdir(parents=True)
    (tmp_path / "atom" / "model_ops" / "eplb.py").write_text("def rebalance_experts(): ...")
    (tmp_path / "atom" / "server.py").write_text(SERVER)
    (tmp_path / "atom" / "worker.py").write_text(WORKER)
    (tmp_path / "serve.py").write_text(START)
    folders = f"{PACKAGE.parent}{os.pathsep}{tmp_path}"
    result = run_python(str(tmp_path / "serve.py"), PYTHONPATH=folders)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["eplb_np.engines.atom"] * 2


def test_wrong_arguments_are_refused_in_one_line():
    with refused("num_replicas=25", "num_gpus=4"):
        rebalance_experts(LOAD, **{**SIZES, "num_physical": 25})
    with refused("the load has 1 dimension"):
        rebalance_experts(LOAD[0], **SIZES)
    with refused("limits must be a MoveLimits"):
        make_rebalance_experts(5)
    with refused("split='both'"):
        make_rebalance_experts(split="both")


def test_loading_the_module_loads_no_engine_and_no_tensors():
    code = "import eplb_np.engines.atom, sys; print('torch' in sys.modules, 'atom' in sys.modules)"
    assert output_of(code) == "False False"
