"""The policy for vLLM, against what vLLM's callers do with its plans."""

import importlib.metadata
import inspect
import sys
import tomllib
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
from support import TESTS, needs_jit, output_of, refused

from eplb_np import MoveLimits, make_plan
from eplb_np.engines import vllm
from eplb_np.engines.vllm import EplbPolicy, install, make_policy, plugin, uninstall

L, E, P, D = 3, 16, 24, 4
LOAD = np.random.default_rng(5).integers(0, 1000, (L, E)) ** 2
IN_ORDER = np.tile(np.arange(P) % E, (L, 1))
MOST_SLOTS_OF_EXPERT = 1024
NEWEST = make_policy(vllm_version="0.33")


def with_holes(every: int) -> np.ndarray:
    old = IN_ORDER.copy()
    old[:, 2::every] = -1
    return old


OLD_MAPS = {
    "none": None,
    "in order": IN_ORDER,
    "wider, as before GPUs go": np.tile(np.arange(P + 12) % E, (L, 1)),
    "wider, with experts on GPUs that go alone": np.tile(
        np.hstack([np.arange(P) % (E - 4), E - 4 + np.arange(12) % 4]), (L, 1)
    ),
    "narrower, as before GPUs come": IN_ORDER[:, : P - 6],
    "GPUs that came are empty": np.hstack([IN_ORDER[:, : P - 6], np.full((L, 6), -1)]),
    "holes": with_holes(5),
    "all empty": np.full((L, P), -1),
    "of another policy": make_plan(LOAD[:, ::-1], num_replicas=P, num_gpus=D).phy2log,
    "twice on a GPU": np.hstack([IN_ORDER[:, :E], np.full((L, P - E), 2)]),
    "ids out of range": np.where(IN_ORDER == 3, E + 5, IN_ORDER),
    "of fewer layers": IN_ORDER[1:],
}
LOADS = {
    "counts": LOAD,
    "zeros": np.zeros((L, E), np.int64),
    "ones": np.ones((L, E), np.int64),
    "one layer": LOAD * (np.arange(L) == 1)[:, None],
    "one expert": np.eye(E, dtype=np.int64)[[4] * L],
    "float64": LOAD / 7.0,
    "bfloat16": LOAD.astype(ml_dtypes.bfloat16),
    "int32, by columns": np.asfortranarray(LOAD.astype(np.int32)),
}


@pytest.mark.parametrize("old", OLD_MAPS.values(), ids=OLD_MAPS)
@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("sizes", [(1, 1), (8, 2), (5, 3)], ids=["one node", "groups", "neither"])
def test_a_plan_is_what_vllm_relies_on(sizes, load, old):
    given = [array for array in (load, old) if array is not None]
    before = [array.tobytes() for array in given]
    flags = [array.flags.writeable for array in given]
    for array in given:
        array.flags.writeable = False
    new = NEWEST.rebalance_experts(load, P, sizes[0], sizes[1], D, old)
    for array, writeable in zip(given, flags, strict=True):
        array.flags.writeable = writeable
    assert [array.tobytes() for array in given] == before
    assert (type(new), new.dtype) == (np.ndarray, np.int64)
    check_map(new, L, E, P)
    assert not any(np.shares_memory(new, array) for array in given)


@pytest.mark.parametrize("old", [name for name in OLD_MAPS if name not in ("none", "all empty")])
def test_what_stays_on_a_gpu_keeps_its_slot(old):
    """So vLLM's own reordering, which we leave out, would save no copy."""
    in_use = OLD_MAPS[old]
    if len(in_use) != L:
        return
    for limits in (None, MoveLimits(total=6), MoveLimits(per_gpu=1)):
        new = make_policy(limits).rebalance_experts(LOAD, P, 1, 1, D, in_use)
        assert slots_that_stay(in_use, new) == slots_that_could_stay(in_use, new, D)


@pytest.mark.parametrize("old", ["in order", "wider, as before GPUs go", "of another policy"])
def test_ranks_carry_a_plan_out(old):
    in_use = OLD_MAPS[old]
    new = NEWEST.rebalance_experts(LOAD, P, 1, 1, D, in_use)
    within, received = carry_out(in_use, new, D)
    assert within == 0
    assert received > 0


