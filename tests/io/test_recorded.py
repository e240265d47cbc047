"""What becomes of counts, whatever format they came in: layers, steps, slots."""

import json

import numpy as np
import pytest
from support import assert_same, fewer, refused

from eplb_np import Plan, Topology, make_plan
from eplb_np.io import FORMATS, read_loads
from eplb_np.io.recorded import Recording, recorded_loads

COUNTS = np.random.default_rng(5).integers(1, 100, (4, 5, 8))
COUNTS[2] = 0  # a step in which nothing was served
COUNTS[:, [0, 3]] = 0  # dense layers
MOE, DENSE = [1, 2, 4], [0, 3]
SERVED = COUNTS[[0, 1, 3]][:, MOE]


def of(counts=COUNTS, *, in_order=True, **how):
    """The loads of a recording whose format says so much."""
    asked = {k: how.pop(k) for k in ("moe_layer_ids", "current") if k in how}
    return recorded_loads(Recording(counts, in_order, **how), **asked)


def test_steps_in_order_are_a_history():
    loads = of()
    assert_same([loads.load, loads.steps], [SERVED.sum(axis=0) / 1.0, SERVED], "loads and steps")
    assert loads.windows is loads.steps
    assert (loads.moe_layer_ids, loads.dense_layer_ids, loads.num_steps) == (MOE, DENSE, 3)
    assert loads.notes == ("steps without load, which are left out: 1 of 4",)


def test_steps_in_no_known_order_are_none():
    loads = of(in_order=False)
    assert loads.steps is None
    assert_same([loads.windows], [SERVED.sum(axis=0)[None] / 1.0], "windows")
    assert loads.notes[-1] == "3 steps are summed, because their order is not known"


@pytest.mark.parametrize("counts", [COUNTS[0], COUNTS[:1], COUNTS[1:3]])
def test_a_single_step_is_no_history(counts):
    loads = of(counts)
    assert loads.steps is None
    assert loads.num_steps == 1
    assert len(loads.windows) == 1


def test_somebody_knows_better_whether_steps_are_in_order(tmp_path):
    path = tmp_path / "steps.json"
    path.write_text(json.dumps({"logical_count": COUNTS.tolist()}))
    assert read_loads(path).steps is None
    assert_same([read_loads(path, in_order=True).steps], [SERVED], "in order")
    np.save(tmp_path / "steps.npy", COUNTS)
    assert_same([read_loads(tmp_path / "steps.npy").steps], [SERVED], "an array")
    loads = read_loads(tmp_path / "steps.npy", in_order=False)
    assert loads.steps is None
    assert loads.notes[-1] == "3 steps are summed, because in_order=False"


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32", "bool"])
def test_steps_keep_their_dtype(dtype):
    assert of(COUNTS.astype(dtype)).steps.dtype == dtype
    assert of(COUNTS.astype(dtype)).load.dtype == np.float64


def test_the_number_of_layers_is_said_where_it_is_known():
    assert of(every_layer=True).num_hidden_layers == 5
    assert of().num_hidden_layers == 5  # its dense layers are there
    assert of(COUNTS[:, MOE]).num_hidden_layers is None  # perhaps the model has dense layers
    assert of(COUNTS[:, MOE], every_layer=True).num_hidden_layers == 3
    assert of(COUNTS[:, MOE], layer_ids=[3, 4, 6]).num_hidden_layers is None


@pytest.mark.parametrize("how", ["format", "caller"])
def test_rows_may_be_any_layers(how):
    name = "layer_ids" if how == "format" else "moe_layer_ids"
    loads = of(COUNTS[:, 1:], **{name: [3, 4, 6, 7]})
    assert (loads.moe_layer_ids, loads.dense_layer_ids) == ([3, 4, 7], [0, 1, 2, 5, 6])
    assert_same([loads.steps], [SERVED], "steps")


@pytest.mark.parametrize(
    "ids", [[1, 2, 3, 4], [1, 2, 3, 4, 4], [5, 4, 3, 2, 1], [-1, 0, 1, 2, 3], 5, [0, 1, 2, 3, "4"]]
)
def test_ids_that_do_not_fit_are_refused(ids):
    with refused("moe_layer_ids"):
        of(moe_layer_ids=ids)


@pytest.mark.parametrize("how", [{"every_layer": True}, {"layer_ids": range(5)}])
def test_ids_that_the_file_says_are_not_given(how):
    with refused("moe_layer_ids=[1, 2, 3, 4, 5]", "leave moe_layer_ids out"):
        of(moe_layer_ids=[1, 2, 3, 4, 5], **how)


# Physical counts


def folded_by_hand(counts, phy2log, num_experts):
    folded = np.zeros((*counts.shape[:2], num_experts))
    for step, rows in enumerate(counts):
        for row, slots in enumerate(rows):
            for slot, count in enumerate(slots):
                folded[step, row, phy2log[row][slot]] += count
    return folded


