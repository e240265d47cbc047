"""Plans for serving engines: what is written comes back, and nothing that they would misread."""

import dataclasses
import json

import numpy as np
import pytest
from plans import separate_plan
from support import fewer, refused

from eplb_np import Plan, Topology, in_order_plan, make_plan
from eplb_np.io import FORMATS, read_plan, write_plan
from eplb_np.io.placements import Consumer, align_slots, placement_for
from eplb_np.maps.maps import rank_by_slots

LOAD = np.random.default_rng(3).integers(1, 100, (3, 8))
MOE = [1, 2, 4]
PLAN = separate_plan(LOAD, Topology(8, 12, 4), MOE)
CONSUMER = Consumer("an engine", (".json",))
WRITTEN = [name for name, row in FORMATS.items() if row.writes_plans and row.reads_plans]


def path_for(name, tmp_path):
    return tmp_path / f"plan{FORMATS[name].member('CONSUMER').suffixes[0]}"


@pytest.mark.parametrize("name", WRITTEN)
def test_a_plan_comes_back(name, tmp_path):
    path = path_for(name, tmp_path)
    written = write_plan(PLAN, path, name, num_hidden_layers=6)
    assert (written.path, written.format) == (path, name)
    back = read_plan(path, num_gpus=4, moe_layer_ids=None if name == "eplb_np" else MOE)
    np.testing.assert_array_equal(back.phy2log, PLAN.phy2log)
    assert (back.topology, back.moe_layer_ids) == (PLAN.topology, PLAN.moe_layer_ids)
    assert (name == "eplb_np") == (back == PLAN) == (back.policy == "refined")
    assert read_plan(path, name, num_gpus=4, moe_layer_ids=list(back.moe_layer_ids)) == back


def test_replicas_are_numbered_by_their_slots():
    phy2log = np.array([[2, 0, 2, 1, 2, 0], [0, 0, 0, 0, 1, 2]])
    assert rank_by_slots(phy2log).tolist() == [[0, 0, 1, 0, 2, 1], [0, 1, 2, 3, 0, 0]]


def test_layers_that_are_not_planned_hold_every_expert(tmp_path):
    written = write_plan(PLAN, tmp_path / "p.json", "sglang", num_hidden_layers=6)
    rows = json.loads(written.path.read_text())["physical_to_logical_map"]
    assert [rows[layer] for layer in MOE] == PLAN.phy2log.tolist()
    for dense in (0, 3, 5):
        assert rows[dense] == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]
    assert written.notes == ("layers that are not planned, and hold the experts in order: 3",)


@pytest.mark.parametrize("number", [None, 4, 0, 1.5, "6"])
def test_a_number_of_layers_that_cannot_be_is_refused(number, tmp_path):
    with refused("num_hidden_layers"):
        write_plan(PLAN, tmp_path / "p.json", "sglang", num_hidden_layers=number)
    assert not any(tmp_path.iterdir())


def test_options_of_the_engine_are_said(tmp_path):
    path = tmp_path / "p.json"
    written = write_plan(PLAN, path, "sglang", num_hidden_layers=5)
    assert (
        written.start == f"--init-expert-location {path} --ep-num-redundant-experts 4 --ep-size 4"
    )


APART = np.array([[0, 1, 0, 3, 2, 3, 2, 1]])  # never beside each other
DOUBLE = Plan(APART, rank_by_slots(APART), Topology(4, 8, 2), "by hand")


def test_an_expert_twice_on_a_gpu_is_said_or_refused():
    count = sum(len(gpu) - len(set(gpu)) for gpu in DOUBLE.phy2log.reshape(2, 4).tolist())
    assert count == 2
    _, notes = placement_for(CONSUMER, DOUBLE, None, None)
    assert notes == (f"slots that hold an expert which their GPU holds already: {count}",)
    with refused(f"holds already: {count}", "an engine loses", "split='best'"):
        placement_for(CONSUMER._replace(breaks_on_duplicates=True), DOUBLE, None, None)
    placement_for(CONSUMER._replace(breaks_on_duplicates=True), PLAN, None, None)