def test_the_map_in_use_is_changed_within_the_limits():
    policy = make_policy(MoveLimits(total=4), vllm_version="0.33")
    new = policy.rebalance_experts(LOAD, P, 1, 1, D, IN_ORDER)
    assert 0 < (new != IN_ORDER).sum() <= 4
    assert policy.rebalance_experts(LOAD, P, 1, 1, D, new).tobytes() != IN_ORDER.tobytes()


def test_loads_that_tell_nothing_change_nothing():
    for load in (np.zeros((L, E)), np.ones((L, E), np.int64)):
        new = NEWEST.rebalance_experts(load, P, 8, 2, D, IN_ORDER)
        assert new.tobytes() == IN_ORDER.tobytes()


def test_it_balances_like_the_published_policy_with_half_of_the_moves():
    ours = NEWEST.rebalance_experts(LOAD, P, 1, 1, D, IN_ORDER)
    theirs = make_plan(LOAD, num_replicas=P, num_gpus=D, policy="deepseek").phy2log

    def busiest(phy2log):
        count = np.stack([np.bincount(row, minlength=E) for row in phy2log])
        slots = np.take_along_axis(LOAD / count, phy2log, 1)
        return slots.reshape(L, D, -1).sum(2).max(1).sum()

    assert busiest(ours) <= busiest(theirs) * 1.005
    moves = [IN_ORDER.size - slots_that_could_stay(IN_ORDER, new, D) for new in (ours, theirs)]
    assert moves[0] * 2 < moves[1]


@pytest.mark.parametrize(
    ("version", "num_maps"),
    [
        ("0.13.0", 3),
        ("0.18.1", 3),
        ("0.19.0", 1),
        ("0.33.0+cu130", 1),
        ("0.19.0rc2.dev7", 1),
        ("1.0", 1),
    ],
)
def test_each_generation_gets_what_it_takes(version, num_maps):
    result = make_policy(vllm_version=version).rebalance_experts(LOAD, P, 1, 1, D, IN_ORDER)
    assert isinstance(result, tuple) == (num_maps == 3)
    if num_maps == 3:
        phy2log, log2phy, count = result
        width = P - E + 1  # that of vLLM's own policy
        table, number = logical_maps(phy2log, E, width)
        np.testing.assert_array_equal(log2phy, table)
        np.testing.assert_array_equal(count, number)
        assert {array.dtype for array in result} == {np.dtype(np.int64)}
        assert log2phy.shape[2] <= MOST_SLOTS_OF_EXPERT
        check_map(phy2log, L, E, P)
    else:
        check_map(result, L, E, P)


@pytest.mark.parametrize(
    ("installed", "num_maps"),
    [("0.14.1", 3), ("0.33.0", 1), ("0.1.dev1+g1234567", 1), (None, 1)],
)
def test_the_installed_vllm_decides(installed, num_maps, monkeypatch):
    def version(name):
        assert name == "vllm"
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    vllm._installed_version.cache_clear()
    try:
        result = EplbPolicy.rebalance_experts(LOAD, P, 1, 1, D)
    finally:
        vllm._installed_version.cache_clear()
    assert isinstance(result, tuple) == (num_maps == 3)


@pytest.mark.usefixtures("fake_torch")
@pytest.mark.parametrize("device", ["cpu", "cuda:3"])
@pytest.mark.parametrize("wide", [True, False], ids=["int64", "bfloat16"])
def test_tensors_come_back_on_the_device_of_the_loads(device, wide):
    load, old = Tensor(LOAD.copy(), device, wide), Tensor(IN_ORDER.copy(), device)
    new = NEWEST.rebalance_experts(load, P, 1, 1, D, old)
    assert (type(new), new.device) == (Tensor, device)
    check_map(new.array, L, E, P)
    assert not np.shares_memory(new.array, old.array)
    np.testing.assert_array_equal(load.array, LOAD)
    expected = NEWEST.rebalance_experts(LOAD, P, 1, 1, D, IN_ORDER)
    np.testing.assert_array_equal(new.array, expected)
    three = make_policy(vllm_version="0.14").rebalance_experts(load, P, 1, 1, D, old)
    assert {result.device for result in three} == {device}


