"""Expert maps of vLLM Ascend, whose reader checks next to nothing."""

import json
import shlex
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_samples import as_expert_map
from plans import separate_plan
from recorded import INTEROP, needs_interop
from support import refused

from eplb_np import Plan, Topology, in_order_plan, make_plan
from eplb_np.io import read_plan, write_plan
from eplb_np.maps.maps import rank_by_slots

PHY2LOG = np.array([[0, 1, 2, 3, 4, 0, 5, 1], [5, 4, 3, 1, 2, 0, 1, 5]])


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "map.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=4))
        return path

    return write


def plan_of(phy2log, num_gpus, ids=None):
    topology = Topology(int(phy2log.max()) + 1, phy2log.shape[1], num_gpus)
    ids = range(len(phy2log)) if ids is None else ids
    return Plan(phy2log, rank_by_slots(phy2log), topology, "by hand", ids)


@needs_interop
def test_the_sample_is_read():
    plan = read_plan(INTEROP / "ascend_expert_map.json")
    assert plan.phy2log.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 0, 1]]
    assert (plan.topology.num_gpus, plan.topology.num_experts) == (2, 8)


def test_a_map_is_read(write):
    plan = read_plan(write(as_expert_map(PHY2LOG, 2)))
    assert plan.policy == "vllm-ascend"
    assert plan.phy2log.tolist() == PHY2LOG.tolist()
    assert plan.moe_layer_ids == (0, 1)
    assert plan.topology == Topology(6, 8, 2)


def test_the_layers_get_the_ids_that_are_given(write):
    path = write(as_expert_map(PHY2LOG, 2))
    assert read_plan(path, moe_layer_ids=[3, 7]).moe_layer_ids == (3, 7)
    assert read_plan(path, moe_layer_ids=[1, 5]).phy2log.tolist() == PHY2LOG.tolist()
    for ids in ([1], [0, 1, 2]):
        with refused("moe_layer_ids", "2 MoE layers without ids", "one id for each"):
            read_plan(path, moe_layer_ids=ids)
    with refused("moe_layer_ids", "ascending"):
        read_plan(path, moe_layer_ids=[7, 3])


def test_ids_of_the_file_are_not_looked_at_but_for_their_order(write):
    content = as_expert_map(PHY2LOG, 2)
    for i, layer in enumerate(content["layer_list"]):
        layer["layer_id"] = 3 + 4 * i
        del layer["device_count"], layer["device_list"][1]["device_id"]
    assert read_plan(write(content)).moe_layer_ids == (0, 1)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.data())
def test_what_is_written_is_read_again(num_layers, num_gpus, num_slots, data):
    num_replicas = num_gpus * num_slots
    num_experts = data.draw(st.integers(num_slots, num_replicas))
    load = np.random.default_rng(data.draw(st.integers(0, 99))).random((num_layers, num_experts))
    plan = make_plan(load, num_replicas=num_replicas, num_gpus=num_gpus, policy="refined")
    devices = plan.phy2log.reshape(-1, num_slots).tolist()
    if any(len(set(experts)) < num_slots for experts in devices):
        with refused("loses such slots"):
            through_a_file(plan)
        return
    text, found = through_a_file(plan)
    assert text == json.dumps(as_expert_map(plan.phy2log, num_gpus))
    assert found.phy2log.tolist() == plan.phy2log.tolist()
    assert found.phyrank.tolist() == rank_by_slots(plan.phy2log).tolist()