UNEVEN = make_plan(LOAD, Topology(8, 11, 4), policy="refined")
GONE = make_plan(LOAD, Topology(8, 12, 4, active_gpus=[0, 1, 3]), policy="refined")
UNFIT = {
    "GPUs of unequal slots": (UNEVEN, CONSUMER, ["differ in slots", "num_gpus=4"]),
    "a GPU that is gone": (GONE, CONSUMER, ["empty slots"]),
    "too many experts": (PLAN, CONSUMER._replace(most_experts=7), ["8 experts", "7 at most"]),
    "too many slots": (PLAN, CONSUMER._replace(most_slots=11), ["12 slots", "11 at most"]),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_an_engine_cannot_use_is_not_written(kind):
    plan, consumer, parts = UNFIT[kind]
    with refused("an engine", *parts):
        placement_for(consumer, plan, None, None)


def test_sizes_at_the_limit_are_written():
    placement_for(CONSUMER._replace(most_slots=12, most_experts=8), PLAN, None, None)


def test_experts_that_stay_keep_their_slots():
    generator = np.random.default_rng(4)
    for _ in range(fewer(100, 30)):
        new, old = (
            make_plan(
                generator.integers(1, 50, (2, 6)), num_replicas=9, num_gpus=3,
                policy=generator.choice(["refined", "hybrid"]),
            )
            for _ in range(2)
        )  # fmt: skip
        aligned = align_slots(new, old)
        by_gpu = [array.reshape(2, 3, 3) for array in (aligned, new.phy2log, old.phy2log)]
        for mine, wanted, before in zip(
            *(list(a.reshape(6, 3).tolist()) for a in by_gpu), strict=True
        ):
            assert sorted(mine) == sorted(wanted)
            for expert in set(mine):
                kept = sum(a == b == expert for a, b in zip(mine, before, strict=True))
                assert kept == min(wanted.count(expert), before.count(expert))


def test_a_plan_is_written_aligned_to_the_one_in_use(tmp_path):
    old = in_order_plan(3, PLAN.topology)
    old = dataclasses.replace(old, moe_layer_ids=MOE)
    written = write_plan(PLAN, tmp_path / "p.json", "sglang", num_hidden_layers=5, current=old)
    back = read_plan(written.path, num_gpus=4, moe_layer_ids=MOE)
    np.testing.assert_array_equal(back.phy2log, align_slots(PLAN, old))
    assert (back.phy2log != PLAN.phy2log).any()
    with refused("does not fit", "same layers"):
        other = in_order_plan(3, PLAN.topology)
        write_plan(PLAN, tmp_path / "q.json", "sglang", num_hidden_layers=5, current=other)
    assert not (tmp_path / "q.json").exists()


# Reading


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "map.json"

    def write(rows):
        path.write_text(json.dumps({"physical_to_logical_map": rows}))
        return path

    return write


def test_a_placement_of_any_planner_is_a_plan(written):
    plan = read_plan(written([[0, 1, 2, 0], [1, 0, 2, 2]]), num_gpus=2)
    assert plan == Plan(
        np.array([[0, 1, 2, 0], [1, 0, 2, 2]]), np.array([[0, 0, 0, 1], [0, 0, 0, 1]]),
        Topology(3, 4, 2), "sglang",
    )  # fmt: skip


def test_the_rest_of_a_topology_is_given(written):
    plan = read_plan(written([[0, 1, 2, 3]]), num_gpus=2, num_nodes=2, num_groups=2)
    assert plan.topology == Topology(4, 4, 2, 2, 2)


BAD_PLACEMENTS = {
    "no number of GPUs": ([[0, 1]], {}, ["give num_gpus"]),
    "GPUs that do not divide": ([[0, 1, 0]], {"num_gpus": 2}, ["2 does not divide the 3 slots"]),
    "-1": ([[0, 1], [0, -1]], {"num_gpus": 1}, ["slot 1 of row 1 holds -1"]),
    "an absent expert": ([[0, 2, 1], [0, 2, 2]], {"num_gpus": 1}, ["expert 1 has no replica"]),
    "fractions": ([[0.0, 1.0]], {"num_gpus": 1}, ["float64", "give integers"]),
    "another layer": ([[0, 1]], {"num_gpus": 1, "moe_layer_ids": [1]}, ["no layer 1"]),
    "no layers": ([[0, 1]], {"num_gpus": 1, "moe_layer_ids": []}, []),
    "three axes": ([[[0, 1]]], {"num_gpus": 1}, ["(1, 1, 2)"]),
    "a list of text": ([["a"]], {"num_gpus": 1}, []),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_PLACEMENTS)
def test_placements_that_cannot_be_are_refused(kind, written):
    rows, asked, parts = BAD_PLACEMENTS[kind]
    with refused("map.json: ", *parts):
        read_plan(written(rows), **asked)


def test_loads_are_no_plan(tmp_path):
    (tmp_path / "loads.json").write_text('{"logical_count": [[1, 2]]}')
    with refused("loads.json: ", 'no key "physical_to_logical_map"'):
        read_plan(tmp_path / "loads.json", num_gpus=1)


@pytest.mark.parametrize("name", ["numpy", "other", None])
def test_a_format_that_no_engine_reads_is_not_written(name, tmp_path):
    with refused("is no format of plans that are written", "eplb_np, sglang"):
        write_plan(PLAN, tmp_path / "p.npy", name)


def test_another_suffix_than_the_engine_knows_is_refused(tmp_path):
    with refused("p.txt", ".json"):
        write_plan(PLAN, tmp_path / "p.txt", "sglang", num_hidden_layers=5)


@pytest.mark.parametrize("which", ["plan", "current"])
def test_what_is_no_plan_is_not_written(which, tmp_path):
    given = {"plan": PLAN, "current": None, which: "plan.json"}
    with refused(f"{which} must be a Plan"):
        write_plan(path=tmp_path / "p.json", **given)