@pytest.mark.parametrize("dtype", ["int64", "int32", "float32", "float64", "bfloat16"])
def test_tensors_of_pytorch(dtype):
    torch = pytest.importorskip("torch")
    load = torch.from_numpy(LOAD).to(getattr(torch, dtype))
    old = torch.from_numpy(IN_ORDER)
    saved = load.clone(), old.clone()
    new = NEWEST.rebalance_experts(load, P, 1, 1, D, old)
    assert (new.dtype, new.device.type, new.is_contiguous()) == (torch.int64, "cpu", True)
    check_map(new.numpy(), L, E, P)
    assert all(torch.equal(a, b) for a, b in zip((load, old), saved, strict=True))
    assert new.data_ptr() != old.data_ptr()


@pytest.fixture
def of_vllm(monkeypatch):
    """A module like vLLM's, with its own policy."""
    own = type("DefaultEplbPolicy", (), {})
    module = types.SimpleNamespace(EPLB_POLICIES={"default": own}, own=own)
    for name in ("vllm", "vllm.distributed", "vllm.distributed.eplb"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "vllm.distributed.eplb.policy", module)
    monkeypatch.setattr(vllm, "_replaced", {})
    return module


def test_plugged_in_and_taken_out(of_vllm):
    policies = of_vllm.EPLB_POLICIES
    mine = make_policy(MoveLimits(total=7))
    uninstall()
    assert policies == {"default": of_vllm.own}
    install()
    assert policies == {"default": EplbPolicy}
    install(mine)
    install(mine)
    assert policies == {"default": mine}
    uninstall()
    assert policies == {"default": of_vllm.own}
    uninstall()
    assert policies == {"default": of_vllm.own}


def test_another_policy_that_came_later_is_left_alone(of_vllm):
    install()
    later = of_vllm.EPLB_POLICIES["default"] = type("Later", (), {})
    uninstall()
    assert of_vllm.EPLB_POLICIES["default"] is later


@pytest.mark.parametrize(
    ("named", "installs"),
    [(None, False), ("", False), ("lora,eplb_np", True), ("eplb_np", True), ("my_eplb_np", False)],
)
def test_the_plugin_acts_only_if_it_is_named(named, installs, of_vllm, monkeypatch):
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    if named is not None:
        monkeypatch.setenv("VLLM_PLUGINS", named)
    plugin()
    assert (of_vllm.EPLB_POLICIES["default"] is EplbPolicy) == installs


def test_the_entry_point_leads_to_the_plugin():
    project = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["vllm.general_plugins"]
    assert points == {vllm.PLUGIN: f"{plugin.__module__}:{plugin.__name__}"}


def test_the_signature_is_the_published_one():
    method = inspect.getattr_static(EplbPolicy, "rebalance_experts")
    assert isinstance(method, classmethod)
    assert list(inspect.signature(EplbPolicy.rebalance_experts).parameters) == [
        "weight", "num_replicas", "num_groups", "num_nodes", "num_ranks",
        "old_global_expert_indices",
    ]  # fmt: skip


def test_wrong_arguments_are_refused_in_one_line(of_vllm, monkeypatch):
    with refused("num_replicas=25", "num_gpus=4"):
        EplbPolicy.rebalance_experts(LOAD, 25, 1, 1, D)
    with refused("num_replicas=12", "num_experts=16"):
        EplbPolicy.rebalance_experts(LOAD, 12, 1, 1, D)
    with refused("the load has 1 dimension"):
        EplbPolicy.rebalance_experts(LOAD[0], P, 1, 1, D)
    with refused("the load is not a rectangular array"):
        EplbPolicy.rebalance_experts([[1, 2], [3]], P, 1, 1, D)
    with refused("limits must be a MoveLimits"):
        make_policy(5)
    with refused("split='both'"):
        make_policy(split="both")
    with refused("vllm_version='0.12.0'", "0.13"):
        make_policy(vllm_version="0.12.0")
    with refused("vllm_version='new'", "is not a version"):
        make_policy(vllm_version="new")
    with refused("is not a policy of this module"):
        install(of_vllm.own)
    monkeypatch.delattr(of_vllm, "EPLB_POLICIES")
    with refused("vLLM has no policies", "0.13"):
        install()


@needs_jit
def test_loading_the_module_loads_no_engine_and_no_tensors():
    code = "import eplb_np.engines.vllm, sys; print('torch' in sys.modules, 'vllm' in sys.modules)"
    assert output_of(code) == "False False"