def test_slots_are_added_up_to_their_experts():
    generator = np.random.default_rng(9)
    for _ in range(fewer(100, 100)):
        experts, spare, rows, steps = generator.integers(1, 6, 4)
        phy2log = [
            generator.permutation(np.r_[:experts, generator.integers(experts, size=spare)])
            for _ in range(rows)
        ]
        counts = generator.integers(1, 9, (steps, rows, experts + spare))
        loads = of(counts, phy2log=np.array(phy2log))
        expected = folded_by_hand(counts, phy2log, experts)
        assert_same([loads.load], [expected.sum(axis=0)], "sum")
        if steps > 1:
            assert_same([loads.steps], [expected], "steps")
        assert_same([loads.phy2log], [np.array(phy2log)], "map")


def test_many_steps_are_folded_in_blocks_as_at_once(monkeypatch):
    phy2log = np.tile([0, 1, 2, 3, 0, 1, 2, 2], (5, 1))
    at_once = of(phy2log=phy2log).steps
    monkeypatch.setattr("eplb_np.io.recorded.BLOCK_BYTES", 8)
    assert_same([of(phy2log=phy2log).steps], [at_once], "blocks")


MAP = np.tile([0, 1, 2, 3, 4, 5, 1, 1], (5, 1))
BAD_MAPS = {
    "an id too large": (np.where(MAP == 5, 8, MAP), ["holds 8 in slot 5 of row 0", "8 slots"]),
    "an empty slot": (np.where(MAP == 5, -1, MAP), ["holds -1 in slot 5 of row 0"]),
    "an expert without a slot": (np.where(MAP == 2, 3, MAP), ["no slot for expert 2 in row 0"]),
    "another width": (MAP[:, :7], ["(5, 7)", "(4, 5, 8)"]),
    "another length": (MAP[:4], ["(4, 8)"]),
    "fractions": (MAP + 0.0, ["float64", "give integers"]),
}


@pytest.mark.parametrize("kind", BAD_MAPS)
def test_maps_that_cannot_be_are_refused(kind):
    phy2log, parts = BAD_MAPS[kind]
    with refused("the map from slots to experts", *parts):
        of(phy2log=phy2log)


@pytest.fixture
def in_use():
    return make_plan(SERVED[0][:, :6], num_replicas=8, num_gpus=2, moe_layer_ids=MOE)


def test_the_plan_in_use_says_what_was_counted(in_use, tmp_path):
    np.save(tmp_path / "slots.npy", COUNTS)
    loads = read_loads(tmp_path / "slots.npy", current=in_use)
    assert_same([loads.steps], [folded_by_hand(SERVED, in_use.phy2log, 6)], "steps")
    assert_same([loads.phy2log], [in_use.phy2log], "map")


def test_a_recording_may_end_before_the_plan_does(in_use):
    loads = of(COUNTS[:, :4], current=in_use)
    assert_same([loads.load], [folded_by_hand(SERVED, in_use.phy2log, 6).sum(axis=0)[:2]], "load")


def test_a_plan_that_was_not_in_use_is_refused(in_use):
    with refused("8 columns", "current has 9 slots"):
        of(current=make_plan(SERVED[0], num_replicas=9, num_gpus=3, moe_layer_ids=MOE))
    with refused("layer 1 has load, but current has no such layer"):
        of(current=Plan(in_use.phy2log, in_use.phyrank, in_use.topology, "", [0, 2, 4]))
    with refused("holds the map of its slots itself", "leave current out"):
        of(current=in_use, phy2log=MAP)


def test_what_is_no_plan_is_not_in_use(tmp_path):
    with refused("current must be a Plan"):
        read_loads(tmp_path / "x.npy", current=Topology(8, 8, 1))


def test_columns_that_are_no_experts_are_refused(tmp_path):
    np.save(tmp_path / "slots.npy", COUNTS)
    with refused("slots.npy: ", "loads of 8 experts, but num_experts=6", "current"):
        read_loads(tmp_path / "slots.npy", num_experts=6)
    read_loads(tmp_path / "slots.npy", num_experts=8)


@pytest.mark.parametrize("name", ["num_ranks", "num_experts"])
@pytest.mark.parametrize("size", [0, 1.5, "2", True])
def test_odd_sizes_are_refused_before_a_file_is_opened(name, size, tmp_path):
    with refused(name):
        read_loads(tmp_path / "absent.npy", **{name: size})


@pytest.mark.parametrize("name", ["other", "eplb_np", 5])
def test_a_format_without_loads_is_refused(name, tmp_path):
    np.save(tmp_path / "x.npy", COUNTS)
    with refused("format=", "is no format of loads", "sglang, ", "numpy"):
        read_loads(tmp_path / "x.npy", name)


def test_a_file_of_another_format_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", COUNTS)
    with refused("x.npy: it is an .npy array", "not of format 'sglang'", FORMATS["sglang"].holds):
        read_loads(tmp_path / "x.npy", "sglang")


def test_a_plan_is_no_recording(in_use, tmp_path):
    in_use.save(tmp_path / "plan.json")
    with refused("plan.json: it is a plan as Plan.save writes it", "not loads"):
        read_loads(tmp_path / "plan.json")