def through_a_file(plan, **options):
    """The text that is written for a plan, and the plan that is read from it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "map.json"
        try:
            write_plan(plan, path, "vllm-ascend", **options)
        except ValueError:
            assert not path.exists()
            raise
        return path.read_text(), read_plan(path)


def test_layers_are_numbered_from_0_and_the_options_fit(tmp_path):
    path = tmp_path / "it's a map.json"
    found = write_plan(plan_of(PHY2LOG, 2, [3, 7]), path, "vllm-ascend", num_hidden_layers=9)
    content = json.loads(path.read_text())
    assert content == as_expert_map(PHY2LOG, 2)
    option, value = shlex.split(found.start)[-2:]
    assert option == "--additional-config"
    assert json.loads(value) == {
        "eplb_config": {"expert_map_path": str(path), "num_redundant_experts": 2}
    }


def test_experts_that_stay_keep_their_slots():
    old = plan_of(np.array([[0, 1, 2, 3, 4, 5, 0, 1]]), 2)
    new = plan_of(np.array([[4, 2, 1, 0, 1, 0, 3, 5]]), 2)
    _, found = through_a_file(new, current=old)
    # GPU 0 had 0 1 2 3 and gets 4 in place of 3; GPU 1 had 4 5 0 1 and gets 3 in place of 4.
    assert found.phy2log.tolist() == [[0, 1, 2, 4, 3, 5, 0, 1]]


def test_every_expert_that_stays_keeps_its_slot():
    rng = np.random.default_rng(5)
    plans = [separate_plan(rng.random((3, 16)) ** 3, Topology(16, 24, 6)) for _ in range(6)]
    for old, new in pairwise(plans):
        found = through_a_file(new, current=old)[1].phy2log
        for ours, before, wanted in zip(
            found.reshape(-1, 4).tolist(), old.phy2log.reshape(-1, 4).tolist(),
            new.phy2log.reshape(-1, 4).tolist(), strict=True,
        ):  # fmt: skip
            assert sorted(ours) == sorted(wanted)
            assert all(ours[before.index(e)] == e for e in wanted if e in before)


def test_a_plan_of_other_sizes_is_no_current_one():
    plan = plan_of(PHY2LOG, 2)
    for other in (plan_of(PHY2LOG, 4), plan_of(PHY2LOG[:1], 2), plan_of(PHY2LOG, 2, [1, 2])):
        with refused("current=", "same layers and sizes"):
            through_a_file(plan, current=other)


def test_plans_that_it_could_not_serve_are_not_written(tmp_path):
    with refused("already: 2", "vLLM Ascend loses such slots", "split='best'"):
        through_a_file(plan_of(np.array([[0, 0, 1, 2], [1, 1, 2, 0], [0, 1, 2, 0]]), 2))
    uneven = Topology(6, 8, 2, gpu_slots=[3, 5])
    with refused("GPUs differ in slots"):
        through_a_file(in_order_plan(1, uneven))
    plan = plan_of(PHY2LOG, 2)
    with refused("unknown file suffix"):
        write_plan(plan, tmp_path / "map.npz", "vllm-ascend")
    with refused("small letters"):
        write_plan(plan, tmp_path / "map.JSON", "vllm-ascend")
    assert not any(tmp_path.iterdir())


def changed(change):
    content = as_expert_map(PHY2LOG, 2)
    change(content, content["layer_list"][1], content["layer_list"][1]["device_list"][1])
    return content


REFUSED = {
    "fewer layers than it says": (
        lambda file, layer, device: file.update(moe_layer_count=3),
        ["moe_layer_count is 3", "2 layers", "give the number of layers"],
    ),
    "a count that is no number": (
        lambda file, layer, device: file.update(moe_layer_count=2.0), ["moe_layer_count is 2.0"],
    ),
    "no layers": (
        lambda file, layer, device: file.update(layer_list=[]), ['no list "layer_list"'],
    ),
    "layers that are none": (
        lambda file, layer, device: file.update(layer_list=[1, 2]),
        ['layer 0 has no list "device_list"'],
    ),
    "layers as an object": (
        lambda file, layer, device: file.update(layer_list={"0": []}), ['no list "layer_list"'],
    ),
    "a layer without devices": (
        lambda file, layer, device: layer.pop("device_list"),
        ['layer 1 has no list "device_list"'],
    ),
    "fewer devices than it says": (
        lambda file, layer, device: layer.update(device_count=3),
        ["device_count of layer 1 is 3", "2 devices"],
    ),
    "a device without experts": (
        lambda file, layer, device: device.update(device_expert=[]),
        ['device 1 of layer 1 has no list "device_expert"'],
    ),
    "devices of other sizes": (
        lambda file, layer, device: device.update(device_expert=[2, 0, 1]),
        ["device 1 of layer 1 holds 3 experts", "device 0 holds 4", "the same number"],
    ),
    "a layer of other sizes": (
        lambda file, layer, device: layer.update(
            device_count=1, device_list=[{"device_id": 0, "device_expert": [0, 1, 2, 3, 4, 5]}]
        ),
        ["layer 1 has 1 devices of 6 slots", "layer 0 has 2 of 4"],
    ),
    "an expert twice on a device": (
        lambda file, layer, device: device.update(device_expert=[2, 0, 2, 5]),
        ["device 1 of layer 1 holds expert 2 twice", "loses one"],
    ),
    "an expert missing": (
        lambda file, layer, device: device.update(device_expert=[2, 1, 4, 5]),
        ["expert 0 has no replica in layer 1"],
    ),
    "an expert that cannot be": (
        lambda file, layer, device: device.update(device_expert=[2, 0, 1, 8]),
        ["device 1 of layer 1 holds 8", "8 slots", "0 .. 7"],
    ),
    "a negative expert": (
        lambda file, layer, device: device.update(device_expert=[2, 0, 1, -1]),
        ["device 1 of layer 1 holds -1"],
    ),
    "a huge expert": (
        lambda file, layer, device: device.update(device_expert=[2, 0, 1, 10**30]), ["holds 1000"],
    ),
    "half an expert": (
        lambda file, layer, device: device.update(device_expert=[2, 0, 1, 0.5]), ["holds 0.5"],
    ),
    "experts as text": (
        lambda file, layer, device: device.update(device_expert=["2", "0", "1", "5"]),
        ["holds '2'"],
    ),
    "layers in another order": (
        lambda file, layer, device: file["layer_list"].reverse(),
        ["layer_id", "do not ascend", "sort it"],
    ),
    "devices in another order": (
        lambda file, layer, device: layer["device_list"].reverse(),
        ["device_id", "layer 1", "do not ascend"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_it_would_take_for_something_else_is_refused(kind, write):
    change, parts = REFUSED[kind]
    path = write(changed(change))
    with refused(str(path), *parts):
        read_plan(path)


def test_it_holds_no_loads_and_its_own_number_of_gpus(write):
    path = write(as_expert_map(PHY2LOG, 2))
    with refused("the file has 2 GPUs"):
        read_plan(path, num_gpus=4)
    assert read_plan(path, num_gpus=2, num_groups=2).topology.num_groups == 2
    with refused("not of format 'vllm-ascend'"):
        read_plan(write({"moe_layer_count": 1}), "vllm-ascend")


def test_the_map_of_a_large_deployment_is_read_with_its_spaces(write):
    """As it is recorded: more than 4 MiB for 384 devices of two slots."""
    phy2log = np.tile(np.arange(768) % 384, (60, 1))
    phy2log[:, 384:] = (phy2log[:, 384:] + 1) % 384
    path = write(as_expert_map(phy2log, 384))
    assert path.stat().st_size > 4 << 20
    assert read_plan(path).phy2log.tolist() == phy2log.tolist()
